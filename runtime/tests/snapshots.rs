//! Snapshots of running containers, and those that come and go by themselves.

mod support;

use std::fs;
use std::time::Duration;

use millstream_runtime::container::{ImageUse, Status, Tended};
use millstream_runtime::{ContainerName, Error};
use support::{Container, Recipe, World, eventually, name};

/// Everything an overlay keeps of a change.
const CHANGES: &str =
    "mkdir -p /d/sub && echo one > /d/sub/file && chown 1000:100 /d/sub/file && chmod 4750 /d/sub/file
    ln /d/sub/file /d/second && ln -s nowhere /d/link && mkfifo /d/fifo
    dd if=/dev/zero of=/d/sparse bs=1 count=1 seek=8388608 2>/dev/null
    rm /etc/inittab && rm -r /etc/old && mkdir /etc/old && echo new > /etc/old/new
    mv /etc/moved /etc/away && touch -d '2001-02-03 04:05:06' /d/second";
/// What shows all of that.
const LOOK: &str = "cat /d/sub/file; stat -c '%u:%g %a %h %y' /d/sub/file /d/second; readlink /d/link
    test -p /d/fifo && echo fifo; stat -c %s /d/sparse; ls -A /etc/old /etc/away /etc; cat /etc/away/kept";

fn called(text: &str) -> ContainerName {
    text.parse().unwrap()
}

fn with_directories(world: &World) -> millstream_runtime::ImageFiles {
    let first = world.launch_from("base", &world.image(&Recipe::default()));
    assert_eq!(first.sh("mkdir /etc/old /etc/moved; echo > /etc/old/x; echo kept > /etc/moved/kept"), 0);
    world.runtime.stop(&first.name, Duration::ZERO).unwrap();
    let out = tempfile::tempdir_in(world.dir.path()).unwrap().keep();
    world.runtime.publish(&first.name, None, &out, &[].into()).unwrap()
}

#[test]
fn one_of_a_running_container_holds_all_that_was_changed() {
    let world = World::new();
    let image = with_directories(&world);
    for usage in [ImageUse::Automatic, ImageUse::Copied] {
        let container = Container { world: &world, name: name("live") };
        world.runtime.create(&container.name, &image, usage).unwrap();
        world.runtime.start(&container.name).unwrap();
        assert_eq!(container.sh(CHANGES), 0);
        let pid = container.info().pid;
        let before = container.output(LOOK);
        assert!(before.contains("8388609") && before.contains("fifo"), "{before}");
        let snapshot = world.runtime.snapshot(&container.name, None, None).unwrap();
        let info = container.info();
        assert_eq!((info.status, info.pid), (Status::Running, pid), "it goes on");
        assert_eq!(container.sh("echo two > /d/sub/file; rm -r /etc/away; touch /etc/inittab"), 0);
        let second = world.runtime.snapshot(&container.name, None, None).unwrap();
        // A new container from either.
        for (snapshot, first) in [(&snapshot, true), (&second, false)] {
            let copy = Container { world: &world, name: name("live-copy") };
            world.runtime.copy(&container.name, Some(snapshot), &copy.name).unwrap();
            world.runtime.start(&copy.name).unwrap();
            if first {
                assert_eq!(copy.output(LOOK), before, "{usage:?}");
                assert_eq!(copy.output("stat -c %b /d/sparse").parse::<u64>().unwrap() / 100, 0, "a hole");
            } else {
                assert_eq!(
                    copy.output("cat /d/second; ls -d /etc/away /etc/inittab 2>/dev/null"),
                    "two\n/etc/inittab"
                );
            }
        }
        world.runtime.stop(&container.name, Duration::ZERO).unwrap();
        world.runtime.restore(&container.name, &snapshot).unwrap();
        world.runtime.start(&container.name).unwrap();
        assert_eq!(container.output(LOOK), before, "restored, {usage:?}");
        world.runtime.delete(&container.name, true).unwrap();
        let layers = fs::read_dir(world.runtime.images().parent().unwrap().join(".layers")).unwrap();
        assert_eq!(layers.count(), 0);
    }
}

/// What is written first is in the snapshot if what is written after it is.
#[test]
fn one_of_a_running_container_is_of_one_moment() {
    let world = World::new();
    let container = world.launch("moment");
    let writer = "i=0; while :; do i=$((i+1)); echo $i > /a/$((i % 50)); echo $i > /z/$((i % 50)); done";
    assert_eq!(container.sh(&format!("mkdir /a /z; ({writer}) >/dev/null 2>&1 </dev/null &")), 0);
    eventually("it writes", || container.dir().join("changes/upper/z/49").exists());
    for round in 0..3 {
        let snapshot = world.runtime.snapshot(&container.name, None, None).unwrap();
        let copy = Container { world: &world, name: name("moment-copy") };
        world.runtime.copy(&container.name, Some(&snapshot), &copy.name).unwrap();
        world.runtime.start(&copy.name).unwrap();
        let largest =
            |dir: &str| copy.output(&format!("cat /{dir}/* | sort -n | tail -n 1")).parse::<u64>().unwrap();
        let (first, second) = (largest("a"), largest("z"));
        assert!(first == second || first == second + 1, "round {round}: {first}, {second}");
    }
}

#[test]
fn a_paused_container_stays_paused() {
    let world = World::new();
    let container = world.launch("paused");
    assert_eq!(container.sh("echo x > /file"), 0);
    world.runtime.pause(&container.name).unwrap();
    eventually("it is paused", || container.info().status == Status::Paused);
    world.runtime.snapshot(&container.name, None, None).unwrap();
    assert_eq!(container.info().status, Status::Paused);
    world.runtime.resume(&container.name).unwrap();
    assert_eq!(container.sh("test -e /file"), 0);
}

#[test]
fn they_come_and_go_by_schedule() {
    let world = World::new();
    let container = world.launch("tend");
    let tend = || world.runtime.tend_snapshots().unwrap();
    assert!(tend().is_empty(), "nothing is set");
    container.set(&[
        ("snapshots.schedule", "@hourly"),
        ("snapshots.pattern", "hourly-%d"),
        ("snapshots.expiry", "2H"),
    ]);
    assert!(tend().is_empty(), "made in this hour");
    // Made, and last looked after, long ago.
    let config = container.dir().join("config.json");
    let mut record: serde_json::Value = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
    record["created_at"] = 0.into();
    fs::write(&config, record.to_string()).unwrap();
    let done = tend();
    let first = called("hourly-0");
    assert!(matches!(&done[..], [Tended::Taken { snapshot, .. }] if *snapshot == first), "{done:?}");
    assert!(tend().is_empty(), "once an hour");
    let scheduled = container.dir().join("snapshots/.scheduled");
    fs::write(&scheduled, "0").unwrap();
    let snapshots = world.runtime.snapshots(&container.name).unwrap();
    assert_eq!(snapshots[0].1.expires_at.unwrap() - snapshots[0].1.created_at, 7200);
    // Its time is over.
    let file = container.dir().join("snapshots/hourly-0.json");
    let mut record: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    record["expires_at"] = 1.into();
    fs::write(&file, record.to_string()).unwrap();
    let done = tend();
    assert!(matches!(&done[..], [Tended::Expired { .. }, Tended::Taken { .. }]), "{done:?}");
    world.runtime.stop(&container.name, Duration::ZERO).unwrap();
    fs::write(&scheduled, "0").unwrap();
    assert!(tend().is_empty(), "not of stopped ones");
    container.set(&[("snapshots.schedule.stopped", "true")]);
    assert!(matches!(&tend()[..], [Tended::Taken { .. }]));
    let bad = world.runtime.snapshot(&container.name, Some(&called("hourly-0")), None);
    assert!(matches!(bad, Err(Error::SnapshotExists { .. })));
}

#[test]
fn a_copy_cut_short_lets_the_container_go_on_and_leaves_nothing() {
    let world = World::new();
    let container = world.launch("cut");
    assert_eq!(container.sh("echo x > /file"), 0);
    // Another command holds the container; nothing is frozen, nothing stays.
    let directory = fs::File::open(container.dir()).unwrap();
    rustix::fs::flock(&directory, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let busy = world.runtime.snapshot(&container.name, None, None);
    assert!(matches!(busy, Err(Error::Busy { .. })));
    drop(directory);
    // A path longer than the kernel takes cannot be copied.
    let deep = "cd /; n=$(printf 'd%.0s' $(seq 1 200)); i=0; while [ $i -lt 25 ]; do mkdir $n && cd $n; i=$((i+1)); done 2>/dev/null; true";
    assert_eq!(container.sh(&format!("busybox sh -c \"{}\"", deep.replace('$', "\\$"))), 0);
    let failed = world.runtime.snapshot(&container.name, None, None).unwrap_err();
    assert!(
        failed.to_string().contains("name too long") || failed.to_string().contains("File name"),
        "{failed}"
    );
    assert_eq!(container.info().status, Status::Running);
    assert_eq!(container.sh("true"), 0);
    let containers = world.runtime.images().parent().unwrap().to_path_buf();
    let left = fs::read_dir(containers).unwrap().flatten();
    assert_eq!(left.filter(|e| e.file_name().to_string_lossy().starts_with(".new")).count(), 0);
    assert!(world.runtime.snapshots(&container.name).unwrap().is_empty());
}
