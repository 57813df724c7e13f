//! What an image may ask of LXC: the keys of lxc.container.conf(5) that concern only what is inside
//! the container, and no value that takes a restriction back.
//!
//! Everything else is refused: hooks and log files run and write on the host, mounts and devices
//! reach it, and an empty value clears what the host's own configuration has said before.

/// Terminals an image may ask for.
const MAX_TERMINALS: u32 = 1024;
/// Pseudo file systems that an image may have mounted: they hold nothing of the host's.
const FILE_SYSTEMS: [&str; 2] = ["mqueue", "tmpfs"];
const MOUNT_OPTIONS: [&str; 16] = [
    "create=dir",
    "create=file",
    "defaults",
    "lazytime",
    "noatime",
    "nodev",
    "nodiratime",
    "noexec",
    "nosuid",
    "optional",
    "relatime",
    "ro",
    "rw",
    "strictatime",
    "sync",
    "async",
];
/// Mounts that LXC makes by itself, as tight as its own configuration has them.
const AUTOMATIC: [&str; 9] = [
    "cgroup",
    "cgroup:mixed",
    "cgroup:ro",
    "proc",
    "proc:mixed",
    "sys",
    "sys:mixed",
    "sys:ro",
    "cgroup:mixed:force",
];

type Checked = Result<(), String>;

/// Checks an image's configuration.
pub(super) fn config(text: &str) -> Checked {
    each(text, line)
}

/// Checks an image's fstab.
pub(super) fn fstab(text: &str) -> Checked {
    each(text, mount)
}

fn each(text: &str, check: impl Fn(&str) -> Checked) -> Checked {
    for (number, line) in text.lines().enumerate() {
        let shown = || line.trim().chars().take(120).collect::<String>();
        if line.contains(|c: char| c.is_control() && c != '\t') {
            return Err(format!("line {} holds control characters", number + 1));
        }
        let content = line.trim();
        if content.is_empty() || content.starts_with('#') {
            continue;
        }
        check(content).map_err(|reason| format!("line {} (\"{}\"): {reason}", number + 1, shown()))?;
    }
    Ok(())
}

fn line(text: &str) -> Checked {
    let (key, value) = text.split_once('=').ok_or("expected KEY = VALUE")?;
    let (key, value) = (key.trim(), value.trim());
    if value.is_empty() {
        return Err("an empty value clears what the host has set".into());
    }
    let plain = |extra: &str| value.chars().all(|c| c.is_ascii_alphanumeric() || extra.contains(c));
    let good = match key {
        "lxc.include" => include(value),
        "lxc.arch" => plain("_"),
        "lxc.cap.drop" => plain("_ "),
        "lxc.autodev" => value == "1",
        "lxc.tty.max" | "lxc.pty.max" => value.parse().is_ok_and(|count: u32| count <= MAX_TERMINALS),
        "lxc.tty.dir" => value == "lxc",
        "lxc.signal.halt" | "lxc.signal.reboot" | "lxc.signal.stop" => plain("+-"),
        "lxc.environment" | "lxc.init.cmd" | "lxc.init.cwd" => true,
        "lxc.mount.auto" => value.split_whitespace().all(|word| AUTOMATIC.contains(&word)),
        "lxc.mount.entry" => return mount(value),
        _ => return Err(format!("an image may not set {key}")),
    };
    if good { Ok(()) } else { Err(format!("an image may not set {key} to this")) }
}

/// Only what LXC itself ships for distributions; `nesting.conf` and the like loosen the container.
fn include(value: &str) -> bool {
    let name =
        ["LXC_TEMPLATE_CONFIG/", "/usr/share/lxc/config/"].iter().find_map(|dir| value.strip_prefix(dir));
    let Some(stem) = name.and_then(|name| name.strip_suffix(".conf")) else { return false };
    let (distribution, kind) = stem.split_once('.').unwrap_or(("", stem));
    distribution.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && matches!(kind, "common" | "userns" | "moresecure")
}

fn mount(entry: &str) -> Checked {
    let fields: Vec<_> = entry.split_whitespace().collect();
    let [_, target, kind, options, ..] = fields[..] else {
        return Err("expected SOURCE TARGET TYPE OPTIONS".into());
    };
    if !FILE_SYSTEMS.contains(&kind) {
        return Err(format!("an image may have {} mounted, not {kind}", FILE_SYSTEMS.join(" and ")));
    }
    let option = |option: &str| {
        let sized = ["mode=", "nr_inodes=", "size="].iter().find_map(|key| option.strip_prefix(key));
        sized.map_or_else(
            || MOUNT_OPTIONS.contains(&option),
            |value| value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'%'),
        )
    };
    if let Some(bad) = options.split(',').find(|word| !option(word)) {
        return Err(format!("an image may not have anything mounted with {bad}"));
    }
    if target.starts_with('/') || target.contains('\\') || target.split('/').any(|part| part == "..") {
        return Err("a mount's target must be a relative path".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_images_in_use_say_passes() {
        let text = "# Distribution\n\nlxc.include = LXC_TEMPLATE_CONFIG/common.conf\n\
                    lxc.include = LXC_TEMPLATE_CONFIG/debian.userns.conf\nlxc.arch = x86_64\n\
                    lxc.cap.drop = sys_nice sys_pacct\nlxc.tty.max = 4\nlxc.signal.halt = SIGRTMIN+4\n\
                    lxc.mount.auto = proc:mixed sys:ro cgroup:mixed\nlxc.init.cmd = /sbin/init\n\
                    lxc.mount.entry = tmpfs run tmpfs rw,nodev,mode=755,size=10%,create=dir 0 0\n";
        assert_eq!(config(text), Ok(()));
        assert_eq!(fstab("mqueue dev/mqueue mqueue rw,relatime,create=dir,optional 0 0\n"), Ok(()));
    }

    #[test]
    fn what_reaches_the_host_or_loosens_the_container_is_refused() {
        for bad in [
            "lxc.hook.pre-start = /bin/sh",
            "lxc.hook.start-host = x",
            "lxc.mount.entry = / mnt none bind 0 0",
            "lxc.mount.entry = tmpfs mnt tmpfs bind 0 0",
            "lxc.mount.entry = tmpfs ../mnt tmpfs rw 0 0",
            "lxc.mount.entry = tmpfs /etc tmpfs rw 0 0",
            "lxc.mount.entry = proc proc proc rw 0 0",
            "lxc.mount.fstab = /etc/fstab",
            "lxc.mount.auto = proc:rw",
            "lxc.mount.auto = cgroup-full:rw:force",
            "lxc.mount.auto = shmounts:/x:/y",
            "lxc.rootfs.path = dir:/",
            "lxc.idmap = u 0 0 1",
            "lxc.include = /etc/passwd",
            "lxc.include = LXC_TEMPLATE_CONFIG/../../../etc/x.common.conf",
            "lxc.include = LXC_TEMPLATE_CONFIG/nesting.conf",
            "lxc.include = LXC_TEMPLATE_CONFIG/common.conf.d/x.conf",
            "lxc.cap.drop =",
            "lxc.cap.keep = sys_admin",
            "lxc.apparmor.profile = unconfined",
            "lxc.seccomp.profile = x",
            "lxc.cgroup.devices.allow = a",
            "lxc.cgroup2.devices.allow = a",
            "lxc.namespace.share.net = 1",
            "lxc.net.0.type = phys",
            "lxc.log.file = /etc/x",
            "lxc.console.logfile = /etc/x",
            "lxc.tty.max = 100000000",
            "lxc.autodev = 0",
            "lxc.no_new_privs",
            "lxc.arch = x86_64\rlxc.hook.stop = x",
            "  lxc.hook.stop=x",
        ] {
            assert!(config(bad).is_err(), "{bad}");
        }
        for bad in
            ["/dev/sda1 mnt ext4 rw 0 0", "/ mnt none rbind,optional 0 0", "tmpfs", "/proc p proc rw 0 0"]
        {
            assert!(fstab(bad).is_err(), "{bad}");
        }
        let error = config("lxc.arch = x86_64\nlxc.hook.stop = /bin/x\n").unwrap_err();
        assert!(error.contains("line 2") && error.contains("lxc.hook.stop"), "{error}");
    }
}
