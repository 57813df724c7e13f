//! `verify` finds each kind of damage, names the file, and finds nothing in a sound tree.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use millstream_image::simplestreams::{Index, to_bytes};
use support::{Fixture, Image};

const PRODUCT: &str = "debian:bookworm:amd64:default";
const SERIAL: &str = "20260101_0000";

type Damage = fn(&mut Vec<u8>);
type Contradiction = fn(&mut Index);

fn tree() -> (Fixture, PathBuf) {
    let tree = Fixture::new();
    let add = |serial: &str| {
        tree.add(&Image { unified: "unified.tar.zst", ..Image::new(PRODUCT, serial) }).unwrap().path
    };
    let path = add(SERIAL);
    add("20260102_0000");
    (tree, path)
}

/// Writes a new file in place of the old one, so that hard links elsewhere stay as they are.
fn rewrite(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::remove_file(path).unwrap();
    fs::write(path, bytes).unwrap();
}

#[test]
fn sound_tree_has_no_problem() {
    let (tree, _) = tree();
    let report = tree.stream.verify(SystemTime::now()).unwrap();
    assert_eq!(report.problems, []);
    assert_eq!(report.images, 2);
    assert!(report.files > 40 && report.bytes > 1000);
}

/// Each file of an image, damaged in each way, is found and named.
#[test]
fn damage_to_any_file_of_an_image_is_found() {
    let (tree, image) = tree();
    let names: Vec<_> = fs::read_dir(&image).unwrap().map(|item| item.unwrap().file_name()).collect();
    assert_eq!(names.len(), 13);
    let unsigned = ["build.log", "index.html", "history.json"];
    for name in names.iter().filter(|name| unsigned.iter().all(|unsigned| name != unsigned)) {
        let path = image.join(name);
        let good = fs::read(&path).unwrap();
        let damages: [(&str, Damage); 3] = [
            ("flipped", |bytes| bytes[20] ^= 1),
            ("cut", |bytes| bytes.truncate(bytes.len() - 30)),
            ("grown", |bytes| bytes.splice(..0, *b"x\n").for_each(drop)),
        ];
        for (what, damage) in damages {
            if what == "grown" && path.extension().is_some_and(|extension| extension == "asc") {
                continue; // Lines before an armored signature mean nothing.
            }
            rewrite(&path, damage);
            let problems = tree.problems();
            assert!(problems.contains(name.to_str().unwrap()), "{name:?} {what}: {problems}");
            rewrite(&path, |bytes| bytes.clone_from(&good));
        }
        fs::remove_file(&path).unwrap();
        let problems = tree.problems();
        assert!(problems.contains(name.to_str().unwrap()), "{name:?} gone: {problems}");
        fs::write(&path, &good).unwrap();
        assert_eq!(tree.problems(), "", "{name:?} put back");
    }
}

/// So is each document, and each signature.
#[test]
fn damage_to_any_document_is_found() {
    let (tree, _) = tree();
    let current = fs::canonicalize(tree.root().join(".documents/current")).unwrap();
    let mut checked = 0;
    let page = |name: &Path| name.starts_with("pages") || name.ends_with("index.html");
    for name in support::snapshot(&current).keys().filter(|name| !page(name)) {
        let path = current.join(name);
        let good = fs::read(&path).unwrap();
        rewrite(&path, |bytes| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        });
        let problems = tree.problems();
        let file = name.file_name().unwrap().to_str().unwrap();
        assert!(problems.contains(file), "{name:?}: {problems}");
        rewrite(&path, |bytes| bytes.clone_from(&good));
        checked += 1;
    }
    assert_eq!(tree.problems(), "");
    assert!(checked >= 6 + 32 + 2, "{checked}");
}

#[test]
fn missing_documents_are_found() {
    for name in [
        "index.json",
        "index.json.gpg",
        "index.sjson",
        "images-debian.json",
        "images-debian.json.gpg",
        "images-debian.sjson",
    ] {
        let (tree, _) = tree();
        fs::remove_file(tree.root().join("streams/v1").join(name)).unwrap();
        assert!(tree.problems().contains(name), "{name}");
    }
}

#[test]
fn stray_files_are_found() {
    let (tree, image) = tree();
    for stray in
        [tree.root().join("letter.txt"), image.join("letter.txt"), image.with_file_name("20260103_0000")]
    {
        if stray.extension().is_some() {
            fs::write(&stray, "x").unwrap();
        } else {
            fs::create_dir(&stray).unwrap();
        }
        let problems = tree.problems();
        let path = stray.strip_prefix(tree.root()).unwrap().display().to_string();
        assert!(problems.starts_with(&path) && problems.lines().count() == 1, "{problems}");
        if stray.is_dir() { fs::remove_dir(&stray).unwrap() } else { fs::remove_file(&stray).unwrap() }
    }
}

#[test]
fn expired_documents_are_found() {
    let (tree, _) = tree();
    let later = SystemTime::now() + Duration::from_hours(31 * 24);
    let report = tree.stream.verify(later).unwrap();
    assert_eq!(report.problems.len(), 1, "{:?}", report.problems);
    assert!(report.problems[0].reason.contains("expired"), "{:?}", report.problems);
}

/// Signed by the right key, and yet wrong: what a faulty publisher would write.
#[test]
fn well_signed_contradictions_are_found() {
    let (tree, _) = tree();
    let path = tree.root().join("streams/v1/index.json");
    let good = Index::parse(&fs::read(&path).unwrap()).unwrap();
    let cases: [(&str, Contradiction); 4] = [
        ("it says it is", |index| index.millstream.as_mut().unwrap().path = "streams/v1/other.json".into()),
        ("no generation", |index| index.millstream = None),
        ("not what the index says", |index| index.index.get_mut("images:debian").unwrap().size = Some(1)),
        ("by_hash", |index| index.index.get_mut("images:debian").unwrap().by_hash = None),
    ];
    for (expected, change) in cases {
        let mut index = good.clone();
        change(&mut index);
        let plain = to_bytes(&index).unwrap();
        let signed = String::from_utf8(to_bytes(&index.clone().for_signed_readers()).unwrap()).unwrap();
        let now = SystemTime::now();
        fs::write(path.with_extension("json.gpg"), tree.key.sign_detached(plain.as_slice(), now).unwrap())
            .unwrap();
        fs::write(path.with_extension("sjson"), tree.key.sign_cleartext(&signed, now).unwrap()).unwrap();
        fs::write(&path, plain).unwrap();
        let problems = tree.problems();
        assert!(problems.contains(expected), "{expected}: {problems}");
    }
}

#[test]
fn broken_links_are_found() {
    let (tree, _) = tree();
    fs::remove_file(tree.root().join("meta")).unwrap();
    std::os::unix::fs::symlink(".documents/1/meta", tree.root().join("meta")).unwrap();
    assert!(tree.problems().contains("meta: leads to .documents/1/meta"), "{}", tree.problems());
}
