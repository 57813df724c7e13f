//! Settings about ids: privileged containers, ranges chosen by hand, ids of the host that lead through.
//! Files stay whose they are. Needs root, busybox-static.

mod support;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use millstream_runtime::Error;
use millstream_runtime::container::{Configuration, CreateOptions};
use support::{Container, Recipe, World, eventually, name, traces};

fn restart(container: &Container) {
    let runtime = &container.world.runtime;
    runtime.stop(&container.name, Duration::ZERO).unwrap();
    runtime.start(&container.name).unwrap();
}

fn refusal(container: &Container) -> String {
    match container.world.runtime.start(&container.name) {
        Err(Error::Start { reason, .. }) => reason,
        other => panic!("{other:?}"),
    }
}

/// Id on the host of some user of a running container.
fn host_id(container: &Container, user: &str) -> u32 {
    let map = container.output("cat /proc/self/uid_map");
    let user: u32 = user.parse().unwrap();
    let rows =
        map.lines().map(|l| l.split_whitespace().map(|n| n.parse::<u32>().unwrap()).collect::<Vec<_>>());
    rows.into_iter().find_map(|r| (r[0] <= user && user < r[0] + r[2]).then(|| r[1] + user - r[0])).unwrap()
}

#[test]
fn files_stay_whose_they_are_whatever_ids_a_run_has() {
    let world = World::new();
    let container = world.launch("ids");
    let base = container.info().idmap.base;
    let make = |file: &str| assert_eq!(container.sh(&format!("echo x > /{file} && chown 1000:5 /{file}")), 0);
    let look = "stat -c %u:%g /bin/busybox /etc/passwd / /f* | sort | uniq -c | awk '{print $1, $2}'";
    make("f1");
    world.runtime.stop(&container.name, Duration::ZERO).unwrap();
    // Now also a layer between the image and what changes.
    world.runtime.snapshot(&container.name, None, None).unwrap();
    world.runtime.start(&container.name).unwrap();
    container.set(&[("raw.idmap", "uid 0 77")]);
    world.runtime.stop(&container.name, Duration::ZERO).unwrap();
    world.runtime.start(&container.name).unwrap();
    assert!(
        container.info().notes[0].contains("raw.idmap: the container's root has the id of the host's root")
    );
    make("f0");
    let notes = container.set(&[("raw.idmap", "both 1000 1000\nuid 50 5")]);
    assert_eq!(notes, ["raw.idmap takes effect with the next start"]);
    restart(&container);
    assert_eq!(
        (host_id(&container, "1000"), host_id(&container, "0"), host_id(&container, "5")),
        (1000, base, 50)
    );
    make("f2");
    assert_eq!(container.output(look), "3 0:0\n3 1000:5");
    container.unset("raw.idmap");
    let notes = container.set(&[("security.idmap.base", "700000000")]);
    assert_eq!(notes.len(), 1);
    restart(&container);
    assert_eq!(host_id(&container, "1000"), 700_001_000);
    make("f3");
    assert_eq!(container.output(look), "3 0:0\n4 1000:5");
    container.unset("security.idmap.base");
    let notes = container.set(&[("security.privileged", "true")]);
    assert!(notes.iter().any(|note| note.contains("host's root")), "{notes:?}");
    restart(&container);
    assert!(container.info().notes[0].contains("host's root"));
    assert_eq!(host_id(&container, "0"), 0);
    make("f4");
    assert_eq!(container.output(look), "3 0:0\n5 1000:5");
    container.unset("security.privileged");
    restart(&container);
    assert_eq!(container.output(look), "3 0:0\n5 1000:5");
    for file in ["f2", "f3", "f4"] {
        let meta = fs::metadata(container.dir().join("changes/upper").join(file)).unwrap();
        assert_eq!((meta.uid(), meta.gid()), (base + 1000, base + 5), "{file} on disk");
    }
    world.runtime.stop(&container.name, Duration::ZERO).unwrap();
    assert_eq!(traces(&container.name, &world), Vec::<String>::new());
}

#[test]
fn a_privileged_container_keeps_to_its_namespaces() {
    let world = World::new();
    let container = world.create("priv", &world.image(&Recipe::default()));
    container.set(&[("security.privileged", "true")]);
    world.runtime.start(&container.name).unwrap();
    let dir = world.dir.path();
    fs::write(dir.join("secret"), "secret").unwrap();
    container.device("d", &[("type", "disk"), ("source", dir.to_str().unwrap()), ("path", "/host")]);
    assert_eq!(
        container.output("cat /host/secret; stat -c %u /host/secret"),
        "secret0",
        "no shift is needed"
    );
    assert_ne!(container.sh("mknod /sda b 8 0"), 0);
    assert_ne!(container.sh("mount -t tmpfs x /run && mknod /run/sda b 8 0"), 0);
    let host = container.output("hostname other; hostname");
    assert_eq!(host, "other");
    assert_ne!(fs::read_to_string("/proc/sys/kernel/hostname").unwrap().trim(), "other");
    // What looks after it, and what enters it, is a copy that its root could not change.
    let supervisor = fs::read_link(format!("/proc/{}/exe", container.supervisor())).unwrap();
    assert!(supervisor.to_string_lossy().starts_with("/memfd:"), "{}", supervisor.display());
    world.runtime.delete(&container.name, true).unwrap();
    eventually("it is gone", || traces(&container.name, &world).is_empty());
}

#[test]
fn ranges_are_nobody_elses_and_large_enough() {
    let world = World::new();
    let image = world.image(&Recipe::default());
    let first = world.create("first", &image);
    let second = world.create("second", &image);
    second.set(&[("security.idmap.base", &(first.info().idmap.base + 65535).to_string())]);
    assert!(refusal(&second).contains(first.name.as_str()));
    second.set(&[("security.idmap.base", "4294967000")]);
    assert!(refusal(&second).contains("security.idmap.base"));
    second.unset("security.idmap.base");
    second.set(&[("security.idmap.size", "100000")]);
    assert!(refusal(&second).contains("made with 65536"));
    let configuration = Configuration {
        config: [("security.idmap.size".into(), "100000".into())].into(),
        ..Configuration::default()
    };
    let large = name("large");
    let options = CreateOptions { configuration, ..CreateOptions::default() };
    world.runtime.create_with(&large, &image, &options).unwrap();
    let large = Container { world: &world, name: large };
    world.runtime.start(&large.name).unwrap();
    assert_eq!(large.output("touch /x && chown 99999 /x && stat -c %u /x"), "99999");
    let (a, b) = (first.info().idmap, large.info().idmap);
    assert!(a.base + a.count <= b.base || b.base + b.count <= a.base);
}
