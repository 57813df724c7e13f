//! Whatever is killed, whenever: nothing survives, the record is right, starting again works.

mod support;

use std::time::Duration;

use millstream_runtime::container::Status;
use support::{Recipe, World, eventually, name, traces};

fn kill(pid: i32) {
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(pid).unwrap(),
        rustix::process::Signal::KILL,
    )
    .unwrap();
}

#[test]
fn a_killed_supervisor_takes_the_container_along() {
    let world = World::new();
    let container = world.launch("super");
    assert_eq!(container.sh("sleep 1000 >/dev/null 2>&1 </dev/null &"), 0);
    kill(container.supervisor());
    eventually("it is seen to have stopped", || container.info().status == Status::Stopped);
    assert_eq!(traces(&container.name, &world), Vec::<String>::new());
    assert_eq!(container.info().last_exit.unwrap().code, 128 + libc::SIGKILL);
    world.runtime.start(&container.name).unwrap();
    assert_eq!(container.sh("true"), 0);
}

/// What was written down before a power failure, or whose process ids others have now.
#[test]
fn a_record_of_processes_that_are_no_more_is_seen_through() {
    let world = World::new();
    let container = world.launch("record");
    let file = container.dir().join("state.json");
    let mut record: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    world.runtime.stop(&container.name, Duration::ZERO).unwrap();
    let us = std::process::id();
    let start_of_another = 1;
    for boot in [true, false] {
        if boot {
            record["running"]["boot_id"] = "a boot before".into();
        } else {
            record["running"]["boot_id"] =
                std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap().trim().into();
        }
        for process in ["init", "supervisor"] {
            record["running"][process] = serde_json::json!({ "pid": us, "start": start_of_another });
        }
        std::fs::write(&file, record.to_string()).unwrap();
        let info = container.info();
        assert_eq!(info.status, Status::Stopped);
        assert_eq!(info.last_exit.unwrap().code, 128 + libc::SIGKILL);
        assert_eq!(world.runtime.list_fast().unwrap()[0].status, Status::Stopped);
        world.runtime.start(&container.name).unwrap();
        assert_eq!(container.sh("true"), 0);
        world.runtime.stop(&container.name, Duration::ZERO).unwrap();
    }
}

#[test]
fn a_killed_init_is_recorded() {
    let world = World::new();
    let container = world.launch("init");
    kill(container.info().pid.unwrap());
    eventually("it is seen to have stopped", || container.info().status == Status::Stopped);
    eventually("all is gone", || traces(&container.name, &world).is_empty());
    assert_eq!(container.info().last_exit.unwrap().code, 128 + libc::SIGKILL);
}

#[test]
fn a_supervisor_told_to_end_shuts_the_container_down() {
    let world = World::new();
    let container = world.launch("term");
    let pid = rustix::process::Pid::from_raw(container.supervisor()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    eventually("it is seen to have stopped", || container.info().status == Status::Stopped);
    assert_eq!(container.info().last_exit.unwrap().code, 0, "cleanly");
}

/// The supervisor is killed at every millisecond of a start.
#[test]
fn a_start_killed_at_any_time_leaves_nothing_and_can_be_repeated() {
    let world = World::new();
    let container = world.create("cut", &world.image(&Recipe::default()));
    let title: String = format!("ms:{}", container.name).chars().take(15).collect();
    let supervisors = || {
        let all = std::fs::read_dir("/proc").unwrap().flatten();
        let ours = all.filter(|entry| {
            let status = std::fs::read_to_string(entry.path().join("status")).unwrap_or_default();
            status.starts_with(&format!("Name:\t{title}\n")) && !status.contains("State:\tZ")
        });
        ours.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok()).collect::<Vec<_>>()
    };
    for delay in 0..25 {
        let outcome = std::thread::scope(|scope| {
            let start = scope.spawn(|| world.runtime.start(&container.name));
            while supervisors().is_empty() && !start.is_finished() {}
            std::thread::sleep(Duration::from_millis(delay));
            for pid in supervisors() {
                let pid = rustix::process::Pid::from_raw(pid).unwrap();
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
            start.join().unwrap()
        });
        eventually("it is seen to have stopped", || container.info().status == Status::Stopped);
        // A killed process closes its files a moment before it has ended.
        let what = format!("nothing is left after {delay} ms: {outcome:?}");
        eventually(&what, || traces(&container.name, &world).is_empty());
    }
    world.runtime.start(&container.name).unwrap();
    assert_eq!(container.sh("true"), 0);
}

#[test]
fn what_an_interrupted_create_or_delete_left_is_collected() {
    let world = World::new();
    let containers = world.runtime.images().parent().unwrap().to_path_buf();
    for left in [".new-1", ".deleted-2"] {
        std::fs::create_dir_all(containers.join(left).join("changes/upper/x")).unwrap();
    }
    let image = world.image(&Recipe::default());
    let staging = world.runtime.images().join(format!(".{}", image.fingerprint));
    std::fs::create_dir_all(staging.join("rootfs/half")).unwrap();
    let container = world.create("left", &image);
    assert!(!containers.join(".new-1").exists() && !containers.join(".deleted-2").exists());
    assert!(!staging.exists());
    world.runtime.start(&container.name).unwrap();
    assert_ne!(container.sh("test -e /half"), 0);
}

#[test]
fn a_broken_image_leaves_nothing() {
    let world = World::new();
    let mut image = world.image(&Recipe::default());
    let whole = std::fs::read(&image.rootfs).unwrap();
    image.rootfs = world.dir.path().join("cut.tar");
    std::fs::write(&image.rootfs, &whole[..whole.len() / 2]).unwrap();
    let name = name("broken");
    world.runtime.create(&name, &image, millstream_runtime::container::ImageUse::Automatic).unwrap_err();
    assert_eq!(std::fs::read_dir(world.runtime.images()).unwrap().count(), 0);
    assert!(world.runtime.list().unwrap().is_empty());
}
