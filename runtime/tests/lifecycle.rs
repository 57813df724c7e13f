//! Containers come up, run commands, shut down, and leave nothing behind.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use millstream_runtime::Error;
use millstream_runtime::container::{Base, ExecOptions, ImageUse, Status, Stopped};
use support::{Recipe, World, eventually, name, traces};

#[test]
fn a_container_comes_up_shuts_down_and_leaves_nothing() {
    let world = World::new();
    let container = world.launch("life");
    assert_eq!(container.info().status, Status::Running);
    assert!(traces(&container.name, &world).len() >= 3, "control groups, supervisor and init are there");
    assert_eq!(container.output("hostname"), container.name.as_str());
    assert_eq!(world.runtime.stop(&container.name, Duration::from_secs(20)).unwrap(), Stopped::Cleanly);
    let info = container.info();
    assert_eq!((info.status, info.last_exit.unwrap().code), (Status::Stopped, 0));
    assert_eq!(traces(&container.name, &world), Vec::<String>::new());
    let directory = container.dir();
    world.runtime.delete(&container.name, false).unwrap();
    assert!(!directory.exists());
    assert!(matches!(world.runtime.info(&container.name), Err(Error::NotFound { .. })));
}

#[test]
fn changes_last_from_run_to_run_and_stay_out_of_the_image() {
    let world = World::new();
    let container = world.launch("keep");
    assert_eq!(container.sh("echo kept > /etc/kept && rm /etc/inittab && mv /root /moved"), 0);
    world.runtime.stop(&container.name, Duration::ZERO).unwrap();
    world.runtime.start(&container.name).unwrap();
    assert_eq!(container.output("cat /etc/kept"), "kept");
    assert_ne!(container.sh("test -e /etc/inittab"), 0);
    let fresh = world.runtime.images().join(container.info().image.to_string()).join("rootfs");
    assert!(fresh.join("etc/inittab").exists() && !fresh.join("etc/kept").exists());
}

#[test]
fn exec_returns_what_the_command_did() {
    let world = World::new();
    let container = world.launch("exec");
    assert_eq!(container.sh("exit 0"), 0);
    assert_eq!(container.sh("exit 255"), 255);
    assert_eq!(container.sh("kill -TERM $$"), 128 + libc::SIGTERM);
    assert_eq!(container.exec(&["no-such-program"]), 127);
    assert_eq!(container.exec(&["/no/such/program"]), 127);
    assert_eq!(container.exec(&["/etc"]), 126);
    let options = ExecOptions {
        argv: ["sh", "-c", "echo $PWD $COLOUR $(id -u):$(id -g) > /tmp/as"].map(str::to_owned).to_vec(),
        env: BTreeMap::from([("COLOUR".into(), "red".into())]),
        cwd: Some("/tmp".into()),
        uid: 1000,
        gid: 100,
        ..ExecOptions::default()
    };
    assert_eq!(container.sh("chmod 1777 /tmp"), 0);
    assert_eq!(world.runtime.exec(&container.name, &options).unwrap(), 0);
    assert_eq!(container.output("cat /tmp/as"), "/tmp red 1000:100");
    let nowhere = ExecOptions { cwd: Some("/nowhere".into()), ..options };
    assert_eq!(world.runtime.exec(&container.name, &nowhere).unwrap(), 126);
    world.runtime.stop(&container.name, Duration::ZERO).unwrap();
    let result = world.runtime.exec(&container.name, &ExecOptions::default());
    assert!(matches!(result, Err(Error::NotRunning { .. })));
}

#[test]
fn commands_end_with_the_container() {
    let world = World::new();
    let container = world.launch("ends");
    std::thread::scope(|scope| {
        let command = scope.spawn(|| container.sh("touch /tmp/up; sleep 1000"));
        eventually("the command runs", || container.dir().join("changes/upper/tmp/up").exists());
        world.runtime.stop(&container.name, Duration::ZERO).unwrap();
        assert_eq!(command.join().unwrap(), 128 + libc::SIGKILL);
    });
    assert_eq!(traces(&container.name, &world), Vec::<String>::new());
}

#[test]
fn an_init_that_dies_at_once_is_reported_with_its_console() {
    let world = World::new();
    let image = world
        .image(&Recipe { init: Some("#!/bin/sh\necho this disk is no good\nexit 3\n"), ..Recipe::default() });
    let container = world.create("dies", &image);
    let error = world.runtime.start(&container.name).unwrap_err().to_string();
    assert!(error.contains("status 3") && error.contains("this disk is no good"), "{error}");
    assert_eq!(traces(&container.name, &world), Vec::<String>::new());
    assert_eq!(container.info().status, Status::Stopped);
    let launched = name("dies-2");
    world.runtime.launch(&launched, &image, ImageUse::Automatic).unwrap_err();
    assert!(matches!(world.runtime.info(&launched), Err(Error::NotFound { .. })), "it is deleted again");
}

#[test]
fn an_init_that_cannot_run_is_reported() {
    let world = World::new();
    let cases: [(&str, Recipe, &str); 7] = [
        ("loader", Recipe { init: Some("#!/no/shell\n"), ..Recipe::default() }, "loader is missing"),
        ("format", Recipe { init: Some("gibberish"), ..Recipe::default() }, "no program"),
        ("loop", Recipe { links: &[("sbin/init", "init")], ..Recipe::default() }, "/sbin/init"),
        ("dev", Recipe { links: &[("dev", "/tmp")], ..Recipe::default() }, "/dev is not a directory"),
        ("proc", Recipe { links: &[("proc", "/tmp")], ..Recipe::default() }, "/proc is not a directory"),
        ("sys", Recipe { links: &[("sys", "/tmp")], ..Recipe::default() }, "/sys is not a directory"),
        ("run", Recipe { links: &[("run", "/tmp")], ..Recipe::default() }, "/run is not a directory"),
    ];
    for (what, recipe, expected) in cases {
        let container = world.create(what, &world.image(&recipe));
        let error = world.runtime.start(&container.name).unwrap_err().to_string();
        assert!(error.contains(expected), "{what}: {error}");
        assert_eq!(traces(&container.name, &world), Vec::<String>::new(), "{what}");
    }
}

#[test]
fn an_init_that_does_not_listen_is_killed_in_the_end() {
    let world = World::new();
    let deaf = "#!/bin/sh\ntrap '' TERM PWR INT\nwhile true; do sleep 1; done\n";
    let image = world.image(&Recipe { init: Some(deaf), ..Recipe::default() });
    let container = world.launch_from("deaf", &image);
    let begin = Instant::now();
    assert_eq!(world.runtime.stop(&container.name, Duration::from_millis(300)).unwrap(), Stopped::Killed);
    assert!(begin.elapsed() >= Duration::from_millis(300));
    assert_eq!(container.info().last_exit.unwrap().code, 128 + libc::SIGKILL);
    assert_eq!(traces(&container.name, &world), Vec::<String>::new());
}

#[test]
fn a_reboot_inside_starts_the_container_again() {
    let world = World::new();
    let container = world.launch("boot");
    let before = container.info();
    container.sh("touch /tmp/before; reboot -f");
    eventually("another init runs", || {
        let info = container.info();
        info.status == Status::Running && info.pid != before.pid
    });
    assert_eq!(container.sh("test -e /tmp/before"), 0);
    container.sh("poweroff -f");
    eventually("it is off", || container.info().status == Status::Stopped);
    assert_eq!(container.info().last_exit.unwrap().code, 0);
    assert_eq!(traces(&container.name, &world), Vec::<String>::new());
}

#[test]
fn a_container_that_reboots_for_ever_stays_down() {
    let world = World::new();
    let image =
        world.image(&Recipe { init: Some("#!/bin/sh\nsleep 0.1\nexec reboot -f\n"), ..Recipe::default() });
    let container = world.create("again", &image);
    let _ = world.runtime.start(&container.name);
    eventually("it is given up", || container.info().last_exit.is_some());
    assert!(container.info().last_exit.unwrap().error.unwrap().contains("again and again"));
    assert_eq!(traces(&container.name, &world), Vec::<String>::new());
}

#[test]
fn one_command_at_a_time() {
    let world = World::new();
    let container = world.launch("lock");
    let directory = fs::File::open(container.dir()).unwrap();
    rustix::fs::flock(&directory, rustix::fs::FlockOperation::LockExclusive).unwrap();
    assert!(matches!(world.runtime.stop(&container.name, Duration::ZERO), Err(Error::Busy { .. })));
    assert_eq!(container.info().status, Status::Running, "looking is always possible");
    drop(directory);
    assert!(matches!(world.runtime.start(&container.name), Err(Error::Running { .. })));
    assert!(matches!(world.runtime.delete(&container.name, false), Err(Error::Running { .. })));
    let taken = world.runtime.create(&container.name, &world.image(&Recipe::default()), ImageUse::Automatic);
    assert!(matches!(taken, Err(Error::Exists { .. })));
}

#[test]
fn many_created_at_once_share_the_image_but_no_ids() {
    let world = World::new();
    let image = world.image(&Recipe::default());
    let containers: Vec<_> = std::thread::scope(|scope| {
        let spawn = |number: i32| {
            let (world, image) = (&world, &image);
            scope.spawn(move || world.create(&format!("many-{number}"), image))
        };
        let threads: Vec<_> = (0..8).map(spawn).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let mut bases: Vec<_> = containers.iter().map(|container| container.info().idmap.base).collect();
    bases.sort_unstable();
    bases.dedup();
    assert_eq!(bases.len(), 8);
    assert_eq!(fs::read_dir(world.runtime.images()).unwrap().count(), 1, "unpacked once, nothing half done");
    let refused = world.runtime.remove_image(image.fingerprint);
    assert!(matches!(refused, Err(Error::ImageInUse { containers, .. }) if containers.len() == 8));
    drop(containers);
    world.runtime.remove_image(image.fingerprint).unwrap();
    assert_eq!(fs::read_dir(world.runtime.images()).unwrap().count(), 0);
}

#[test]
fn files_belong_to_the_containers_ids_on_disk_and_to_root_inside() {
    let world = World::new();
    let image = world.image(&Recipe::default());
    for usage in [ImageUse::Automatic, ImageUse::Copied] {
        let container = support::Container { world: &world, name: name("own") };
        world.runtime.create(&container.name, &image, usage).unwrap();
        world.runtime.start(&container.name).unwrap();
        let base = container.info().idmap.base;
        match (usage, container.info().base) {
            (ImageUse::Copied, Base::Copied { .. }) => {}
            (ImageUse::Automatic, base) => assert_eq!(base, Base::Shared, "this kernel maps ids"),
            (_, base) => panic!("{base:?}"),
        }
        assert_eq!(container.output("stat -c %u:%g / /etc/passwd /bin/sh"), "0:0\n0:0\n0:0", "{usage:?}");
        assert_eq!(container.sh("touch /etc/mine; chown 1000:1000 /etc/passwd"), 0);
        let owner =
            |path: &str| fs::metadata(container.dir().join("changes/upper").join(path)).unwrap().uid();
        assert_eq!((owner("etc/mine"), owner("etc/passwd")), (base, base + 1000), "{usage:?}");
    }
}

/// As `ping` has them, whose users are not root.
#[test]
fn file_capabilities_count_inside() {
    const NET_RAW: &[u8] = b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let world = World::new();
    let image = world.image(&Recipe { capable: Some(("/bin/busybox-ping", NET_RAW)), ..Recipe::default() });
    for usage in [ImageUse::Automatic, ImageUse::Copied] {
        let container = support::Container { world: &world, name: name("caps") };
        world.runtime.create(&container.name, &image, usage).unwrap();
        world.runtime.start(&container.name).unwrap();
        let effective = |program: &str| {
            let script = format!("{program} grep CapEff /proc/self/status > /tmp/effective");
            let argv = ["sh", "-c", &script].map(str::to_owned).to_vec();
            let user = ExecOptions { argv, uid: 1000, gid: 1000, ..ExecOptions::default() };
            assert_eq!(container.sh("chmod 1777 /tmp; rm -f /tmp/effective"), 0);
            assert_eq!(world.runtime.exec(&container.name, &user).unwrap(), 0, "{usage:?}");
            container.output("cut -f 2 /tmp/effective")
        };
        assert_eq!(effective("busybox-ping"), "0000000000002000", "{usage:?}");
        assert_eq!(effective("busybox"), "0000000000000000", "{usage:?}");
    }
}

#[test]
fn a_flooded_console_stays_bounded() {
    let world = World::new();
    let flood =
        "#!/bin/sh\nyes 0123456789012345678901234567890123456789 | head -c 8000000\necho done\nsleep 1000\n";
    let image = world.image(&Recipe { init: Some(flood), ..Recipe::default() });
    let container = world.launch_from("flood", &image);
    eventually("the flood is over", || container.console().ends_with("done\r\n"));
    let size = |file: &str| fs::metadata(container.dir().join(file)).map_or(0, |m| m.len());
    assert!(size("console.log") + size("console.log.old") <= 2 << 20);
}
