//! Whatever happened to the documents, `repair` publishes a set that is true, and never lists what
//! the key did not sign.

mod support;

use std::fs;
use std::path::Path;
use std::time::SystemTime;

use millstream_image::simplestreams::Index;
use millstream_server::stream::{Repaired, Stream};
use support::{Fixture, Image, new_key, signing, snapshot};

const PRODUCT: &str = "debian:bookworm:amd64:default";
const IMAGE: &str = "images/debian/bookworm/amd64/default";

fn tree() -> Fixture {
    let tree = Fixture::new();
    for day in 1..=3 {
        let image = Image::new(PRODUCT, &format!("2026010{day}_0000"));
        tree.add(&Image { unified: "unified.tar.zst", ..image }).unwrap();
    }
    tree
}

fn repair(tree: &Fixture) -> Repaired {
    Stream::repair(tree.root(), &signing(&tree.key)).unwrap()
}

fn generation(tree: &Fixture) -> u64 {
    let index = fs::read(tree.root().join("streams/v1/index.json")).unwrap();
    Index::parse(&index).unwrap().millstream.unwrap().generation
}

/// A file that others may have a second name for is replaced, not written into.
fn replace(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::remove_file(path).unwrap();
    fs::write(path, bytes).unwrap();
}

#[test]
fn each_document_gone_or_damaged_comes_back() {
    let tree = tree();
    let listed = tree.stream.list(SystemTime::now()).unwrap();
    let current = fs::canonicalize(tree.root().join(".documents/current")).unwrap();
    let names: Vec<_> =
        snapshot(&current).into_keys().filter(|name| !name.starts_with("streams/v1/by-hash")).collect();
    assert!(names.len() > 10);
    for name in names {
        for gone in [true, false] {
            let path = fs::canonicalize(tree.root().join(".documents/current")).unwrap().join(&name);
            let before = generation(&tree);
            if gone {
                fs::remove_file(&path).unwrap();
            } else {
                replace(&path, |bytes| bytes.truncate(bytes.len() / 2));
            }
            // Pages are for people, and in no document.
            if !name.starts_with("pages") && !name.starts_with("index.html") {
                assert_ne!(tree.problems(), "", "{name:?}");
            }
            let repaired = repair(&tree);
            assert_eq!(repaired.dropped, [], "{name:?}");
            assert_eq!(tree.problems(), "", "{name:?}");
            assert_eq!(tree.stream.list(SystemTime::now()).unwrap(), listed, "{name:?}");
            assert!(generation(&tree) > before, "clients refuse what goes back");
        }
    }
}

#[test]
fn documents_that_are_all_gone_come_back_from_the_images() {
    let tree = tree();
    let listed = tree.stream.list(SystemTime::now()).unwrap();
    fs::remove_dir_all(tree.root().join(".documents")).unwrap();
    fs::create_dir(tree.root().join(".documents")).unwrap();
    for name in ["streams", "meta", "index.html", "key.asc"] {
        fs::remove_file(tree.root().join(name)).unwrap();
    }
    let repaired = repair(&tree);
    assert!(repaired.rebuilt && repaired.images == 3, "{repaired:?}");
    assert_eq!(tree.problems(), "");
    assert_eq!(tree.stream.list(SystemTime::now()).unwrap(), listed);
    assert!(generation(&tree) > 1_000_000, "later than any client can have seen");
}

#[test]
fn a_damaged_image_leaves_the_documents_and_its_files_stay() {
    let tree = tree();
    let path = tree.root().join(IMAGE).join("20260103_0000/rootfs.tar.xz");
    replace(&path, |bytes| bytes[100] ^= 1);
    let repaired = repair(&tree);
    assert_eq!((repaired.rebuilt, repaired.images), (false, 2));
    assert!(repaired.dropped[0].path.starts_with(Path::new(IMAGE).join("20260103_0000")), "{repaired:?}");
    assert!(path.exists());
    let newest = tree.stream.list(SystemTime::now()).unwrap().remove(0);
    assert_eq!((newest.serial.to_string().as_str(), newest.newest), ("20260102_0000", true));
}

/// With the documents gone, directories are asked; none may talk itself into the signed list.
#[test]
fn nothing_is_listed_that_the_key_did_not_sign() {
    type Attack = fn(&Path);
    let attacks: [(&str, Attack); 4] = [
        ("an old image as a new one", |product| {
            copy(&product.join("20260101_0000"), &product.join("20260109_0000"));
            let manifest = product.join("20260109_0000/manifest.json");
            replace(&manifest, |text| {
                *text = String::from_utf8_lossy(text).replace("20260101_0000", "20260109_0000").into_bytes();
            });
        }),
        ("an image without a signature", |product| {
            copy(&product.join("20260101_0000"), &product.join("20260109_0000"));
            fs::remove_file(product.join("20260109_0000/SHA256SUMS.asc")).unwrap();
        }),
        ("another's path", |product| {
            copy(&product.join("20260101_0000"), &product.join("20260109_0000"));
        }),
        ("a manifest that claims more names", |product| {
            replace(&product.join("20260103_0000/manifest.json"), |text| {
                let claimed = String::from_utf8_lossy(text)
                    .replace("\"release_aliases\": []", "\"release_aliases\": [\"13\"]");
                assert_ne!(claimed.as_bytes(), text.as_slice());
                *text = claimed.into_bytes();
            });
        }),
    ];
    for (what, attack) in attacks {
        let tree = tree();
        attack(&tree.root().join(IMAGE));
        fs::remove_file(tree.root().join(".documents/current")).unwrap();
        let repaired = repair(&tree);
        assert!(repaired.rebuilt, "{what}");
        assert_eq!(repaired.dropped.len(), 1, "{what}: {repaired:?}");
        let listed = tree.stream.list(SystemTime::now()).unwrap();
        assert!(listed.iter().all(|image| image.serial.to_string() != "20260109_0000"), "{what}");
        assert!(listed.iter().all(|image| !image.aliases.iter().any(|alias| alias.contains("13"))), "{what}");
    }
}

#[test]
fn only_the_streams_own_key_repairs_it() {
    let tree = tree();
    let other = new_key();
    let error = Stream::repair(tree.root(), &signing(&other)).unwrap_err();
    assert!(error.to_string().contains("its clients trust key"), "{error}");
    assert_eq!(tree.problems(), "");
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for item in fs::read_dir(from).unwrap().map(Result::unwrap) {
        fs::copy(item.path(), to.join(item.file_name())).unwrap();
    }
}
