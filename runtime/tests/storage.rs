//! Snapshots and copies: what they hold, what they cost, and that nothing is lost when they are cut
//! short.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use millstream_runtime::container::{ImageUse, Status};
use millstream_runtime::{ContainerName, Error};
use support::{Container, Recipe, World, name};

fn called(text: &str) -> ContainerName {
    text.parse().unwrap()
}

fn stop(container: &Container) {
    container.world.runtime.stop(&container.name, Duration::ZERO).unwrap();
}

fn layers(world: &World) -> Vec<PathBuf> {
    let all = fs::read_dir(world.runtime.images().parent().unwrap().join(".layers"));
    all.into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// Files and directories below, the directory itself included.
fn count(dir: &Path) -> usize {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    1 + entries.map(|e| if e.file_type().unwrap().is_dir() { count(&e.path()) } else { 1 }).sum::<usize>()
}

#[test]
fn a_container_goes_back_to_what_it_was() {
    let world = World::new();
    let image = world.image(&Recipe::default());
    for usage in [ImageUse::Automatic, ImageUse::Copied] {
        let container = Container { world: &world, name: name("back") };
        world.runtime.create(&container.name, &image, usage).unwrap();
        world.runtime.start(&container.name).unwrap();
        assert_eq!(container.sh("echo one > /etc/file; rm /etc/inittab; mkdir /data; echo x > /data/x"), 0);
        stop(&container);
        container.set(&[("user.time", "first")]);
        assert_eq!(world.runtime.snapshot(&container.name, None, None).unwrap().as_str(), "snap0");
        let taken = world.runtime.snapshot(&container.name, Some(&called("snap0")), None);
        assert!(matches!(taken, Err(Error::SnapshotExists { .. })));
        world.runtime.start(&container.name).unwrap();
        assert_eq!(container.output("cat /etc/file /data/x"), "one\nx", "{usage:?}");
        assert_eq!(container.sh("echo two > /etc/file; rm -r /data; mkdir /data; touch /etc/inittab"), 0);
        assert_eq!(container.output("ls /data"), "", "a directory made again is empty");
        stop(&container);
        container.set(&[("user.time", "second")]);
        assert_eq!(
            world.runtime.snapshot(&container.name, Some(&called("two")), None).unwrap().as_str(),
            "two"
        );
        let names = container.info().snapshots;
        assert_eq!(names, [called("snap0"), called("two")]);
        world.runtime.restore(&container.name, &called("snap0")).unwrap();
        assert_eq!(world.runtime.expanded(&container.name).unwrap()["user.time"], "first");
        world.runtime.start(&container.name).unwrap();
        assert_eq!(container.output("cat /etc/file /data/x"), "one\nx");
        assert_ne!(container.sh("test -e /etc/inittab"), 0);
        assert_eq!(container.output("stat -c %u:%g / /etc/file"), "0:0\n0:0");
        stop(&container);
        world.runtime.restore(&container.name, &called("two")).unwrap();
        world.runtime.start(&container.name).unwrap();
        assert_eq!(container.output("cat /etc/file; ls /data"), "two");
        stop(&container);
        let none = world.runtime.restore(&container.name, &called("none"));
        assert!(matches!(none, Err(Error::NoSnapshot { .. })));
        for snapshot in ["snap0", "two"] {
            world.runtime.delete_snapshot(&container.name, &called(snapshot)).unwrap();
        }
        world.runtime.start(&container.name).unwrap();
        assert_eq!(container.output("cat /etc/file"), "two", "it still stands on its layers");
        world.runtime.delete(&container.name, true).unwrap();
        assert_eq!(layers(&world), Vec::<PathBuf>::new(), "nothing is left");
    }
}

#[test]
fn a_copy_goes_its_own_way_with_its_own_ids() {
    let world = World::new();
    let image = world
        .image(&Recipe { templates: &[("/etc/copied", "copy", "{{ instance.name }}")], ..Recipe::default() });
    let container = world.launch_from("from", &image);
    assert_eq!(container.sh("echo one > /file; chown 1000:1000 /file; chmod 640 /file"), 0);
    stop(&container);
    let snapshot = world.runtime.snapshot(&container.name, None, None).unwrap();
    world.runtime.start(&container.name).unwrap();
    assert_eq!(container.sh("echo two > /file"), 0);
    let copies = [("copy-a", Some(&snapshot)), ("copy-b", None)].map(|(what, snapshot)| {
        let copy = Container { world: &world, name: name(what) };
        if snapshot.is_none() {
            let running = world.runtime.copy(&container.name, None, &copy.name);
            assert!(matches!(running, Err(Error::Running { .. })));
            stop(&container);
        }
        world.runtime.copy(&container.name, snapshot, &copy.name).unwrap();
        world.runtime.start(&copy.name).unwrap();
        copy
    });
    world.runtime.start(&container.name).unwrap();
    for (copy, text) in copies.iter().zip(["one", "two"]) {
        assert_eq!(
            copy.output("cat /file; stat -c %u:%g:%a /file; cat /etc/copied"),
            format!("{text}\n1000:1000:640\n{}", copy.name)
        );
        assert_ne!(copy.info().idmap.base, container.info().idmap.base);
        assert_eq!(copy.sh("echo changed >> /file"), 0);
        assert_eq!(copy.output("stat -c %u /file"), "1000");
    }
    assert_eq!(container.output("cat /file"), "two");
    world.runtime.delete(&container.name, true).unwrap();
    assert_eq!(copies[1].output("cat /file"), "two\nchanged", "its layers live on");
    stop(&copies[1]);
    world.runtime.copy(&copies[1].name, None, &container.name).unwrap();
    world.runtime.start(&container.name).unwrap();
    assert_eq!(container.output("cat /file; stat -c %u /file"), "two\nchanged\n1000", "a copy of a copy");
    for copy in &copies {
        world.runtime.delete(&copy.name, true).unwrap();
    }
    world.runtime.delete(&container.name, true).unwrap();
    assert_eq!(layers(&world), Vec::<PathBuf>::new());
}

#[test]
fn they_cost_the_same_whatever_the_size() {
    let world = World::new();
    let container = world.launch("size");
    assert_eq!(
        container.sh("mkdir /many; i=0; while [ $i -lt 2000 ]; do echo > /many/$i; i=$((i+1)); done"),
        0
    );
    stop(&container);
    let before = count(world.runtime.images().parent().unwrap());
    world.runtime.snapshot(&container.name, None, None).unwrap();
    let copy = Container { world: &world, name: name("size-2") };
    world.runtime.copy(&container.name, None, &copy.name).unwrap();
    let after = count(world.runtime.images().parent().unwrap());
    assert!(after < before + 20, "no file was copied: {before}, {after}");
    world.runtime.start(&copy.name).unwrap();
    assert_eq!(copy.output("ls /many | wc -l"), "2000");
}

#[test]
fn many_layers_stack() {
    let world = World::new();
    let container = world.launch("deep");
    for number in 0..20 {
        assert_eq!(container.sh(&format!("echo {number} > /file{number}")), 0);
        stop(&container);
        world.runtime.snapshot(&container.name, None, None).unwrap();
        world.runtime.start(&container.name).unwrap();
    }
    assert_eq!(container.output("cat /file* | sort -n | tail -n 1; ls -d /file* | wc -l"), "19\n20");
}

#[test]
fn a_change_of_layers_cut_short_is_completed() {
    let world = World::new();
    let container = world.launch("short");
    assert_eq!(container.sh("echo kept > /file"), 0);
    stop(&container);
    let config = container.dir().join("config.json");
    let changes = container.dir().join("changes");
    // Written down and no more; moved as well; moved, and a fresh place made.
    for (number, moved, made) in [(1, false, false), (2, true, false), (3, true, true)] {
        let mut record: serde_json::Value = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
        record["pending_layers"] = serde_json::json!({ "keep": format!("layer-{number}") });
        fs::write(&config, record.to_string()).unwrap();
        let layers = world.runtime.images().parent().unwrap().join(".layers");
        fs::create_dir_all(&layers).unwrap();
        if moved {
            fs::rename(&changes, layers.join(format!("layer-{number}"))).unwrap();
        }
        if made {
            fs::create_dir(&changes).unwrap();
        }
        world.runtime.start(&container.name).unwrap();
        assert_eq!(container.output("cat /file; stat -c %u /"), "kept\n0", "{number}");
        stop(&container);
    }
    assert_eq!(layers(&world).len(), 3);
}

#[test]
fn names_change_and_snapshots_expire() {
    let world = World::new();
    let container = world.launch("name");
    let other = Container { world: &world, name: name("renamed") };
    assert!(matches!(world.runtime.rename(&container.name, &other.name), Err(Error::Running { .. })));
    assert_eq!(container.sh("touch /mine"), 0);
    stop(&container);
    world.runtime.snapshot(&container.name, Some(&called("brief")), Some(0)).unwrap();
    world.runtime.snapshot(&container.name, Some(&called("lasting")), Some(3600)).unwrap();
    assert_eq!(container.info().snapshots, [called("lasting")]);
    world.runtime.rename(&container.name, &other.name).unwrap();
    assert!(matches!(world.runtime.info(&container.name), Err(Error::NotFound { .. })));
    world.runtime.start(&other.name).unwrap();
    assert_eq!(other.output("hostname; ls /mine"), format!("{}\n/mine", other.name));
    assert_eq!(other.info().status, Status::Running);
    let third = world.create("third", &world.image(&Recipe::default()));
    assert!(matches!(world.runtime.rename(&third.name, &other.name), Err(Error::Exists { .. })));
    assert!(matches!(world.runtime.copy(&third.name, None, &other.name), Err(Error::Exists { .. })));
}

#[test]
fn an_image_is_made_of_a_container_or_a_snapshot() {
    let world = World::new();
    let image = world.image(&Recipe {
        templates: &[("/etc/told", "create", "{{ instance.name }}")],
        capable: Some(("/bin/busybox-ping", b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0")),
        ..Recipe::default()
    });
    let container = world.launch_from("publish", &image);
    let changes = "echo one > /file; chown 1000:100 /file; chmod 4750 /file; rm /etc/inittab; ln -s a /link; mkfifo /fifo";
    assert_eq!(container.sh(&format!("{changes}; touch /dev/shm/gone")), 0);
    assert!(matches!(
        world.runtime.publish(&container.name, None, world.dir.path(), &[].into()),
        Err(Error::Running { .. })
    ));
    stop(&container);
    world.runtime.snapshot(&container.name, None, None).unwrap();
    world.runtime.start(&container.name).unwrap();
    assert_eq!(container.sh("echo two > /file; chmod 4750 /file"), 0);
    let from_snapshot = world.dir.path().join("snapshot");
    let from_container = world.dir.path().join("container");
    fs::create_dir(&from_snapshot).unwrap();
    fs::create_dir(&from_container).unwrap();
    let properties = [("description".to_owned(), "mine".to_owned())].into();
    let snapshot = called("snap0");
    let first = world.runtime.publish(&container.name, Some(&snapshot), &from_snapshot, &properties).unwrap();
    stop(&container);
    let second = world.runtime.publish(&container.name, None, &from_container, &properties).unwrap();
    for (image, text) in [(&first, "one"), (&second, "two")] {
        let made = world.launch_from(&format!("from-{text}"), image);
        assert_eq!(
            made.output("cat /file; stat -c %u:%g:%a /file; readlink /link; cat /etc/told"),
            format!("{text}\n1000:100:4750\na\n{}", made.name)
        );
        assert_ne!(made.sh("test -e /etc/inittab || test -e /dev/shm/gone"), 0);
        assert_eq!(made.sh("test -p /fifo"), 0);
        assert_eq!(made.info().description.unwrap(), "mine");
    }
    let containers = world.runtime.images().parent().unwrap().to_path_buf();
    let left = fs::read_dir(containers)
        .unwrap()
        .flatten()
        .filter(|e| e.file_name().to_string_lossy().starts_with(".new"));
    assert_eq!(left.count(), 0);
}
