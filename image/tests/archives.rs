//! Hostile archives, each refused for its own reason; good ones accepted exactly; what we pack read
//! by GNU tar. Needs root, as unpacking owners does.

#[path = "support/forge.rs"]
mod forge;
mod support;

use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use millstream_image::archive::{
    Compression, Devices, ExtractOptions, FileGroup, Limits, Ownership, PackOptions, XzOptions, extract, pack,
};

use forge::{entry, file, pax, raw, tar};
use support::listing::same;

fn unpack(archive: &[u8], options: &ExtractOptions) -> (tempfile::TempDir, Result<u64, String>) {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("target");
    fs::create_dir(&target).unwrap();
    fs::write(dir.path().join("outside"), "safe").unwrap();
    let result = extract(archive, &target, options).map(|e| e.entries).map_err(|e| e.to_string());
    assert_eq!(fs::read_to_string(dir.path().join("outside")).unwrap(), "safe", "nothing leaves the target");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "nothing appears beside the target");
    (dir, result)
}

/// Every case: its name, a part of the expected reason, the archive.
fn refused(cases: &[(&str, &str, Vec<u8>)]) {
    for (name, reason, archive) in cases {
        let options = ExtractOptions { devices: Devices::Create, ..ExtractOptions::default() };
        let (_dir, result) = unpack(archive, &options);
        let error = result.expect_err(name);
        assert!(error.contains(reason), "{name}: expected {reason:?}, got {error:?}");
    }
}

#[test]
fn paths_that_lead_out_are_refused() {
    refused(&[
        ("parent", "..", tar(&[file("../outside")])),
        ("parent in the middle", "..", tar(&[file("a/../../outside")])),
        ("parent at the end", "..", tar(&[entry("a/..", b'5', "", b"")])),
        ("absolute", "absolute", tar(&[file("/tmp/x")])),
        ("pax parent", "..", tar(&[pax(&[("path", "../outside")]), file("x")])),
        ("pax absolute", "absolute", tar(&[pax(&[("path", "/x")]), file("x")])),
        ("gnu long parent", "..", tar(&[entry("././@LongLink", b'L', "", b"../outside\0"), file("x")])),
        (
            "ustar prefix",
            "..",
            tar(&[raw(b"outside", b'0', b"", b"", |b| b[345..347].copy_from_slice(b".."))]),
        ),
        ("empty", "empty", tar(&[file("")])),
        ("nul", "NUL", tar(&[pax(&[("path", "a\0b")]), file("x")])),
        ("long part", "255", tar(&[pax(&[("path", &"x".repeat(256))]), file("x")])),
        ("too deep", "deep", tar(&[pax(&[("path", &"x/".repeat(200))]), entry("x", b'5', "", b"")])),
        ("too long", "long", tar(&[pax(&[("path", &"xxxxxxxx/".repeat(600))]), entry("x", b'5', "", b"")])),
    ]);
}

#[test]
fn links_are_never_followed() {
    refused(&[
        ("through a link", "through a link", tar(&[entry("l", b'2', "..", b""), file("l/outside")])),
        ("over a link", "twice", tar(&[entry("l", b'2', "../outside", b""), file("l")])),
        ("directory over a link", "twice", tar(&[entry("l", b'2', "..", b""), entry("l", b'5', "", b"")])),
        ("file as parent", "through a link or a file", tar(&[file("f"), file("f/x")])),
        ("empty target", "empty", tar(&[entry("l", b'2', "", b"")])),
        ("link as root", "root", tar(&[entry("./", b'2', "..", b"")])),
        ("hard link outside", "..", tar(&[entry("h", b'1', "../outside", b"")])),
        ("hard link absolute", "absolute", tar(&[entry("h", b'1', "/etc/passwd", b"")])),
        ("hard link forward", "not there", tar(&[entry("h", b'1', "f", b""), file("f")])),
        (
            "hard link to a link",
            "to a link",
            tar(&[entry("l", b'2', "../outside", b""), entry("h", b'1', "l", b"")]),
        ),
        (
            "hard link to a directory",
            "directory",
            tar(&[entry("d", b'5', "", b""), entry("h", b'1', "d", b"")]),
        ),
        (
            "hard link through a link",
            "through a link",
            tar(&[entry("l", b'2', "..", b""), entry("h", b'1', "l/outside", b"")]),
        ),
        ("hard link with data", "data", tar(&[file("f"), entry("h", b'1', "f", b"evil")])),
        ("symlink with data", "data", tar(&[entry("l", b'2', "x", b"evil")])),
    ]);
}

#[test]
fn broken_and_contradictory_headers_are_refused() {
    let mut bad_sum = tar(&[file("x")]);
    bad_sum[0] ^= 1;
    let twice = tar(&[pax(&[("path", "a")]), pax(&[("path", "b")]), file("x")]);
    let both = tar(&[entry("././@LongLink", b'L', "", b"a\0"), pax(&[("path", "b")]), file("x")]);
    let octal = tar(&[raw(b"x", b'0', b"", b"", |b| b[100..107].copy_from_slice(b"000x644"))]);
    let mode = tar(&[raw(b"x", b'0', b"", b"", |b| b[100..108].copy_from_slice(b"77777777"))]);
    let huge = tar(&[raw(b"x", b'0', b"", b"", |b| {
        b[108..116].copy_from_slice(&[0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
    })]);
    let negative = tar(&[raw(b"x", b'0', b"", b"", |b| b[124..136].fill(0xff))]);
    refused(&[
        ("checksum", "checksum", bad_sum),
        ("two pax headers", "two extended headers", twice),
        ("pax and gnu", "two extended headers", both),
        ("not octal", "not octal", octal),
        ("mode", "mode", mode),
        ("uid 2^32-1", "uid", huge),
        ("negative size", "negative", negative),
        ("pax key twice", "twice", tar(&[pax(&[("path", "a"), ("path", "b")]), file("x")])),
        ("pax size", "broken size", tar(&[pax(&[("size", "-1")]), file("x")])),
        ("pax mtime", "mtime", tar(&[pax(&[("mtime", "nan")]), file("x")])),
        ("absurd time", "time", tar(&[pax(&[("mtime", "99999999999999")]), file("x")])),
        ("dangling pax", "extended header", tar(&[file("x"), pax(&[("path", "a")])])),
        ("broken pax", "extended header", tar(&[entry("pax", b'x', "", b"12 path=x"), file("x")])),
        ("global path", "global", tar(&[entry("g", b'g', "", b"10 path=x\n"), file("y")])),
        ("multi volume", "type", tar(&[entry("x", b'M', "", b"")])),
        ("sparse", "sparse", tar(&[pax(&[("GNU.sparse.major", "1")]), file("x")])),
        ("gnu sparse", "type", tar(&[entry("x", b'S', "", b"")])),
        (
            "trusted xattr",
            "not accepted",
            tar(&[pax(&[("SCHILY.xattr.trusted.overlay.opaque", "y")]), file("x")]),
        ),
        ("file named like a directory", "ends in /", tar(&[file("x/")])),
        ("device whiteout", "whiteout", tar(&[entry("x", b'3', "", b"")])),
        ("aufs whiteout", "whiteout", tar(&[file(".wh.x")])),
        ("twice", "twice", tar(&[file("x"), file("x")])),
        ("v7", "neither", tar(&[raw(b"x", b'0', b"", b"", |b| b[257..265].fill(0))])),
    ]);
}

/// An entry of 4096 bytes with `map` and one block of data.
fn sparse(name: &str, real_size: &str, map: &str) -> Vec<u8> {
    let records = [("major", "1"), ("minor", "0"), ("name", name), ("realsize", real_size)];
    let records: Vec<_> = records.iter().map(|(key, value)| (format!("GNU.sparse.{key}"), *value)).collect();
    let records: Vec<_> = records.iter().map(|(key, value)| (key.as_str(), *value)).collect();
    let mut data = map.as_bytes().to_vec();
    data.resize(data.len().next_multiple_of(512), 0);
    data.extend_from_slice(&[7; 512]);
    [pax(&records), entry("GNUSparseFile.0/x", b'0', "", &data)].concat()
}

#[test]
fn broken_maps_of_sparse_files_are_refused() {
    let map = |map: &str| tar(&[sparse("x", "4096", map), file("y")]);
    refused(&[
        ("beyond the end", "beyond", map("1\n4096\n512\n")),
        ("wraps around", "beyond", map("1\n9223372036854775807\n512\n")),
        ("overlap", "overlap", map("2\n0\n512\n0\n0\n")),
        ("backwards", "overlap", map("2\n1024\n512\n0\n0\n")),
        ("too little data", "does not fit", map("1\n0\n1024\n")),
        ("too much data", "does not fit", map("1\n0\n0\n")),
        ("inside a block", "inside a block", map("2\n0\n100\n1024\n412\n")),
        ("not a number", "not a number", map("1\nx\n")),
        ("empty number", "not a number", map("1\n\n512\n")),
        ("huge number", "not a number", map("1\n99999999999999999999\n512\n")),
        ("many parts", "too long", map("999999999999\n")),
        ("parts missing", "not a number", map(&format!("9999\n{}", "0\n".repeat(300)))),
        ("more after it", "follows", map("1\n0\n512\n3\n")),
        ("name", "..", tar(&[sparse("../outside", "4096", "1\n0\n512\n")])),
        ("size", "broken size", tar(&[sparse("x", "-1", "1\n0\n512\n")])),
        ("vast", "bytes unpacked", tar(&[sparse("x", "9000000000000000", "1\n0\n512\n")])),
        (
            "no name",
            "without name",
            tar(&[pax(&[("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0")]), file("x")]),
        ),
        ("old version", "not accepted", tar(&[pax(&[("GNU.sparse.numblocks", "1")]), file("x")])),
    ]);
}

#[test]
fn holes_are_kept_and_read_as_zeros() {
    let map = "5\n0\n0\n1024\n0\n2048\n512\n3072\n0\n4096\n0\n";
    let (dir, result) = unpack(&tar(&[sparse("d/x", "4096", map), file("y")]), &ExtractOptions::default());
    assert_eq!(result.unwrap(), 2);
    let data = fs::read(dir.path().join("target/d/x")).unwrap();
    assert_eq!(data, [vec![0; 2048], vec![7; 512], vec![0; 1536]].concat());
    assert_eq!(fs::read(dir.path().join("target/y")).unwrap(), b"data");
    let vast = (20_u64 << 30).to_string();
    let end = format!("2\n1048576\n512\n{vast}\n0\n");
    let (dir, result) = unpack(&tar(&[sparse("x", &vast, &end), file("y")]), &ExtractOptions::default());
    result.unwrap();
    let meta = fs::metadata(dir.path().join("target/x")).unwrap();
    assert_eq!(meta.len(), 20 << 30);
    assert!(meta.blocks() < 100, "a hole takes no room");
}

#[test]
fn broken_ends_are_refused() {
    let whole = tar(&[file("x")]);
    refused(&[
        ("no end", "cut off", file("x")),
        ("one zero block", "cut off", [file("x"), vec![0; 512]].concat()),
        ("inside data", "cut off", whole[..600].to_vec()),
        ("inside a header", "cut off", whole[..300].to_vec()),
        ("empty", "cut off", Vec::new()),
        ("after the end", "after its end", [whole.clone(), file("y")].concat()),
        ("concatenated", "after its end", [whole.clone(), whole.clone()].concat()),
        (
            "zero block in the middle",
            "single zero",
            [file("x"), vec![0; 512], file("y"), vec![0; 1024]].concat(),
        ),
    ]);
    let packed = zstd::encode_all(&whole[..], 1).unwrap();
    refused(&[
        ("truncated zstd", "", packed[..packed.len() - 2].to_vec()),
        ("trailing garbage", "", [&packed[..], b"xx"].concat()),
    ]);
}

#[test]
fn limits_hold() {
    let limits = Limits { entries: 10, unpacked: 1 << 20, ..Limits::default() };
    let options = ExtractOptions { limits, ..ExtractOptions::default() };
    let many: Vec<_> = (0..11).map(|i| file(&format!("f{i}"))).collect();
    assert!(unpack(&tar(&many), &options).1.unwrap_err().contains("entries"));
    let bomb = zstd::encode_all(&tar(&[entry("bomb", b'0', "", &vec![0; 2 << 20])])[..], 1).unwrap();
    assert!(bomb.len() < 4096);
    assert!(unpack(&bomb, &options).1.unwrap_err().contains("bytes unpacked"));
    let claim = raw(b"x", b'0', b"", b"", |b| {
        b[124..136].copy_from_slice(&[0x80, 0, 0, 0, 0, 0, 0xff, 0, 0, 0, 0, 0]);
    });
    assert!(unpack(&tar(&[claim]), &options).1.unwrap_err().contains("bytes unpacked"), "1 TiB claimed");
    let header = raw(b"x", b'x', b"", b"", |b| b[124..135].copy_from_slice(b"77777777777"));
    assert!(unpack(&tar(&[header]), &options).1.unwrap_err().contains("too large"));
    let shift = Ownership::Shift { base: 100_000, count: 1000 };
    let options = ExtractOptions { ownership: shift, ..ExtractOptions::default() };
    let stranger = raw(b"x", b'0', b"", b"", |b| b[108..115].copy_from_slice(b"0001750"));
    assert!(unpack(&tar(&[stranger]), &options).1.unwrap_err().contains("mapped"));
}

#[test]
fn unusual_but_good_archives_are_accepted_exactly() {
    let big = "deep/".repeat(30) + "name";
    let archive = tar(&[
        entry("./", b'5', "", b""),
        raw(b"ro", b'5', b"", b"", |b| b[100..107].copy_from_slice(b"0000555")),
        file("ro/child"),
        entry("ro", b'5', "", b""),
        entry("abs", b'2', "/etc/passwd", b""),
        entry("loop", b'2', "loop", b""),
        entry("hard", b'1', "ro/child", b""),
        entry("fifo", b'6', "", b""),
        raw(b"suid", b'0', b"", b"x", |b| b[100..107].copy_from_slice(b"0004755")),
        raw(b"none", b'0', b"", b"x", |b| b[100..107].copy_from_slice(b"0000000")),
        raw(b"odd\xff\n\x01", b'0', b"", b"x", |_| {}),
        pax(&[
            ("mtime", "-1.5"),
            ("uid", "70000"),
            ("SCHILY.xattr.user.k", "v"),
            ("SCHILY.xattr.security.selinux", "l"),
        ]),
        file("old"),
        pax(&[("path", &big)]),
        file("x"),
    ]);
    let (dir, result) = unpack(&archive, &ExtractOptions::default());
    assert_eq!(result.unwrap(), 13);
    let at = |name: &str| dir.path().join("target").join(name);
    assert_eq!(fs::read_link(at("abs")).unwrap(), Path::new("/etc/passwd"));
    assert_eq!(fs::metadata(at("ro")).unwrap().mode() & 0o7777, 0o644, "the last entry of a directory holds");
    assert_eq!(fs::metadata(at("hard")).unwrap().ino(), fs::metadata(at("ro/child")).unwrap().ino());
    assert_eq!(fs::metadata(at("suid")).unwrap().mode() & 0o7777, 0o4755);
    assert_eq!(fs::metadata(at("none")).unwrap().mode() & 0o7777, 0);
    let old = fs::metadata(at("old")).unwrap();
    assert_eq!((old.mtime(), old.mtime_nsec(), old.uid()), (-2, 500_000_000, 70_000));
    assert!(at(&big).exists());
    assert!(dir.path().join("target").join(std::ffi::OsStr::from_bytes(b"odd\xff\n\x01")).exists());
}

/// A tree with all that is easily lost.
fn make_tree(root: &Path) {
    fs::create_dir_all(root.join("usr/bin")).unwrap();
    fs::create_dir_all(root.join("empty")).unwrap();
    fs::set_permissions(root.join("empty"), fs::Permissions::from_mode(0o1777)).unwrap();
    for i in 0..50_u32 {
        let data: Vec<u8> = (0..i * 997).map(|n| (n * i % 251) as u8).collect();
        fs::write(root.join(format!("usr/bin/tool{i}")), data).unwrap();
    }
    fs::set_permissions(root.join("usr/bin/tool1"), fs::Permissions::from_mode(0o4755)).unwrap();
    fs::hard_link(root.join("usr/bin/tool2"), root.join("again")).unwrap();
    symlink("usr/bin", root.join("bin")).unwrap();
    symlink("x".repeat(300), root.join("long-link")).unwrap();
    fs::write(root.join("n".repeat(240)), "long name").unwrap();
    fs::write(root.join(std::ffi::OsStr::from_bytes(b"\xff\xfe odd\n")), "odd name").unwrap();
    fs::File::create(root.join("sparse")).unwrap().set_len(3 << 20).unwrap();
    std::os::unix::fs::chown(root.join("usr/bin/tool3"), Some(3_000_000), Some(12)).unwrap();
    let capability = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(root.join("usr/bin/tool4"), "security.capability", capability, flags).unwrap();
    rustix::fs::setxattr(root.join("usr/bin/tool4"), "user.note", b"a\0b\n", flags).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        root.join("null"),
        rustix::fs::FileType::CharacterDevice,
        0o666.into(),
        rustix::fs::makedev(1, 3),
    )
    .unwrap();
}

#[test]
fn packing_and_unpacking_gives_the_same_tree() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    fs::create_dir(&root).unwrap();
    make_tree(&root);
    let groups = vec![FileGroup { paths: vec!["usr/bin/tool7".into(), "missing".into(), "again".into()] }];
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd, Compression::Xz] {
        let xz = XzOptions { level: 1, block_size: 200_000, ..XzOptions::default() };
        let options = PackOptions { compression, xz, groups: groups.clone(), ..PackOptions::default() };
        let (bytes, packed) = pack(&root, Vec::new(), &options).unwrap();
        let one = XzOptions { threads: 1, ..xz };
        let (again, _) = pack(&root, Vec::new(), &PackOptions { xz: one, ..options.clone() }).unwrap();
        assert!(bytes == again, "the same bytes whatever the number of threads");

        let ours = dir.path().join("ours");
        fs::create_dir(&ours).unwrap();
        let options = ExtractOptions { devices: Devices::Create, digest: true, ..ExtractOptions::default() };
        let extracted = extract(&bytes[..], &ours, &options).unwrap();
        let expected = (Some(packed.sha256_uncompressed), packed.entries);
        assert_eq!((extracted.sha256, extracted.entries), expected);
        same(&ours, &root, "unpacked by us");

        let theirs = dir.path().join("theirs");
        fs::create_dir(&theirs).unwrap();
        fs::write(dir.path().join("archive"), &bytes).unwrap();
        if compression != Compression::Zstd {
            let mut tar = Command::new("tar");
            tar.args([
                "--xattrs",
                "--xattrs-include=*",
                "--numeric-owner",
                "--delay-directory-restore",
                "-xpf",
            ])
            .arg(dir.path().join("archive"));
            let out = tar.arg("-C").arg(&theirs).output().unwrap();
            assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
            same(&theirs, &root, "unpacked by GNU tar");
        }
        fs::remove_dir_all(&ours).unwrap();
        fs::remove_dir_all(&theirs).unwrap();
    }
}

/// Read back from the kernel, which refuses malformed ones.
#[test]
fn file_capabilities_and_access_lists_move_with_the_owners() {
    let words = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>();
    let dir = tempfile::tempdir().unwrap();
    let tool = dir.path().join("ping");
    fs::write(&tool, "x").unwrap();
    let set = |name: &str, value: &[u8]| {
        rustix::fs::setxattr(&tool, name, value, rustix::fs::XattrFlags::empty()).unwrap();
    };
    let list =
        |user: u32| words(&[2, 0x6_0001, !0, 0x4_0002, user, 0x4_0004, !0, 0x4_0010, !0, 0x4_0020, !0]);
    set("security.capability", &words(&[0x0200_0001, 1 << 13, 0, 0, 0]));
    set("system.posix_acl_access", &list(4));
    let options = PackOptions { compression: Compression::None, ..PackOptions::default() };
    let (bytes, _) = pack(dir.path(), Vec::new(), &options).unwrap();

    let unpacked = |ownership| {
        let (out, result) = unpack(&bytes, &ExtractOptions { ownership, ..ExtractOptions::default() });
        result.unwrap();
        let get = |name: &str| {
            let mut value = vec![0; 100];
            let size = rustix::fs::getxattr(out.path().join("target/ping"), name, &mut value).unwrap();
            value.truncate(size);
            value
        };
        (get("security.capability"), get("system.posix_acl_access"))
    };
    let shifted = unpacked(Ownership::Shift { base: 100_000, count: 65_536 });
    assert_eq!(shifted, (words(&[0x0300_0001, 1 << 13, 0, 0, 0, 100_000]), list(100_004)));
    let kept = unpacked(Ownership::Keep);
    assert_eq!(kept, (words(&[0x0200_0001, 1 << 13, 0, 0, 0]), list(4)));
}

#[test]
fn times_are_clamped() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("new"), "x").unwrap();
    let options = PackOptions { epoch: 1000, compression: Compression::None, ..PackOptions::default() };
    let (bytes, _) = pack(dir.path(), Vec::new(), &options).unwrap();
    let mut text = Vec::new();
    (&bytes[..]).read_to_end(&mut text).unwrap();
    let (out, result) = unpack(&bytes, &ExtractOptions::default());
    result.unwrap();
    assert_eq!(fs::metadata(out.path().join("target/new")).unwrap().mtime(), 1000);
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_an_error_or_an_archive(data in proptest::collection::vec(0_u8.., 0..4096)) {
        let _ = unpack(&data, &ExtractOptions::default());
    }

    #[test]
    fn any_flipped_byte_stays_inside(at in 0_usize..4096, value in 0_u8..) {
        let mut archive = tar(&[entry("d", b'5', "", b""), file("d/x"), entry("l", b'2', "d", b""), pax(&[("path", "y")]), file("z")]);
        let at = at % archive.len();
        archive[at] = value;
        let _ = unpack(&archive, &ExtractOptions::default());
    }
}
