//! Keys that take over from others, images that wait for a key, and documents renewed in time.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use millstream_image::openpgp::SigningKey;
use millstream_server::stream::{Deltas, Signing, Stream};
use support::reader::read;
use support::{Fixture, Image, new_key, signing, snapshot};

const PRODUCT: &str = "debian:bookworm:amd64:default";
const DAY: Duration = Duration::from_hours(24);

fn image(day: u32) -> Image {
    Image::new(PRODUCT, &format!("202601{day:02}_0000"))
}

/// Has gpg, which knows this key alone, check every signature in the tree; how many.
fn gpg(root: &Path, key: &SigningKey) -> usize {
    let home = tempfile::tempdir().unwrap();
    fs::set_permissions(home.path(), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    fs::write(home.path().join("key.asc"), key.to_armored_public().unwrap()).unwrap();
    let keyring = home.path().join("key.gpg");
    let mut dearmor = Command::new("gpg");
    dearmor.arg("--homedir").arg(home.path()).args(["--batch", "--quiet", "--dearmor", "-o"]);
    assert!(dearmor.arg(&keyring).arg(home.path().join("key.asc")).status().unwrap().success());
    let mut verified = 0;
    for path in snapshot(root).into_keys() {
        let (path, name) = (root.join(&path), path.to_string_lossy().into_owned());
        let current = fs::read_link(root.join(".documents/current")).unwrap();
        let published =
            name.starts_with("images/") || name.starts_with(&format!(".documents/{}/", current.display()));
        let mut arguments: Vec<PathBuf> = vec![path.clone()];
        match path.extension().and_then(|end| end.to_str()) {
            _ if !published => continue,
            Some("asc" | "gpg") => arguments.push(path.with_extension("")),
            Some("sjson") => {}
            _ => continue,
        }
        let mut command = Command::new("gpg");
        command.arg("--homedir").arg(home.path()).args([
            "--batch",
            "--no-autostart",
            "--trust-model",
            "always",
        ]);
        command.args(["--no-default-keyring", "--status-fd", "1", "--keyring"]).arg(&keyring).arg("--verify");
        let output = command.args(&arguments).output().unwrap();
        let status = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(status.contains("VALIDSIG"), "{}: {status}", path.display());
        assert!(!status.contains("BADSIG"), "{}: {status}", path.display());
        verified += 1;
    }
    verified
}

#[test]
fn both_keys_sign_everything_while_one_takes_over() {
    let tree = Fixture::new();
    tree.add(&image(1)).unwrap();
    let (old, new) = (tree.key.clone(), new_key());
    assert!(tree.stream.sign(&signing(&new)).unwrap_err().to_string().contains("--key"), "another key");
    let both = old.clone().with(new.clone());
    tree.stream.sign(&signing(&both)).unwrap();
    assert_eq!(tree.stream.keys().unwrap(), both.fingerprints());
    // An image from before, and one from now; for whoever knows either key.
    assert!(tree.add(&image(2)).unwrap_err().to_string().contains("and"), "one key of two is not enough");
    let dir = tree.build(&image(2));
    tree.stream.add(&dir, &signing(&both)).unwrap();
    assert_eq!(tree.problems(), "");
    for key in [&old, &new] {
        read(tree.root(), &key.keyring()).unwrap();
        assert!(gpg(tree.root(), key) >= 12);
    }
    // The old one goes; what it signed is still proven by the new one.
    tree.stream.sign(&signing(&new)).unwrap();
    assert_eq!(tree.stream.keys().unwrap(), [new.fingerprint()]);
    assert_eq!(tree.problems(), "");
    read(tree.root(), &new.keyring()).unwrap();
    assert!(gpg(tree.root(), &new) >= 12);
    assert!(read(tree.root(), &old.keyring()).is_err());
    assert!(tree.add(&image(3)).is_err(), "the old key publishes nothing more");
}

#[test]
fn a_damaged_image_gets_no_signature_of_the_new_key() {
    let tree = Fixture::new();
    let added = tree.add(&image(1)).unwrap();
    let path = added.path.join("rootfs.tar.xz");
    let mut bytes = fs::read(&path).unwrap();
    bytes[20] ^= 1;
    fs::remove_file(&path).unwrap();
    fs::write(&path, bytes).unwrap();
    let error = tree.stream.sign(&signing(&tree.key.clone().with(new_key()))).unwrap_err().to_string();
    assert!(error.contains("rootfs.tar.xz"), "{error}");
    assert_eq!(tree.stream.keys().unwrap(), [tree.key.fingerprint()], "nothing has changed");
    read(tree.root(), &tree.key.keyring()).unwrap_err();
}

#[test]
fn an_unsigned_image_waits_unseen_until_it_is_signed() {
    let tree = Fixture::new();
    tree.add(&image(1)).unwrap();
    let before = read(tree.root(), &tree.key.keyring()).unwrap();
    let dir = tree.build(&image(2));
    let (path, new) = Stream::add_unsigned(tree.root(), &dir).unwrap();
    assert!(new && path.starts_with(tree.root().join(".unsigned")));
    assert!(!Stream::add_unsigned(tree.root(), &dir).unwrap().1, "it is there already");
    let other = tree.build(&Image { content: "other".into(), ..image(2) });
    assert!(Stream::add_unsigned(tree.root(), &other).is_err(), "another image of that name");
    assert_eq!(read(tree.root(), &tree.key.keyring()).unwrap(), before);
    assert_eq!(tree.problems(), "");
    assert_eq!(tree.stream.list(SystemTime::now()).unwrap().len(), 1);
    // Changed while it waited: refused, and it goes on waiting.
    let waiting = tree.stream.unsigned().unwrap();
    assert_eq!(waiting, std::slice::from_ref(&path));
    let publish = || tree.stream.publish_unsigned(&path, &signing(&tree.key), &Deltas::default());
    let log = fs::read(path.join("lxd.tar.xz")).unwrap();
    fs::remove_file(path.join("lxd.tar.xz")).unwrap();
    fs::write(path.join("lxd.tar.xz"), b"evil").unwrap();
    assert!(publish().is_err());
    assert_eq!(tree.stream.unsigned().unwrap(), waiting);
    fs::write(path.join("lxd.tar.xz"), log).unwrap();
    assert!(publish().unwrap().new);
    assert!(tree.stream.unsigned().unwrap().is_empty());
    assert_eq!(tree.stream.list(SystemTime::now()).unwrap().len(), 2);
    assert_eq!(tree.problems(), "");
    assert!(!Stream::add_unsigned(tree.root(), &tree.build(&image(2))).unwrap().1, "published already");
}

/// A builder begins, and the key comes later.
#[test]
fn a_tree_may_begin_without_a_key() {
    let key = new_key();
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    image(1).build(&dir.path().join("image"));
    Stream::add_unsigned(&root, &dir.path().join("image")).unwrap();
    assert!(Stream::open(&root).is_err(), "no stream yet");
    let (stream, new) = Stream::init(&root, &signing(&key)).unwrap();
    assert!(new);
    for image in stream.unsigned().unwrap() {
        stream.publish_unsigned(&image, &signing(&key), &Deltas::NONE).unwrap();
    }
    assert_eq!(stream.verify(SystemTime::now()).unwrap().problems, []);
    assert_eq!(stream.list(SystemTime::now()).unwrap().len(), 1);
}

#[test]
fn documents_are_due_when_half_of_their_time_is_over() {
    let tree = Fixture::new();
    let now = SystemTime::now();
    tree.stream.sign(&Signing { key: &tree.key, now, validity: Some(10 * DAY) }).unwrap();
    assert!(!tree.stream.is_due(now + 4 * DAY).unwrap());
    assert!(tree.stream.is_due(now + 6 * DAY).unwrap());
    assert!(tree.stream.is_due(now + 12 * DAY).unwrap());
}

/// A publisher that makes a delta for long does not keep others waiting, and they leave its work alone.
#[test]
fn others_publish_while_an_image_is_prepared() {
    let tree = Fixture::new();
    let data = |day: u8| (0..3_000_000_u32).map(move |i| (i.wrapping_mul(2_654_435_761) >> 24) as u8 ^ day);
    let big = |day: u8| Image { data: data(day / 2).collect(), ..image(day.into()) };
    tree.add(&big(2)).unwrap();
    let dir = tree.build(&big(3));
    std::thread::scope(|scope| {
        let slow =
            scope.spawn(|| tree.stream.add_with(&dir, &signing(&tree.key), &Deltas::default()).unwrap());
        let mut meanwhile = 0;
        while !slow.is_finished() {
            tree.stream.sign(&signing(&tree.key)).unwrap();
            meanwhile += 1;
        }
        assert!(meanwhile > 1, "others had to wait");
        assert!(slow.join().unwrap().new);
    });
    assert_eq!(tree.problems(), "");
}
