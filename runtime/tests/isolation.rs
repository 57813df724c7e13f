//! What the root of a container finds when it looks around.

mod support;

use std::fs;
use std::os::fd::AsRawFd;

use support::{Container, Recipe, World};

#[test]
fn ids_are_mapped() {
    let world = World::new();
    let container = world.launch("ids");
    let base = container.info().idmap.base;
    assert_eq!(container.output("awk '{print $1, $2, $3}' /proc/1/uid_map"), format!("0 {base} 65536"));
    assert_eq!(container.output("awk '{print $1, $2, $3}' /proc/self/gid_map"), format!("0 {base} 65536"));
    let status = fs::read_to_string(format!("/proc/{}/status", container.info().pid.unwrap())).unwrap();
    let uid = status.lines().find(|line| line.starts_with("Uid:")).unwrap();
    assert_eq!(uid.split_whitespace().nth(1).unwrap(), base.to_string());
    assert_eq!(container.output("grep Groups: /proc/self/status | tr -d '\\t '"), "Groups:");
}

#[test]
fn init_and_commands_are_confined_alike() {
    let world = World::new();
    let container = world.launch("caps");
    for process in ["1", "self"] {
        let status = container.output(&format!("cat /proc/{process}/status"));
        let field = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().nth(1).unwrap().to_owned()
        };
        assert_eq!(field("Seccomp:"), "2", "{process}");
        for set in ["CapInh:", "CapAmb:"] {
            assert_eq!(field(set), "0000000000000000", "{process}");
        }
        let bounding = u64::from_str_radix(&field("CapBnd:"), 16).unwrap();
        for (capability, number) in
            [("sys_module", 16), ("sys_rawio", 17), ("sys_time", 25), ("mac_override", 32), ("mac_admin", 33)]
        {
            assert_eq!(bounding >> number & 1, 0, "{process} has {capability}");
        }
        assert_eq!(bounding >> 21 & 1, 1, "{process} administers its own namespaces");
        assert_eq!(field("NoNewPrivs:"), "0", "{process}: sudo works");
        assert_eq!(field("SigBlk:"), "0000000000000000", "{process}");
    }
}

/// None, where the kernel runs without AppArmor.
#[test]
fn init_and_commands_have_apparmors_profile() {
    let enabled = fs::read_to_string("/sys/module/apparmor/parameters/enabled").unwrap_or_default();
    let expected = if enabled.trim() == "Y" { "millstream-1 (enforce)" } else { "" };
    let world = World::new();
    let container = world.launch("label");
    assert_eq!(container.info().notes, Vec::<String>::new());
    for process in ["1", "self"] {
        assert_eq!(container.output(&format!("cat /proc/{process}/attr/current 2>/dev/null")), expected);
    }
}

#[test]
fn files_that_tell_about_the_host_yield_nothing() {
    let world = World::new();
    let container = world.launch("hide");
    for file in ["kcore", "keys", "sysrq-trigger", "timer_list", "kmsg"] {
        let script = format!("cat /proc/{file} 2>/dev/null | head -c 100 | wc -c");
        assert_eq!(container.output(&script), "0", "{file}");
    }
    for directory in ["/sys/firmware", "/sys/kernel/debug", "/sys/kernel/security", "/sys/kernel/tracing"] {
        assert_eq!(container.output(&format!("ls -A {directory} 2>/dev/null")), "", "{directory}");
    }
    // Taking the cover away opens nothing.
    for file in ["kcore", "sysrq-trigger", "timer_list", "kmsg"] {
        let script =
            format!("umount /proc/{file} 2>/dev/null; cat /proc/{file} 2>/dev/null | head -c 9 | wc -c");
        assert_eq!(container.output(&script), "0", "{file} uncovered");
    }
}

#[test]
fn switches_of_the_host_cannot_be_turned() {
    let world = World::new();
    let container = world.launch("switch");
    for file in [
        "/proc/sys/kernel/core_pattern",
        "/proc/sys/kernel/modprobe",
        "/proc/sys/vm/overcommit_memory",
        "/proc/sysrq-trigger-uncovered",
        "/sys/kernel/uevent_helper",
        "/sys/power/state",
        "/proc/sys/kernel/hostname-of-host",
    ] {
        let script =
            format!("mount -o remount,rw /sys 2>/dev/null; test -e {file} || exit 0; ! echo x > {file}");
        assert_eq!(container.sh(&format!("({script}) 2>/dev/null")), 0, "{file}");
    }
    let core_pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    assert_ne!(core_pattern.trim(), "x");
    assert_eq!(container.sh("echo 1 > /proc/sys/net/ipv4/ip_forward"), 0, "its own network is its own");
    assert_eq!(container.output("cat /proc/sys/net/ipv4/ip_forward"), "1");
}

#[test]
fn no_block_device_can_be_had() {
    let world = World::new();
    let container = world.launch("block");
    assert_ne!(container.sh("mknod /tmp/disk b 254 0 2>/dev/null"), 0);
    assert_ne!(container.sh("mount -o remount,dev / 2>/dev/null; mknod /tmp/mem c 1 1 2>/dev/null"), 0);
    assert_eq!(container.output("find /dev -type b"), "");
    let expected = "console\nfull\nnull\nptmx\nrandom\ntty\nurandom\nzero";
    assert_eq!(
        container.output("cd /dev; find . -type c -maxdepth 1 -o -name ptmx -maxdepth 1 | cut -c3- | sort"),
        expected
    );
    assert_eq!(container.sh("echo x > /dev/null && head -c 1 /dev/zero > /dev/null"), 0);
}

#[test]
fn the_console_is_a_terminal_of_its_own() {
    let world = World::new();
    let container = world.launch("console");
    assert_eq!(container.output("stat -c %t /dev/console"), "88", "a pty's slave");
    assert_eq!(container.output("readlink /proc/1/fd/0"), "/dev/console");
    assert_eq!(container.sh("echo hello from inside > /dev/console"), 0);
    support::eventually("the log has it", || container.console().contains("hello from inside"));
}

#[test]
fn no_descriptor_of_the_host_leaks() {
    let world = World::new();
    let secret = world.dir.path().join("secret");
    fs::write(&secret, "x").unwrap();
    let file = fs::File::open(&secret).unwrap();
    // As a careless caller would have it: open across exec.
    rustix::io::fcntl_setfd(&file, rustix::io::FdFlags::empty()).unwrap();
    assert!(file.as_raw_fd() > 2);
    let container = world.launch("leak");
    assert_eq!(container.output("ls /proc/1/fd | sort -n | tr '\\n' ' '"), "0 1 2");
    let links = container.output("for fd in /proc/self/fd/*; do readlink $fd; done");
    assert!(!links.contains("secret"), "{links}");
    // The command's own: three standard streams, and the directory it lists.
    assert_eq!(container.output("ls /proc/self/fd | wc -l"), "4");
    let supervisor = format!("/proc/{}/fd", container.supervisor());
    for entry in fs::read_dir(supervisor).unwrap().flatten() {
        let target = fs::read_link(entry.path()).unwrap();
        assert!(!target.ends_with("secret"), "{}", target.display());
    }
}

#[test]
fn the_programs_of_the_host_cannot_be_written() {
    let world = World::new();
    let container = world.launch("exe");
    assert_ne!(
        container.sh("(echo x >> /proc/1/exe) 2>/dev/null"),
        0,
        "it is being executed, or not its own"
    );
    assert_eq!(container.output("readlink /proc/1/exe"), "/bin/busybox");
    assert_eq!(container.output("readlink /proc/1/cwd; readlink /proc/1/root"), "/\n/");
}

#[test]
fn it_sees_and_administers_its_own_control_groups_only() {
    let world = World::new();
    let container = world.launch("groups");
    let groups = container.output("cat /proc/1/cgroup");
    assert!(groups.lines().all(|line| line.ends_with(":/")), "{groups}");
    assert_eq!(container.output("stat -fc %t /sys/fs/cgroup"), "63677270", "cgroup2");
    assert_eq!(container.sh("mkdir /sys/fs/cgroup/sub && echo $$ > /sys/fs/cgroup/sub/cgroup.procs"), 0);
    assert_ne!(container.sh("(echo max > /sys/fs/cgroup/cgroup.max.depth) 2>/dev/null"), 0, "limits stay");
    assert_ne!(container.sh("test -e /sys/fs/cgroup/millstream"), 0);
    // On hosts that have them, the v1 hierarchies show its own directory and are read-only to it.
    let script = "mkdir /tmp/m && mount -t cgroup -o memory none /tmp/m 2>/dev/null || exit 0
        ! echo 1 > /tmp/m/memory.limit_in_bytes";
    assert_eq!(container.sh(&format!("({script}) 2>/dev/null")), 0);
}

#[test]
fn its_mounts_are_its_own() {
    let world = World::new();
    let before = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let container = world.launch("mounts");
    assert_eq!(container.sh("mkdir -p /mnt/x && mount -t tmpfs none /mnt/x && touch /mnt/x/y"), 0);
    let mounts = container.output("cut -d' ' -f5 /proc/self/mountinfo | sort -u");
    assert!(mounts.lines().any(|line| line == "/mnt/x"));
    let during = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let ours = |text: &str| text.lines().filter(|l| l.contains("overlay") || l.contains("/mnt/x")).count();
    assert_eq!(ours(&before), ours(&during), "the host's table is unchanged");
    let host: Vec<_> = before.lines().filter_map(|line| line.split(' ').nth(3)).collect();
    assert!(!host.is_empty());
    let roots = container.output("grep -v fuse.lxcfs /proc/self/mountinfo | cut -d' ' -f4 | sort -u");
    for root in roots.lines() {
        let expected = ["/", "/0", "/null", "/zero", "/full", "/random", "/urandom", "/tty"];
        assert!(expected.contains(&root), "a piece of the host is mounted: {root}");
    }
}

#[test]
fn its_keyring_is_its_own() {
    let world = World::new();
    let container = world.launch("keys");
    assert_eq!(container.sh("umount /proc/keys"), 0);
    let keys = container.output("cat /proc/keys");
    let sessions: Vec<_> = keys.lines().filter(|line| line.contains("_ses")).collect();
    assert!(sessions.iter().all(|line| line.split_whitespace().nth(5) == Some("0")), "{keys}");
}

#[test]
fn it_has_a_loopback_interface_and_no_other() {
    let world = World::new();
    let container = world.launch("net");
    assert_eq!(container.output("ls /sys/class/net"), "lo");
    assert_eq!(container.output("ip -4 -o addr show lo | awk '{print $4}'"), "127.0.0.1/8");
    assert_eq!(container.output("ip link show lo | grep -c LOWER_UP"), "1");
}

#[test]
fn processes_of_the_host_and_of_other_containers_are_out_of_sight() {
    let world = World::new();
    let (one, two) = (world.launch("one"), world.launch("two"));
    let pids = |container: &Container| container.output("ls -d /proc/[0-9]* | wc -l").parse::<u32>().unwrap();
    assert!(pids(&one) < 10 && pids(&two) < 10);
    assert_ne!(one.info().idmap.base, two.info().idmap.base);
    assert_ne!(one.sh(&format!("kill -0 {} 2>/dev/null", two.info().pid.unwrap())), 0);
}

#[test]
fn devices_of_the_image_are_not_used() {
    let world = World::new();
    // A file where the device should be, and a link for the directory of terminals' master.
    let image = world.image(&Recipe {
        files: &[("dev/null", "from the image")],
        links: &[("dev/ptmx", "/etc/passwd"), ("dev/console", "/etc/passwd")],
        ..Recipe::default()
    });
    let container = world.launch_from("fakes", &image);
    assert_eq!(container.output("cat /dev/null"), "");
    assert_eq!(container.output("readlink /dev/ptmx"), "pts/ptmx");
    assert_eq!(container.output("stat -c %t /dev/console"), "88");
    assert_eq!(container.output("head -c 4 /etc/passwd"), "root");
}
