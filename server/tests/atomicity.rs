//! Readers see one complete, signed publication whatever a publisher does, and whenever it dies.

mod support;

use std::fs;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use millstream_image::openpgp::SigningKey;
use millstream_server::stream::Stream;
use support::reader::read;
use support::{Fixture, Image, new_key, signing};

const PRODUCT: &str = "debian:bookworm:amd64:default";

fn serial(number: u32) -> String {
    format!("202601{:02}_{:02}{:02}", 1 + number / 1440, number / 60 % 24, number % 60)
}

#[test]
fn readers_see_one_consistent_set_during_many_publications() {
    const PUBLICATIONS: u32 = 150;
    let tree = Fixture::new();
    let keyring = tree.key.keyring();
    let done = AtomicBool::new(false);
    let seen = thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut seen = Vec::new();
                    while !done.load(Ordering::Relaxed) {
                        seen.push(read(tree.root(), &keyring).unwrap());
                    }
                    seen
                })
            })
            .collect();
        for number in 0..PUBLICATIONS {
            if number % 10 == 0 {
                tree.add(&Image::new(PRODUCT, &serial(number))).unwrap();
            } else {
                tree.stream.sign(&signing(&tree.key)).unwrap();
            }
        }
        done.store(true, Ordering::Relaxed);
        readers
            .into_iter()
            .flat_map(|reader| {
                let seen = reader.join().unwrap();
                assert!(seen.is_sorted(), "a reader was taken back to an older publication");
                seen
            })
            .max()
    });
    assert!(seen > Some(1), "no reader saw a publication");
    assert_eq!(tree.problems(), "");
}

/// Two publishers at once: each image of each is published, one after the other.
#[test]
fn two_publishers_take_turns() {
    let tree = Fixture::new();
    thread::scope(|scope| {
        for variant in ["left", "right"] {
            let tree = &tree;
            scope.spawn(move || {
                for number in 0..8 {
                    let product = format!("debian:bookworm:amd64:{variant}");
                    tree.add(&Image::new(&product, &serial(number))).unwrap();
                }
            });
        }
    });
    assert_eq!(tree.problems(), "");
    assert_eq!(tree.stream.list(SystemTime::now()).unwrap().len(), 16);
}

/// Kills publishers after every delay from none to longer than they need. Readers must find a
/// complete set at once, and the next publisher must heal what was left half done.
#[test]
fn killed_publisher_leaves_a_consistent_tree_that_heals() {
    let tree = Fixture::new();
    fs::write(tree.dir.path().join("key"), tree.key.to_armored_secret().unwrap()).unwrap();
    let keyring = tree.key.keyring();
    let mut number = 0;
    let mut killed = 0;
    let mut delay = Duration::ZERO;
    let mut finished = 0;
    while finished < 3 {
        let dir = tree.build(&Image::new(PRODUCT, &serial(number)));
        let began = Instant::now();
        let mut child = publisher(&tree, &dir);
        while began.elapsed() < delay && child.try_wait().unwrap().is_none() {
            thread::sleep(Duration::from_micros(200));
        }
        let over = child.try_wait().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        match over {
            Some(status) => {
                assert!(status.success(), "a publisher failed by itself");
                let listed = tree.stream.list(SystemTime::now()).unwrap();
                let ours = serial(number);
                assert!(listed.iter().any(|image| image.serial.to_string() == ours), "nothing was published");
                finished += 1;
            }
            None => killed += 1,
        }
        read(tree.root(), &keyring).unwrap();
        delay += Duration::from_micros(1500);
        number += 1;
    }
    assert!(killed > 10, "only {killed} publishers were killed in time");
    tree.stream.sign(&signing(&tree.key)).unwrap();
    assert_eq!(tree.problems(), "");
    let left: Vec<_> = fs::read_dir(tree.root().join(".staging")).unwrap().collect();
    assert!(left.is_empty(), "staging is not empty: {left:?}");
}

/// An image that was placed when its publisher died, and never listed, goes when the next one
/// comes, even if that adds something else.
#[test]
fn placed_but_unlisted_image_is_taken_away() {
    let tree = Fixture::new();
    let added = tree.add(&Image::new(PRODUCT, &serial(0))).unwrap();
    let orphan = added.path.with_file_name(serial(1));
    fs::create_dir(&orphan).unwrap();
    fs::write(orphan.join("rootfs.tar.xz"), "half").unwrap();
    let path = orphan.strip_prefix(tree.root()).unwrap().to_str().unwrap();
    fs::write(tree.root().join(".staging/pending"), path).unwrap();
    fs::create_dir(tree.root().join(".staging/add-x")).unwrap();
    fs::create_dir_all(tree.root().join(".documents/99/streams")).unwrap();
    assert!(tree.problems().contains("no document lists it"));
    tree.stream.sign(&signing(&tree.key)).unwrap();
    assert!(!orphan.exists() && added.path.exists());
    assert!(!tree.root().join(".documents/99").exists());
    assert_eq!(tree.problems(), "");
}

/// A note that names a listed image, or something outside, must not cost anything.
#[test]
fn note_of_a_pending_image_removes_nothing_else() {
    let tree = Fixture::new();
    let added = tree.add(&Image::new(PRODUCT, &serial(0))).unwrap();
    let outside = tree.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    let listed = added.path.strip_prefix(tree.root()).unwrap().to_str().unwrap().to_owned();
    for note in [listed, "images/../../outside".into(), "../outside".into(), outside.to_str().unwrap().into()]
    {
        fs::write(tree.root().join(".staging/pending"), &note).unwrap();
        tree.stream.sign(&signing(&tree.key)).unwrap();
        assert!(added.path.exists() && outside.exists(), "{note}");
        assert_eq!(tree.problems(), "", "{note}");
    }
}

#[test]
fn interrupted_init_is_completed() {
    let key = new_key();
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    let (stream, _) = Stream::init(&root, &signing(&key)).unwrap();
    for name in ["streams", "meta", "index.html", "pages"] {
        fs::remove_file(root.join(name)).unwrap();
    }
    // Cut off just before the last step, and just before the one that publishes.
    assert!(!Stream::init(&root, &signing(&key)).unwrap().1);
    assert_eq!(stream.verify(SystemTime::now()).unwrap().problems, []);
    for name in ["streams", "meta", "index.html", "pages", ".documents/current"] {
        fs::remove_file(root.join(name)).unwrap();
    }
    assert!(Stream::open(&root).is_err());
    assert!(Stream::init(&root, &signing(&key)).unwrap().1);
    assert_eq!(stream.verify(SystemTime::now()).unwrap().problems, []);
}

/// This test program again, as a publisher that can be killed.
fn publisher(tree: &Fixture, image: &Path) -> std::process::Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "publisher_process"])
        .env("PUBLISH_ROOT", tree.root())
        .env("PUBLISH_KEY", tree.dir.path().join("key"))
        .env("PUBLISH_IMAGE", image)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
#[ignore = "the process that killed_publisher_leaves_a_consistent_tree_that_heals starts"]
fn publisher_process() {
    let path = |name: &str| -> io::Result<_> { std::env::var_os(name).ok_or(io::ErrorKind::NotFound.into()) };
    let key = SigningKey::from_bytes(&fs::read(path("PUBLISH_KEY").unwrap()).unwrap()).unwrap();
    let stream = Stream::open(Path::new(&path("PUBLISH_ROOT").unwrap())).unwrap();
    stream.add(Path::new(&path("PUBLISH_IMAGE").unwrap()), &signing(&key)).unwrap();
}
