//! Whatever a tree holds comes back identical: packed and unpacked by us, by GNU tar, and by one of
//! each. Needs root and a file system with attributes, access lists and holes.

mod support;
#[path = "support/tree.rs"]
mod tree;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};

use millstream_image::archive::{
    Compression, Devices, ExtractOptions, Layout, Member, PackOptions, Sink, XzOptions, extract,
    extract_layer, pack, pack_each,
};
use proptest::prelude::*;
use support::listing::{alike, listing_of_squashfs, same};
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

/// Packs in one pass what becomes a unified image and a layer, and unpacks them as they are unpacked elsewhere.
fn check_others(root: &Path, dir: &Path) {
    let sink = |name: &str, compression, layout, lead| Sink {
        out: File::create(dir.join(name)).unwrap(),
        compression,
        level: 1,
        layout,
        lead,
    };
    let metadata = BTreeMap::from([("metadata.yaml".into(), Member::file("x"))]);
    let unified = sink("unified", Compression::Gzip, Layout::Rootfs, metadata);
    let layer = sink("layer", Compression::Zstd, Layout::Plain, BTreeMap::new());
    pack_each(root, vec![unified, layer], &PackOptions::default()).unwrap();

    fs::create_dir(dir.join("1")).unwrap();
    let mut tar = Command::new("tar");
    tar.args([
        "--xattrs",
        "--xattrs-include=*",
        "--acls",
        "--numeric-owner",
        "--delay-directory-restore",
        "-xpf",
    ]);
    run(tar.arg(dir.join("unified")).arg("-C").arg(dir.join("1")));
    same(&dir.join("1/rootfs"), root, "unified");

    fs::create_dir(dir.join("2")).unwrap();
    let options = ExtractOptions { devices: Devices::Create, ..ExtractOptions::default() };
    extract_layer(File::open(dir.join("layer")).unwrap(), &dir.join("2"), &options).unwrap();
    same(&dir.join("2"), root, "layer");

    check_squashfs(root, dir);
}

fn check_squashfs(root: &Path, dir: &Path) {
    let latest = u32::MAX.into();
    let mut tool = Command::new("mksquashfs")
        .args(["-", "squashfs", "-tar", "-quiet", "-no-progress", "-noappend"])
        .args(["-processors", "1", "-comp", "gzip"])
        .current_dir(dir)
        .env("SOURCE_DATE_EPOCH", u32::MAX.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("this test needs squashfs-tools");
    let sink = Sink {
        out: tool.stdin.take().unwrap(),
        compression: Compression::None,
        level: 0,
        layout: Layout::Squashfs,
        lead: BTreeMap::new(),
    };
    let options = PackOptions { epoch: latest, ..PackOptions::default() };
    drop(pack_each(root, vec![sink], &options).unwrap());
    assert!(tool.wait().unwrap().success());
    run(Command::new("unsquashfs")
        .args(["-quiet", "-no-progress", "-processors", "1", "-d", "3", "squashfs"])
        .current_dir(dir));
    let listing = |root: &Path| listing_of_squashfs(root, latest);
    alike(&listing(&dir.join("3")), &listing(root), "squashfs");
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

    #[test]
    fn any_tree_comes_back_from_every_format(nodes in nodes()) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir(&root).unwrap();
        make(&nodes, &root);
        check_others(&root, dir.path());
    }
}
