//! Settings are checked, kept, and followed: at once where the kernel can.

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use millstream_runtime::Error;
use millstream_runtime::container::{Configuration, CreateOptions, Profile, Status};
use support::{Recipe, World, eventually, name, traces};

#[test]
fn limits_apply_to_running_containers_and_from_the_start() {
    let world = World::new();
    let container = world.launch("limits");
    let files: [(&str, &str, &[&str], &str); 4] = [
        ("limits.processes", "50", &["pids.max"], "50"),
        ("limits.memory", "64MiB", &["memory.limit_in_bytes", "memory.max"], "67108864"),
        ("limits.cpu.allowance", "20ms/50ms", &["cpu.cfs_quota_us", "cpu.max"], "20000"),
        ("limits.cpu.priority", "5", &["cpu.shares", "cpu.weight"], ""),
    ];
    // The list itself may be empty on v2, and cannot be emptied again.
    let cpus = || container.group_file(&["cpuset.effective_cpus", "cpuset.cpus.effective"]);
    let all = cpus();
    let before: Vec<_> = files.iter().map(|file| container.group_file(file.2)).collect();
    for (key, value, names, expected) in files {
        assert_eq!(container.set(&[(key, value)]), Vec::<String>::new(), "{key}");
        assert!(container.group_file(names).starts_with(expected), "{key}: {}", container.group_file(names));
    }
    container.set(&[("limits.cpu", "1")]);
    assert_eq!(cpus().split([',', '-']).count(), 1);
    world.runtime.stop(&container.name, Duration::ZERO).unwrap();
    world.runtime.start(&container.name).unwrap();
    assert_eq!(container.info().notes, Vec::<String>::new());
    assert_eq!(container.group_file(&["pids.max"]), "50", "from the start");
    assert!(container.group_file(&["memory.limit_in_bytes", "memory.max"]).starts_with("67108864"));
    for key in files.map(|file| file.0).into_iter().chain(["limits.cpu"]) {
        container.unset(key);
    }
    let after: Vec<_> = files.iter().map(|file| container.group_file(file.2)).collect();
    assert_eq!(before, after, "no limit is left");
    assert_eq!(cpus(), all);
}

#[test]
fn limits_hold() {
    let world = World::new();
    let container = world.launch("hold");
    container.set(&[("limits.processes", "10"), ("limits.memory", "32MiB"), ("limits.memory.swap", "false")]);
    let script = "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16; do sleep 5 & done 2>/tmp/forks; true";
    container.sh(script);
    let text = container.output("head -n 1 /tmp/forks");
    assert!(text.contains("fork"), "the eleventh process is refused: {text}");
    eventually("the processes are gone", || container.info().processes.unwrap() < 5);
    let code = container.sh("dd if=/dev/zero of=/dev/shm/x bs=1M count=100 2>/dev/null");
    assert_ne!(code, 0, "more memory than allowed");
    assert!(container.info().memory.unwrap() <= 32 << 20);
    assert!(container.info().memory_peak.unwrap() > 16 << 20);
}

/// Of the block device that the root file system is on, where there is one.
#[test]
fn disks_are_read_and_written_at_their_rate() {
    let world = World::new();
    let container = world.create("io", &world.image(&Recipe::default()));
    let root = |keys: &[(&str, &str)]| {
        let own = [("type", "disk"), ("path", "/")];
        container.device("root", &[&own, keys].concat())
    };
    root(&[("limits.write", "1MB"), ("limits.read", "100iops")]);
    world.runtime.start(&container.name).unwrap();
    let notes = container.info().notes;
    let files = ["blkio.throttle.write_bps_device", "io.max"];
    if let [note] = &notes[..] {
        assert!(note.contains("no block device of its own") || note.contains("not delegated"), "{note}");
        return;
    }
    assert_eq!(notes, Vec::<String>::new());
    let limit = container.group_file(&files);
    assert!(limit.contains("1000000"), "{limit}");
    assert!(container.group_file(&["blkio.throttle.read_iops_device", "io.max"]).contains("100"));
    // At once, and away.
    assert_eq!(root(&[("limits.max", "2MB")]), Vec::<String>::new());
    assert!(container.group_file(&files).contains("2000000"));
    let begin = std::time::Instant::now();
    assert_eq!(container.sh("dd if=/dev/zero of=/file bs=512k count=6 oflag=direct 2>/dev/null"), 0);
    assert!(begin.elapsed() > std::time::Duration::from_millis(900), "3 MiB at 2 MB a second");
    assert_eq!(container.no_device("root"), Vec::<String>::new());
    assert!(!container.group_file(&files).contains("2000000"));
}

#[test]
fn what_is_refused_changes_nothing() {
    let world = World::new();
    let container = world.launch("refuse");
    let before = world.runtime.configuration(&container.name).unwrap();
    let bad = |key: &str, value: &str| Configuration {
        config: BTreeMap::from([("user.x".into(), "1".into()), (key.into(), value.into())]),
        ..Configuration::default()
    };
    for (key, value) in [("limits.memory", "lots"), ("limits.cpus", "1"), ("security.privileged", "perhaps")]
    {
        let result = world.runtime.configure(&container.name, &bad(key, value));
        assert!(matches!(result, Err(Error::Setting { .. })), "{key}");
    }
    let profile = Configuration { profiles: vec![name("no-such")], ..Configuration::default() };
    assert!(matches!(world.runtime.configure(&container.name, &profile), Err(Error::NoProfile { .. })));
    assert_eq!(world.runtime.configuration(&container.name).unwrap(), before);
    let tight = container.set(&[("limits.memory", "4KiB")]);
    assert!(tight.is_empty() || tight[0].contains("less than what is in use"), "{tight:?}");
}

#[test]
fn profiles_are_shared_and_followed() {
    let world = World::new();
    let container = world.launch("profile");
    let (small, web): (millstream_runtime::ContainerName, _) =
        ("small".parse().unwrap(), "web".parse().unwrap());
    let profile = |pairs: &[(&str, &str)]| Profile {
        config: pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        ..Profile::default()
    };
    world.runtime.save_profile(&small, &profile(&[("limits.processes", "20"), ("user.a", "small")])).unwrap();
    world.runtime.save_profile(&web, &profile(&[("user.a", "web")])).unwrap();
    let assigned = Configuration { profiles: vec![small.clone(), web.clone()], ..Configuration::default() };
    world.runtime.configure(&container.name, &assigned).unwrap();
    assert_eq!(container.group_file(&["pids.max"]), "20");
    assert_eq!(world.runtime.expanded(&container.name).unwrap()["user.a"], "web", "the later one counts");
    world.runtime.save_profile(&small, &profile(&[("limits.processes", "30")])).unwrap();
    assert_eq!(container.group_file(&["pids.max"]), "30", "a changed profile is followed");
    container.set(&[("limits.processes", "40")]);
    assert_eq!(container.group_file(&["pids.max"]), "40", "its own counts most");
    assert!(matches!(world.runtime.delete_profile(&web), Err(Error::ProfileInUse { .. })));
    world.runtime.configure(&container.name, &Configuration::default()).unwrap();
    assert_eq!(container.group_file(&["pids.max"]), "max");
    world.runtime.delete_profile(&web).unwrap();
    assert!(world.runtime.profiles().unwrap().contains_key(&small));
    assert!(world.runtime.delete_profile(&"default".parse().unwrap()).is_err());
}

#[test]
fn the_environment_reaches_init_and_commands() {
    let world = World::new();
    let container = world.create("env", &world.image(&Recipe::default()));
    container.set(&[("environment.COLOUR", "red = blue")]);
    world.runtime.start(&container.name).unwrap();
    assert_eq!(container.output("echo $COLOUR"), "red = blue");
    assert_eq!(container.output("tr '\\0' '\\n' < /proc/1/environ | grep COLOUR"), "COLOUR=red = blue");
    let notes = container.set(&[("environment.COLOUR", "green")]);
    assert!(notes.len() == 1 && notes[0].contains("next start"), "{notes:?}");
    assert_eq!(container.output("echo $COLOUR"), "green");
}

#[test]
fn paused_containers_do_nothing_until_they_go_on() {
    let world = World::new();
    let container = world.launch("pause");
    assert_eq!(container.sh("(while true; do echo x >> /tmp/count; sleep 0.01; done) >/dev/null 2>&1 &"), 0);
    let count = || std::fs::metadata(container.dir().join("changes/upper/tmp/count")).map_or(0, |m| m.len());
    eventually("it counts", || count() > 0);
    world.runtime.pause(&container.name).unwrap();
    eventually("it is frozen", || container.info().status == Status::Paused);
    let before = count();
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(count(), before);
    world.runtime.resume(&container.name).unwrap();
    eventually("it counts again", || count() > before);
    assert_eq!(container.info().status, Status::Running);
    world.runtime.pause(&container.name).unwrap();
    world.runtime.stop(&container.name, Duration::from_secs(20)).unwrap();
    assert_eq!(traces(&container.name, &world), Vec::<String>::new());
    assert!(matches!(world.runtime.pause(&container.name), Err(Error::NotRunning { .. })));
}

#[test]
fn ephemeral_containers_are_gone_when_they_stop() {
    let world = World::new();
    let image = world.image(&Recipe::default());
    let options = CreateOptions { ephemeral: true, ..CreateOptions::default() };
    let container = support::Container { world: &world, name: name("gone") };
    for how in ["stop", "poweroff"] {
        world.runtime.launch_with(&container.name, &image, &options).unwrap();
        let directory = container.dir();
        if how == "stop" {
            world.runtime.stop(&container.name, Duration::from_secs(20)).unwrap();
            assert!(!directory.exists());
        } else {
            container.sh("poweroff -f");
            eventually("it is gone", || !directory.exists());
        }
        eventually("nothing is left", || traces(&container.name, &world).is_empty());
    }
}

#[test]
fn containers_start_with_the_host_in_their_order() {
    let world = World::new();
    let image = world.image(&Recipe::default());
    let containers = ["auto-a", "auto-b", "auto-c", "auto-d"].map(|what| world.create(what, &image));
    containers[1].set(&[("boot.autostart", "true"), ("boot.autostart.delay", "2")]);
    containers[2].set(&[("boot.autostart", "true"), ("boot.autostart.priority", "5")]);
    containers[3].set(&[("boot.autostart", "true")]);
    world.runtime.start(&containers[3].name).unwrap();
    let expected = vec![(containers[2].name.clone(), 0), (containers[1].name.clone(), 2)];
    assert_eq!(world.runtime.to_autostart().unwrap(), expected);
}

#[test]
fn containers_run_inside_where_that_is_allowed() {
    let world = World::new();
    let container = world.create("nest", &world.image(&Recipe::default()));
    let mounts = "mount -t proc -o nosuid,nodev,noexec proc /proc &&
        mount -t sysfs -o ro,nosuid,nodev,noexec sysfs /sys";
    let script = &format!("unshare -U -r -m -p -n -f sh -c '{mounts}' 2>/tmp/why");
    world.runtime.start(&container.name).unwrap();
    assert_ne!(container.sh(script), 0);
    world.runtime.stop(&container.name, Duration::ZERO).unwrap();
    container.set(&[("security.nesting", "true")]);
    world.runtime.start(&container.name).unwrap();
    assert_eq!(container.sh(script), 0, "{}", container.output("cat /tmp/why"));
}
