//! What is set for each process and for the container's namespaces: `limits.kernel.*`, `linux.sysctl.*`
//! and `raw.oci`.

mod support;

use std::time::Duration;

use millstream_runtime::Error;
use support::{Recipe, World, traces};

const OCI: &str = r#"{
    "process": {
        "rlimits": [
            {"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200},
            {"type": "RLIMIT_CORE", "soft": 4096, "hard": 8192}
        ],
        "oomScoreAdj": 321,
        "noNewPrivileges": true
    },
    "linux": {
        "sysctl": {"net.ipv4.ip_forward": "1", "net.ipv4.ip_default_ttl": "33"},
        "maskedPaths": ["/proc/version", "/etc/secret", "/not/there"],
        "readonlyPaths": ["/etc/closed"]
    },
    "mounts": [{"destination": "/scratch/pad", "type": "tmpfs", "options": ["size=64k", "mode=0700", "noexec"]}]
}"#;

#[test]
fn parts_of_the_runtime_specification_are_kept() {
    let world = World::new();
    let container = world.create("oci", &world.image(&Recipe::default()));
    assert_eq!(container.set(&[("raw.oci", OCI)]), Vec::<String>::new());
    // What has a key of its own counts by that.
    container.set(&[
        ("limits.kernel.nofile", "300:4000"),
        ("limits.kernel.memlock", "4096:8192"),
        ("linux.sysctl.net.ipv4.ip_default_ttl", "44"),
        ("linux.sysctl.kernel.msgmax", "9000"),
    ]);
    world.runtime.start(&container.name).unwrap();
    assert_eq!(container.info().notes, Vec::<String>::new());
    let (of_init, of_command) = ("cat /proc/1/limits", "cat /proc/self/limits");
    for look in [of_init, of_command] {
        let limits = container.output(look);
        let limit = |name: &str| {
            let line = limits.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(limit("Max open files"), "300 4000", "{look}");
        assert_eq!(limit("Max core file size"), "4096 8192", "{look}");
        assert_eq!(limit("Max locked memory"), "4096 8192", "{look}");
    }
    let scores = "cat /proc/1/oom_score_adj /proc/self/oom_score_adj; grep NoNewPrivs /proc/1/status /proc/self/status";
    assert_eq!(
        container.output(scores),
        "321\n321\n/proc/1/status:NoNewPrivs:\t1\n/proc/self/status:NoNewPrivs:\t1"
    );
    let parameters = "cd /proc/sys; cat net/ipv4/ip_forward net/ipv4/ip_default_ttl kernel/msgmax";
    assert_eq!(container.output(parameters), "1\n44\n9000");
    assert_ne!(std::fs::read_to_string("/proc/sys/kernel/msgmax").unwrap().trim(), "9000", "not the host's");
    assert_eq!(container.output("cat /proc/version; stat -c %a /scratch/pad"), "700");
    assert_ne!(
        container.sh("dd if=/dev/zero of=/scratch/pad/file bs=1k count=100 2>/dev/null"),
        0,
        "its size"
    );
    // More than the host has is had where the host's root may give it, or else it is said.
    world.runtime.stop(&container.name, Duration::ZERO).unwrap();
    container.set(&[("limits.kernel.memlock", "unlimited")]);
    world.runtime.start(&container.name).unwrap();
    let notes = container.info().notes;
    let more = container.output("grep 'Max locked memory' /proc/1/limits").contains("unlimited");
    assert_ne!(
        more,
        notes.iter().any(|note| note.contains("limits.kernel.memlock is not kept")),
        "{notes:?}"
    );
    let script = "echo true > /scratch/pad/run && chmod 755 /scratch/pad/run && sh /scratch/pad/run";
    assert_eq!(container.sh(script), 0);
    assert_ne!(container.sh("/scratch/pad/run 2>/dev/null"), 0, "noexec");
}

#[test]
fn clocks_can_begin_with_the_container() {
    let world = World::new();
    let container = world.create("clocks", &world.image(&Recipe::default()));
    // Not the uptime, which LXCFS may show.
    let offset = || {
        let offsets = container.output("cat /proc/self/timens_offsets");
        offsets
            .lines()
            .find_map(|line| line.strip_prefix("boottime")?.split_whitespace().next()?.parse().ok())
    };
    let host = || {
        let text = std::fs::read_to_string("/proc/uptime").unwrap();
        text.split('.').next().unwrap().parse::<i64>().unwrap()
    };
    world.runtime.start(&container.name).unwrap();
    assert_eq!(offset(), Some(0), "the host's, unless it is set");
    assert_eq!(
        container.set(&[("linux.time.own", "true")]),
        ["linux.time.own takes effect with the next start"]
    );
    world.runtime.stop(&container.name, Duration::ZERO).unwrap();
    let before = host();
    world.runtime.start(&container.name).unwrap();
    let namespaces = container.output("readlink /proc/1/ns/time; readlink /proc/self/ns/time");
    let (init, command) = namespaces.split_once('\n').unwrap();
    assert_eq!(init, command, "both are in it");
    let own = std::fs::read_link("/proc/self/ns/time").unwrap();
    assert_ne!(own.to_str(), Some(init));
    let began = -offset().unwrap();
    assert!((before..=host()).contains(&began), "{began} is when it was started");
    let day: u64 = container.output("date +%s").parse().unwrap();
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    assert!(now.abs_diff(day) < 60, "the time of day is everybody's");
}

#[test]
fn paths_are_covered_and_closed() {
    let world = World::new();
    let container = world.launch("paths");
    let made = "mkdir /etc/secret /etc/closed; echo x > /etc/secret/key; echo x > /etc/closed/file";
    assert_eq!(container.sh(made), 0);
    world.runtime.stop(&container.name, Duration::ZERO).unwrap();
    let said = container.set(&[("raw.oci", OCI)]);
    assert_eq!(said, Vec::<String>::new());
    world.runtime.start(&container.name).unwrap();
    assert_eq!(container.output("ls -A /etc/secret; cat /etc/closed/file"), "x");
    assert_ne!(container.sh("echo y > /etc/closed/file 2>/dev/null"), 0);
    assert_ne!(container.sh("echo y > /etc/secret/key 2>/dev/null"), 0);
    // While it runs it stays as it is, which is said.
    assert_eq!(container.unset("raw.oci"), ["raw.oci takes effect with the next start"]);
    let said = container.set(&[("limits.kernel.nofile", "7")]);
    assert_eq!(said, ["limits.kernel.nofile takes effect with the next start"]);
    assert_eq!(container.set(&[("limits.kernel.nofile", "512")]).len(), 1);
    assert_eq!(container.output("ulimit -n"), "512", "for commands at once");
}

#[test]
fn what_cannot_be_had_is_said_and_leaves_nothing() {
    let world = World::new();
    let container = world.create("wrong", &world.image(&Recipe::default()));
    for (key, value, says) in [
        ("linux.sysctl.net.ipv4.nothing", "1", "linux.sysctl.net.ipv4.nothing"),
        ("linux.sysctl.net.ipv4.ip_forward", "many", "linux.sysctl.net.ipv4.ip_forward"),
        ("raw.oci", r#"{"mounts": [{"destination": "/x", "type": "tmpfs", "options": ["size=x"]}]}"#, "/x"),
    ] {
        container.set(&[(key, value)]);
        let refused = world.runtime.start(&container.name).unwrap_err();
        assert!(matches!(refused, Error::Start { .. }) && refused.to_string().contains(says), "{refused}");
        assert_eq!(traces(&container.name, &world), Vec::<String>::new());
        container.unset(key);
    }
    let mut wrong = world.runtime.configuration(&container.name).unwrap();
    wrong.config.insert("raw.oci".into(), r#"{"linux": {"seccomp": {}}}"#.into());
    let refused = world.runtime.configure(&container.name, &wrong).unwrap_err();
    assert!(refused.to_string().contains("seccomp"), "{refused}");
    world.runtime.start(&container.name).unwrap();
}
