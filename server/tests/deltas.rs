//! Deltas that a stream offers from earlier images.

mod support;

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use millstream_image::Sha256Digest;
use millstream_image::archive::Watch;
use millstream_image::delta::{Limits, apply, rebuild, unpack};
use millstream_image::openpgp::SigningKey;
use millstream_image::simplestreams::{Item, Products};
use millstream_server::stream::{Deltas, Stream};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use support::{Fixture, Image, new_key, signing, snapshot};

const PRODUCT: &str = "debian:bookworm:amd64:default";

fn serial(day: u32) -> String {
    format!("202601{day:02}_0000")
}

/// Bytes that do not compress, alike but for a few on each day.
fn data(seed: u64, day: u32, length: usize) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    let mut data: Vec<u8> = (0..length).map(|_| next()).collect();
    data[length / 2..length / 2 + 16].fill(day as u8);
    data
}

fn image(day: u32) -> Image {
    Image {
        data: data(1, day, 200_000),
        squashfs: data(2, day, 100_000),
        ..Image::new(PRODUCT, &serial(day))
    }
}

fn items(tree: &Fixture, day: u32) -> std::collections::BTreeMap<String, Item> {
    let products = fs::read(tree.root().join("streams/v1/images-debian.json")).unwrap();
    Products::parse(&products).unwrap().products[PRODUCT].versions[&serial(day)].items.clone()
}

fn sizes(added: &millstream_server::stream::Added) -> Vec<(String, bool)> {
    added.deltas.iter().map(|delta| (delta.name.clone(), delta.size.is_ok())).collect()
}

/// A client that has yesterday's image makes today's of it, to the last byte, with what is listed.
#[test]
fn listed_deltas_make_the_image_from_those_before() {
    let tree = Fixture::new();
    for day in 1..=3 {
        tree.add(&image(day)).unwrap();
    }
    let added = tree.add_with(&image(4), &Deltas { last: 2, ..Deltas::default() });
    let expected: Vec<_> = [3, 2]
        .iter()
        .flat_map(|day| ["delta", "vcdiff"].map(|kind| (format!("rootfs.{}.{kind}", serial(*day)), true)))
        .collect();
    assert_eq!(sizes(&added), expected, "{:?}", added.deltas);
    let new = items(&tree, 4);
    let open = |item: &Item| File::open(tree.root().join(&item.path)).unwrap();
    let work = tempfile::tempdir().unwrap();
    for day in [2, 3] {
        let (old, limits) = (items(&tree, day), Limits::default());
        let item = &new[&format!("rootfs.{}.delta", serial(day))];
        assert_eq!((item.ftype.as_str(), item.delta_base.clone()), ("root.tar.xz.delta", Some(serial(day))));
        assert!(item.size * 20 < new["root.tar.xz"].size, "{} bytes", item.size);
        assert_eq!(Sha256Digest::of_reader(open(item)).unwrap(), (item.sha256.unwrap(), item.size));
        let base = open(&old["root.tar.xz"]);
        let mut unpacked = unpack(&base, work.path(), &limits, &Watch::default()).unwrap();
        let tar = tempfile::tempfile().unwrap();
        let header = apply(&mut unpacked, open(item), &tar, &limits).unwrap();
        assert_eq!(Some(header.result.sha256), new["root.tar.xz"].sha256_uncompressed);
        let file = rebuild(&base, open(item), &tar, Vec::new(), 1, &limits).unwrap();
        assert_eq!(Some(Sha256Digest::of(&file)), new["root.tar.xz"].sha256);

        // As LXD and Incus do it.
        let item = &new[&format!("rootfs.{}.vcdiff", serial(day))];
        assert_eq!((item.ftype.as_str(), item.delta_base.clone()), ("squashfs.vcdiff", Some(serial(day))));
        let output = Command::new("xdelta3")
            .args(["-d", "-c", "-s"])
            .arg(tree.root().join(&old["squashfs"].path))
            .arg(tree.root().join(&item.path))
            .output()
            .expect("xdelta3 is needed");
        assert_eq!(Some(Sha256Digest::of(&output.stdout)), new["squashfs"].sha256);
    }
    assert_eq!(tree.problems(), "");
}

#[test]
fn verify_knows_deltas_and_finds_damage_to_them() {
    let tree = Fixture::new();
    tree.add(&image(1)).unwrap();
    let added = tree.add_with(&image(2), &Deltas::default());
    assert_eq!(tree.problems(), "");
    for kind in ["delta", "vcdiff"] {
        let path = added.path.join(format!("rootfs.{}.{kind}", serial(1)));
        let good = fs::read(&path).unwrap();
        let mut bad = good.clone();
        bad[20] ^= 1;
        fs::write(&path, bad).unwrap();
        let problems = tree.problems();
        assert!(problems.contains(&format!("rootfs.{}.{kind}: SHA-256 is", serial(1))), "{problems}");
        fs::remove_file(&path).unwrap();
        assert!(tree.problems().contains(kind));
        fs::write(&path, good).unwrap();
    }
    fs::write(added.path.join("rootfs.20250101_0000.delta"), "?").unwrap();
    assert!(tree.problems().contains("rootfs.20250101_0000.delta: its manifest does not list it"));
}

/// What is not worth it, or cannot be had, is left out with its reason, and the image is added.
#[test]
fn deltas_that_are_not_worth_it_are_left_out() {
    let tree = Fixture::new();
    tree.add(&image(1)).unwrap();
    let reasons = |added: &millstream_server::stream::Added| -> Vec<String> {
        added.deltas.iter().map(|delta| delta.size.clone().unwrap_err()).collect()
    };
    // Nothing in common.
    let other = Image { data: data(8, 2, 200_000), squashfs: data(9, 2, 100_000), ..image(2) };
    let added = tree.add_with(&other, &Deltas::default());
    assert!(reasons(&added).iter().all(|reason| reason.contains("would be larger than")), "{added:?}");
    assert_eq!(reasons(&added).len(), 2);
    // No time.
    let added = tree.add_with(&image(3), &Deltas { last: 1, time: Duration::ZERO, threads: 1 });
    assert!(reasons(&added).iter().all(|reason| reason.contains("took too long")), "{added:?}");
    // A base that was damaged on disk: clients have a good one.
    for name in ["rootfs.tar.xz", "rootfs.squashfs"] {
        let path = tree.root().join(&items(&tree, 3)["root.tar.xz"].path).with_file_name(name);
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 3;
        bytes[middle] ^= 1;
        fs::remove_file(&path).unwrap();
        fs::write(&path, bytes).unwrap();
    }
    let added = tree.add_with(&image(4), &Deltas { last: 1, ..Deltas::default() });
    assert_eq!(reasons(&added).len(), 2);
    for day in 2..=4 {
        assert!(items(&tree, day).values().all(|item| item.delta_base.is_none()));
    }
    // A late comer takes none from those after it.
    assert_eq!(tree.add_with(&Image::new(PRODUCT, "20251231_0000"), &Deltas::default()).deltas, []);
    let strays: Vec<_> = snapshot(tree.root())
        .into_keys()
        .filter(|path| path.extension().is_some_and(|e| e == "delta" || e == "vcdiff"))
        .collect();
    assert!(strays.is_empty(), "{strays:?}");
}

/// Whatever room there is, the image is published whole or not at all, and what a delta needed is free again. In a
/// mount namespace of this thread's own.
#[test]
fn a_full_disk_costs_a_delta_or_the_image_and_leaves_nothing() {
    unshare(CloneFlags::CLONE_NEWNS).expect("this test needs root");
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
    let (dir, key) = (tempfile::tempdir().unwrap(), new_key());
    let disk = |flags, bytes: u64| {
        let size = format!("size={bytes}");
        mount(Some("none"), dir.path(), Some("tmpfs"), flags, Some(size.as_str())).unwrap();
    };
    let builds = tempfile::tempdir().unwrap();
    let [one, two] = [1, 2].map(|day| {
        let dir = builds.path().join(day.to_string());
        Image { data: data(4, day, 1 << 20), ..image(day) }.build(&dir);
        dir
    });
    let (mut refused, mut without, mut with) = (0, 0, 0);
    for room in [256, 1024, 1536, 2048, 3072, 16 * 1024] {
        disk(MsFlags::empty(), 64 << 20);
        let (stream, _) = Stream::init(&dir.path().join("root"), &signing(&key)).unwrap();
        stream.add(&one, &signing(&key)).unwrap();
        let used = || {
            let state = nix::sys::statvfs::statvfs(dir.path()).unwrap();
            (state.blocks() - state.blocks_free()) * state.fragment_size()
        };
        let before = used();
        disk(MsFlags::MS_REMOUNT, before + (room << 10));
        let added = stream.add_with(&two, &signing(&key), &Deltas { threads: 1, ..Deltas::default() });
        disk(MsFlags::MS_REMOUNT, 64 << 20);
        let images = match &added {
            Err(error) => {
                assert!(error.to_string().contains("No space left"), "{room} KiB: {error}");
                assert_eq!(used(), before, "{room} KiB");
                refused += 1;
                1
            }
            Ok(added) => {
                let delta = &added.deltas[0];
                if let Err(reason) = &delta.size {
                    assert!(reason.contains("No space left"), "{room} KiB: {reason}");
                    assert!(!added.path.join(&delta.name).exists());
                    without += 1;
                } else {
                    with += 1;
                }
                2
            }
        };
        let report = stream.verify(std::time::SystemTime::now()).unwrap();
        assert_eq!((report.problems.len(), report.images), (0, images), "{room} KiB: {:?}", report.problems);
        assert_eq!(fs::read_dir(stream.root().join(".staging")).unwrap().count(), 0, "{room} KiB");
        // The same again, with room, changes nothing or does it all.
        stream.add(&two, &signing(&key)).unwrap();
        nix::mount::umount(dir.path()).unwrap();
    }
    assert!(refused > 0 && without > 0 && with > 0, "{refused} {without} {with}");
}

/// Kills publishers at many moments while they make deltas: nothing of them is seen or stays.
#[test]
fn killed_while_making_a_delta_leaves_nothing() {
    let tree = Fixture::new();
    let big = |day| Image { data: data(3, day, 3_000_000), ..image(day) };
    tree.add(&big(1)).unwrap();
    fs::write(tree.dir.path().join("key"), tree.key.to_armored_secret().unwrap()).unwrap();
    let source = tree.build(&big(2));
    let before = tree.stream.list(std::time::SystemTime::now()).unwrap();
    let mut killed = 0;
    let mut wait = Duration::from_millis(20);
    loop {
        let began = Instant::now();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "publisher_process"])
            .env("PUBLISH_ROOT", tree.root())
            .env("PUBLISH_KEY", tree.dir.path().join("key"))
            .env("PUBLISH_IMAGE", &source)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        while began.elapsed() < wait && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        let over = child.try_wait().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        if let Some(status) = over {
            assert!(status.success(), "a publisher failed by itself");
            break;
        }
        killed += 1;
        wait = wait * 5 / 4;
        tree.stream.sign(&signing(&tree.key)).unwrap();
        assert_eq!(tree.problems(), "", "after {wait:?}");
        assert_eq!(fs::read_dir(tree.root().join(".staging")).unwrap().count(), 0);
        let listed = tree.stream.list(std::time::SystemTime::now()).unwrap();
        if listed != before {
            break; // Killed after it was published.
        }
    }
    assert!(killed >= 5, "only {killed} were killed in time");
    assert!(items(&tree, 2).contains_key(&format!("rootfs.{}.delta", serial(1))));
    assert_eq!(tree.problems(), "");
}

#[test]
#[ignore = "the process that killed_while_making_a_delta_leaves_nothing starts"]
fn publisher_process() {
    let path = |name: &str| std::env::var_os(name).unwrap();
    let key = SigningKey::from_bytes(&fs::read(path("PUBLISH_KEY")).unwrap()).unwrap();
    let stream = Stream::open(Path::new(&path("PUBLISH_ROOT"))).unwrap();
    let image = path("PUBLISH_IMAGE");
    stream.add_with(Path::new(&image), &signing(&key), &Deltas::default()).unwrap();
}
