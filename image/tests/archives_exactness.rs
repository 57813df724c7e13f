//! Whatever a tree holds comes back identical: packed and unpacked by us, by GNU tar, and by one of
//! each. Needs root and a file system with attributes, access lists and holes.

mod support;
#[path = "support/tree.rs"]
mod tree;

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use millstream_image::archive::{
    Compression, Devices, ExtractOptions, PackOptions, XzOptions, extract, pack,
};
use proptest::prelude::*;
use support::listing::same;
use tree::{make, nodes};

fn run(tar: &mut Command) {
    let out = tar.env("LC_ALL", "C").output().expect("this test needs GNU tar");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}

fn unpack(archive: &Path, target: &Path) {
    fs::create_dir(target).unwrap();
    let options = ExtractOptions { devices: Devices::Create, ..ExtractOptions::default() };
    extract(File::open(archive).unwrap(), target, &options).unwrap();
}

fn check(root: &Path, dir: &Path) {
    let attributes = ["--xattrs", "--xattrs-include=*", "--acls", "--numeric-owner"];
    let ours = dir.join("ours.tar.xz");
    let xz = XzOptions { level: 0, block_size: 200_000, ..XzOptions::default() };
    let options = PackOptions { compression: Compression::Xz, xz, ..PackOptions::default() };
    pack(root, File::create(&ours).unwrap(), &options).unwrap();
    unpack(&ours, &dir.join("1"));
    same(&dir.join("1"), root, "packed by us, unpacked by us");

    fs::create_dir(dir.join("2")).unwrap();
    let mut tar = Command::new("tar");
    run(tar
        .args(attributes)
        .args(["--delay-directory-restore", "-xpf"])
        .arg(&ours)
        .arg("-C")
        .arg(dir.join("2")));
    same(&dir.join("2"), root, "packed by us, unpacked by GNU tar");

    let theirs = dir.join("theirs.tar");
    let mut tar = Command::new("tar");
    run(tar
        .args(attributes)
        .args(["--format=pax", "--sparse", "-cf"])
        .arg(&theirs)
        .arg("-C")
        .arg(root)
        .arg("."));
    unpack(&theirs, &dir.join("3"));
    same(&dir.join("3"), root, "packed by GNU tar, unpacked by us");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, max_shrink_iters: 300, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_tree_comes_back_identical(nodes in nodes()) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir(&root).unwrap();
        make(&nodes, &root);
        check(&root, dir.path());
    }
}
