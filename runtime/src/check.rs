//! What this host offers for containers: what is missing, and what that costs.

use std::fs;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use rustix::mount::{OpenTreeFlags, open_tree};
use rustix::process::{PidfdFlags, getpid, pidfd_open};
use serde::Serialize;

use crate::container::{Controllers, try_sharing};
use crate::network::tools;
use crate::sandbox::userns;

/// Something containers use.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// What it is.
    pub name: String,
    /// Whether the host has it.
    pub present: bool,
    /// Whether nothing works without.
    pub required: bool,
    /// What is not possible, or worse, without it.
    pub cost: &'static str,
    /// More about what was found, or how to get it.
    pub detail: String,
}

/// Looks at everything, for the calling user. Features are tried where that leaves no trace.
/// `containers` is the directory containers are kept in.
pub fn host(containers: &Path) -> Vec<Finding> {
    let root = rustix::process::geteuid().is_root();
    let mut found = Vec::new();
    found.extend(namespaces());
    found.extend(system_calls());
    found.extend(file_systems());
    if root {
        found.push(shared_image(containers));
    } else {
        found.extend(subordinate_ids());
        found.push(users_overlay());
    }
    found.extend(control_groups());
    found.extend(networking(root));
    found
}

const NOTHING: &str = "no containers";

fn finding(name: &str, result: Result<String, String>, required: bool, cost: &'static str) -> Finding {
    let present = result.is_ok();
    let detail = result.unwrap_or_else(|reason| reason);
    Finding { name: name.to_owned(), present, required, cost, detail }
}

fn namespaces() -> Vec<Finding> {
    let mut found: Vec<_> = ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"]
        .into_iter()
        .map(|name| {
            let there = Path::new("/proc/self/ns").join(name).exists();
            let result =
                if there { Ok(String::new()) } else { Err("the kernel was built without it".into()) };
            finding(&format!("{name} namespace"), result, true, NOTHING)
        })
        .collect();
    let time = Path::new("/proc/self/ns/time").exists();
    let time = time.then(String::new).ok_or_else(|| "Linux has it since 5.6, with CONFIG_TIME_NS".to_owned());
    found.push(finding("time namespace", time, false, "no linux.time.own"));
    found.push(finding("permission to make user namespaces", user_namespaces(), true, NOTHING));
    found
}

/// Switches that distributions use to forbid them.
fn user_namespaces() -> Result<String, String> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let most = read("/proc/sys/user/max_user_namespaces");
    if most == "0" {
        return Err("set the sysctl user.max_user_namespaces to 10000".into());
    }
    if !rustix::process::geteuid().is_root() {
        for (switch, wrong, right) in
            [("unprivileged_userns_clone", "0", "1"), ("apparmor_restrict_unprivileged_userns", "1", "0")]
        {
            if read(&format!("/proc/sys/kernel/{switch}")) == wrong {
                return Err(format!("set the sysctl kernel.{switch} to {right}"));
            }
        }
    }
    Ok(format!("at most {most}"))
}

/// Newer ones, each tried on something harmless.
fn system_calls() -> Vec<Finding> {
    let describe = |error: rustix::io::Errno, since: &str| format!("{error}; Linux has it since {since}");
    let (path, resolve) = (OFlags::PATH | OFlags::CLOEXEC, ResolveFlags::NO_MAGICLINKS);
    let calls = [
        ("pidfd_open", pidfd_open(getpid(), PidfdFlags::empty()).map(drop), "5.3"),
        ("openat2", openat2(CWD, "/", path, Mode::empty(), resolve).map(drop), "5.6"),
        ("open_tree", open_tree(CWD, "/", OpenTreeFlags::OPEN_TREE_CLOEXEC).map(drop), "5.2"),
    ];
    let mut found: Vec<_> = calls
        .into_iter()
        .map(|(name, result, since)| {
            let result = result.map(|()| String::new()).map_err(|error| describe(error, since));
            finding(&format!("system call {name}"), result, true, NOTHING)
        })
        .collect();
    let seccomp = match fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail") {
        Ok(actions) if actions.contains("errno") => Ok(String::new()),
        _ => Err("the kernel was built without CONFIG_SECCOMP_FILTER".to_owned()),
    };
    found.push(finding("seccomp filters", seccomp, true, NOTHING));
    found
}

fn file_systems() -> Vec<Finding> {
    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let has = |name: &str| known.lines().any(|line| line.split_whitespace().last() == Some(name));
    [
        ("overlay", "CONFIG_OVERLAY_FS; try: modprobe overlay"),
        ("proc", "CONFIG_PROC_FS"),
        ("sysfs", "CONFIG_SYSFS"),
        ("tmpfs", "CONFIG_TMPFS"),
        ("devpts", "CONFIG_UNIX98_PTYS"),
        ("mqueue", "CONFIG_POSIX_MQUEUE"),
        ("cgroup2", "CONFIG_CGROUPS"),
    ]
    .into_iter()
    .map(|(name, option)| {
        let result = if has(name) { Ok(String::new()) } else { Err(format!("the kernel needs {option}")) };
        finding(&format!("file system {name}"), result, true, NOTHING)
    })
    .collect()
}

const SHARED: &str = "every container copies its image: slower to create, more disk";

fn shared_image(containers: &Path) -> Finding {
    let result = try_sharing(containers).map(|()| containers.display().to_string());
    finding("overlay on id-mapped mounts", result, false, SHARED)
}

fn users_overlay() -> Finding {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']).map(|part| part.parse().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let result =
        if version >= (5, 11) { Ok(release) } else { Err(format!("{release}; Linux has it since 5.11")) };
    finding("overlay in user namespaces", result, true, "no containers for ordinary users")
}

fn subordinate_ids() -> Vec<Finding> {
    let cost = "no containers for ordinary users";
    let result = userns::check().map(|()| String::new()).map_err(|error| error.to_string());
    vec![finding("subordinate ids, newuidmap and newgidmap", result, true, cost)]
}

fn networking(root: bool) -> Vec<Finding> {
    let needed: &[(&str, &str)] = if root {
        &[
            ("ip", "no interfaces for containers"),
            ("dnsmasq", "no networks of ours: no addresses, no names"),
            ("nft", "no networks of ours: no way out of the host"),
            ("tc", "limits.ingress and limits.egress are not kept"),
        ]
    } else {
        &[("pasta", "no network for an ordinary user's containers; proxy devices work")]
    };
    let look = |(program, cost): &(&str, &'static str)| {
        let result = tools::find(program).map(|path| path.display().to_string());
        finding(&format!("program {program}"), result, false, cost)
    };
    let mut found: Vec<_> = needed.iter().map(look).collect();
    if !root {
        let tun = fs::File::options().read(true).write(true).open("/dev/net/tun");
        let result = tun.map(|_| String::new());
        let result = result.map_err(|e| format!("{e}; it needs mode 0666, and the module tun"));
        found.push(finding("/dev/net/tun", result, false, needed[0].1));
    }
    found
}

fn control_groups() -> Vec<Finding> {
    let controllers = Controllers::of_host();
    let mut found = vec![finding(
        "a cgroup2 for containers",
        controllers.own_v2.map(|()| String::new()),
        false,
        "no containers with systemd as init",
    )];
    for (name, cost) in [
        ("cpu", "limits.cpu.allowance and limits.cpu.priority are not kept"),
        ("cpuset", "limits.cpu is not kept"),
        ("memory", "limits.memory is not kept"),
        ("pids", "limits.processes is not kept"),
        ("io", "limits.disk.priority is not kept"),
        ("freezer", "no pause and resume"),
    ] {
        let place = controllers.places.iter().find(|(controller, _)| controller == name);
        let result = place.map(|(_, place)| place.display().to_string());
        let result = result.ok_or_else(|| "not on this host, or not delegated to you".to_owned());
        found.push(finding(&format!("cgroup controller {name}"), result, false, cost));
    }
    found
}
