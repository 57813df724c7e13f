//! Hostile archives made by combining: every way an archive can name a path, with every path that leads
//! out, for every type of entry. And odd but good ones, which must come out as GNU tar unpacks them. Needs
//! root, as unpacking owners does.

#[path = "support/forge.rs"]
mod forge;
mod support;

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use flate2::Compression;
use flate2::write::GzEncoder;
use forge::{entry, file, pax, raw, tar};
use millstream_image::archive::{Devices, ExtractOptions, Limits, extract};
use support::listing::{listing, same};

const DIRECTORY: u8 = b'5';
const TYPES: [(&str, u8); 6] = [
    ("file", b'0'),
    ("hard link", b'1'),
    ("symlink", b'2'),
    ("device", b'3'),
    ("directory", DIRECTORY),
    ("fifo", b'6'),
];

/// Unpacks into a directory with a host around it, and checks that the host is as before.
fn unpack(name: &str, archive: &[u8], limits: &Limits) -> Result<u64, String> {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("host/target");
    fs::create_dir_all(&target).unwrap();
    fs::create_dir(dir.path().join("host/directory")).unwrap();
    fs::write(dir.path().join("host/outside"), "safe").unwrap();
    symlink("outside", dir.path().join("host/link")).unwrap();
    let around = || {
        let mut lines = listing(dir.path());
        lines.retain(|path, _| !path.starts_with("host/target"));
        lines
    };
    let before = around();
    let options =
        ExtractOptions { devices: Devices::Create, limits: limits.clone(), ..ExtractOptions::default() };
    let result = extract(archive, &target, &options).map(|done| done.entries).map_err(|e| e.to_string());
    assert_eq!(around(), before, "{name}: the host has changed");
    result
}

fn assert_refused(name: &str, archive: &[u8]) {
    let result = unpack(name, archive, &Limits::default());
    assert!(result.is_err(), "{name}: accepted {result:?}");
}

/// An entry of this type called `path`, in each way an archive can say so.
fn named(path: &str, kind: u8) -> Vec<(&'static str, Vec<u8>)> {
    let link = if matches!(kind, b'1' | b'2') { "f" } else { "" };
    let plain = entry("x", kind, link, b"");
    let mut ways = vec![
        ("pax", tar(&[file("f"), pax(&[("path", path)]), plain.clone()])),
        ("gnu", tar(&[file("f"), entry("././@LongLink", b'L', "", format!("{path}\0").as_bytes()), plain])),
    ];
    if path.len() <= 100 {
        ways.push(("ustar", tar(&[file("f"), entry(path, kind, link, b"")])));
    }
    if let Some((prefix, name)) =
        path.rsplit_once('/').filter(|(prefix, name)| !prefix.is_empty() && !name.is_empty())
    {
        let at = |block: &mut [u8]| block[345..345 + prefix.len()].copy_from_slice(prefix.as_bytes());
        if prefix.len() <= 155 {
            ways.push(("prefix", tar(&[file("f"), raw(name.as_bytes(), kind, link.as_bytes(), b"", at)])));
        }
    }
    ways
}

#[test]
fn no_type_of_entry_gets_out_by_any_way_of_naming() {
    let mut count = 0;
    for (kind_name, kind) in TYPES {
        for path in [
            "../outside",
            "..",
            "../../up",
            "a/../../outside",
            "./../outside",
            "a/..",
            "a/../b",
            "/outside",
            "/",
            "//outside",
            "/../outside",
            "../directory/x",
            "../link",
            ".//../outside",
            "../target-2",
        ] {
            for (way, archive) in named(path, kind) {
                assert_refused(&format!("{kind_name} {path:?} by {way}"), &archive);
                count += 1;
            }
        }
    }
    assert!(count > 250, "{count} archives");
}

#[test]
fn no_link_is_a_way_out() {
    let mut count = 0;
    for target in
        ["..", "../outside", "../directory", "/", ".", "../..", "/proc/self/cwd", "/proc/self/root", "l", "f"]
    {
        // Below a link, over a link, and a hard link to or through one.
        for (kind_name, kind) in TYPES {
            let link = if matches!(kind, b'1' | b'2') { "f" } else { "" };
            for path in ["l/outside", "l/directory/x", "l/new", "./l/x", "l"] {
                let entries = [file("f"), entry("l", b'2', target, b""), entry(path, kind, link, b"")];
                assert_refused(&format!("{kind_name} at {path} with l -> {target}"), &tar(&entries));
                count += 1;
            }
        }
        for to in ["l", "l/outside", "l/f"] {
            let entries = [file("f"), entry("l", b'2', target, b""), entry("h", b'1', to, b"")];
            assert_refused(&format!("hard link to {to} with l -> {target}"), &tar(&entries));
            // The same by a long name.
            let long = [
                file("f"),
                entry("l", b'2', target, b""),
                pax(&[("linkpath", to)]),
                entry("h", b'1', "", b""),
            ];
            assert_refused(&format!("hard link to {to} by pax, l -> {target}"), &tar(&long));
        }
        // Links after links.
        let chain = [entry("a", b'2', target, b""), entry("b", b'2', "a", b""), file("b/outside")];
        assert_refused(&format!("chain to {target}"), &tar(&chain));
    }
    for to in ["../outside", "/etc/passwd", "../link", "missing", "..", ".", "", "h", "d", "d/../f"] {
        let entries = [file("f"), entry("d", DIRECTORY, "", b""), entry("h", b'1', to, b"")];
        assert_refused(&format!("hard link to {to:?}"), &tar(&entries));
    }
    assert!(count > 250, "{count} archives");
}

/// A header with these bytes at this place.
fn with(at: usize, bytes: &[u8]) -> Vec<u8> {
    tar(&[raw(b"x", b'0', b"", b"", |block| block[at..at + bytes.len()].copy_from_slice(bytes))])
}

#[test]
fn no_broken_number_or_magic_is_read_as_another() {
    const FIELDS: [(&str, usize, usize); 4] =
        [("mode", 100, 8), ("uid", 108, 8), ("gid", 116, 8), ("size", 124, 12)];
    for (field, at, length) in FIELDS {
        for bad in [&b"-1"[..], b"0x1", b"9", b"1 1", b"\xff", b"abc", b"+1", b"1.5", b"\x01"] {
            let mut bytes = vec![0; length];
            bytes[..bad.len()].copy_from_slice(bad);
            assert_refused(&format!("{field} {bad:?}"), &with(at, &bytes));
        }
    }
    for kind in [b'A', b'D', b'M', b'N', b'S', b'V', b'K' + 1, b'Z', 0xff, 1] {
        assert_refused(&format!("type {kind:#x}"), &tar(&[entry("x", kind, "", b"")]));
    }
    for magic in [&b"ustax\x0000"[..], b"USTAR\x0000", b"star\0\0\0\0", b"\0\0\0\0\0\0\0\0"] {
        assert_refused(&format!("magic {magic:?}"), &with(257, magic));
    }
    // Each bit of the header counts for its sum.
    let good = tar(&[file("x")]);
    unpack("good", &good, &Limits::default()).unwrap();
    for at in (0..512).step_by(7).filter(|at| !(148..156).contains(at)) {
        let mut bad = good.clone();
        bad[at] ^= 0x20;
        assert_refused(&format!("flipped at {at}"), &bad);
    }
}

#[test]
fn no_broken_extended_header_is_passed_over() {
    for data in [
        &b"0 \n"[..],
        b"5 a=b",
        b"6 a=b\n7",
        b"7 a=b\n",
        b"99 a=b\n",
        b"6 ab=\n\n",
        b"-6 a=b\n",
        b" 6 a=b\n",
        b"06a=b\n",
        b"5 =b\n",
        b"6 abc\n",
        b"99999999999999999999 a=b\n",
        b"a=b\n",
        b"\0",
        b"18446744073709551622 a=b\n",
    ] {
        assert_refused(
            &format!("{:?}", data.escape_ascii().to_string()),
            &tar(&[entry("p", b'x', "", data), file("x")]),
        );
    }
    for (key, value) in [
        ("size", "x"),
        ("size", "+4"),
        ("size", "18446744073709551616"),
        ("uid", "-1"),
        ("uid", "4294967295"),
        ("uid", "4294967296"),
        ("gid", "4294967295"),
        ("gid", "x"),
        ("mtime", ""),
        ("mtime", "1e9"),
        ("mtime", "--1"),
        ("mtime", "1.2.3"),
        ("SCHILY.xattr.trusted.x", "v"),
        ("SCHILY.xattr.", "v"),
        ("SCHILY.xattr.system.x", "v"),
        ("GNU.volume.filename", "x"),
        ("path", ""),
    ] {
        assert_refused(&format!("{key}={value}"), &tar(&[pax(&[(key, value)]), file("x")]));
    }
    for records in
        [&[("path", "y")][..], &[("GNU.volume.filename", "x"), ("GNU.volume.offset", "2")], &[("uid", "0")]]
    {
        assert_refused(&format!("global {records:?}"), &tar(&[as_global(pax(records)), file("x")]));
    }
}

/// An extended header made to count for all entries.
fn as_global(mut header: Vec<u8>) -> Vec<u8> {
    header[156] = b'g';
    header[148..156].fill(b' ');
    let sum: u32 = header[..512].iter().map(|b| u32::from(*b)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

#[test]
fn no_cut_or_lengthened_archive_is_accepted() {
    let whole = tar(&[entry("d", DIRECTORY, "", b""), file("d/x")]);
    let packed = |name| match name {
        "gzip" => gzip(&whole),
        "zstd" => zstd::encode_all(&whole[..], 1).unwrap(),
        "xz" => xz(&whole),
        _ => whole.clone(),
    };
    for name in ["plain", "gzip", "zstd", "xz"] {
        let good = packed(name);
        unpack(name, &good, &Limits::default()).unwrap();
        for left in (0..good.len()).step_by(good.len().div_ceil(40)) {
            assert_refused(&format!("{name}, {left} bytes left"), &good[..left]);
        }
        assert_refused(&format!("{name}, last byte gone"), &good[..good.len() - 1]);
        for more in [&b"x"[..], b"\0x", &good[..good.len() / 2], &[0xff; 600]] {
            assert_refused(&format!("{name}, {} bytes more", more.len()), &[&good[..], more].concat());
        }
    }
}

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn xz(data: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut encoder = liblzma::write::XzEncoder::new(&mut out, 0);
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap();
    out
}

#[test]
fn no_limit_is_passed() {
    let limits =
        Limits { entries: 20, unpacked: 1 << 20, header: 4096, depth: 8, xattrs: 4, ..Limits::default() };
    let check = |name: &str, archive: &[u8]| {
        assert!(unpack(name, archive, &limits).is_err(), "{name}");
        // It is the limit that refuses it.
        unpack(name, archive, &Limits::default()).unwrap_or_else(|e| panic!("{name}: {e}"));
    };
    let many = |count| (0..count).map(|i| file(&format!("f{i}"))).collect::<Vec<_>>();
    check("entries", &tar(&many(21)));
    unpack("as many as may be", &tar(&many(20)), &limits).unwrap();
    check(
        "links count",
        &tar(&[vec![file("f")], (0..20).map(|i| entry(&format!("h{i}"), b'1', "f", b"")).collect()].concat()),
    );
    let big = tar(&[entry("big", b'0', "", &vec![0; 2 << 20])]);
    for (name, archive) in [
        ("plain", big.clone()),
        ("gzip", gzip(&big)),
        ("xz", xz(&big)),
        ("zstd", zstd::encode_all(&big[..], 1).unwrap()),
    ] {
        check(name, &archive);
    }
    check("depth", &tar(&[entry(&"d/".repeat(9), DIRECTORY, "", b"")]));
    check("a large header", &tar(&[pax(&[("comment", &"x".repeat(5000))]), file("x")]));
    let names: Vec<_> = (0..5).map(|i| format!("SCHILY.xattr.user.{i}")).collect();
    let records: Vec<_> = names.iter().map(|name| (name.as_str(), "v")).collect();
    check("attributes", &tar(&[pax(&records), file("x")]));
}

/// Good archives, however odd. Each begins with its root, so that all of it is the archive's.
fn odd_but_good() -> Vec<(&'static str, Vec<u8>)> {
    let mode = |name: &str, kind, text: &'static [u8; 7]| {
        raw(name.as_bytes(), kind, b"", b"", move |b| b[100..107].copy_from_slice(text))
    };
    let all = |entries: &[Vec<u8>]| tar(&[&[mode("./", DIRECTORY, b"0000755")], entries].concat());
    let tagged = |records: &[(&str, &str)], name: &str| all(&[pax(records), file(name)]);
    let directory = |name: &str| mode(name, DIRECTORY, b"0000755");
    let long = format!("{}/{}", "d".repeat(200), "n".repeat(255));
    let base = all(&[directory("d"), file("d/x"), entry("l", b'2', "d/x", b"")]);
    let two = |pack: &dyn Fn(&[u8]) -> Vec<u8>| [pack(&base[..700]), pack(&base[700..])].concat();
    let skippable =
        [&b"\x50\x2a\x4d\x18\x04\0\0\0skip"[..], &zstd::encode_all(&base[..], 1).unwrap()].concat();
    vec![
        ("nothing but the root", all(&[])),
        ("an empty file", all(&[entry("x", b'0', "", b"")])),
        ("a file of one block", all(&[entry("x", b'0', "", &[7; 512])])),
        ("a file of the old type", all(&[entry("x", 0, "", b"data")])),
        ("dots and slashes", all(&[directory("./d/"), file("./d//x"), file("././y")])),
        ("parents that are not there", all(&[directory("a"), directory("a/b"), file("a/b/c")])),
        ("an absolute symlink", all(&[entry("l", b'2', "/etc/passwd", b"")])),
        ("a symlink that leads out", all(&[entry("l", b'2', "../../../outside", b"")])),
        (
            "symlinks in a circle",
            all(&[entry("a", b'2', "b", b""), entry("b", b'2', "a", b""), entry("c", b'2', "c", b"")]),
        ),
        ("a long symlink", all(&[pax(&[("linkpath", &"t/".repeat(400))]), entry("l", b'2', "t", b"")])),
        (
            "a symlink by GNU's long name",
            all(&[
                entry("././@LongLink", b'K', "", format!("{}\0", "t/".repeat(90)).as_bytes()),
                entry("l", b'2', "t", b""),
            ]),
        ),
        (
            "hard links",
            all(&[
                file("f"),
                entry("g", b'1', "f", b""),
                entry("h", b'1', "g", b""),
                entry("i", b'1', "./f", b""),
            ]),
        ),
        ("a hard link to a FIFO", all(&[entry("f", b'6', "", b""), entry("g", b'1', "f", b"")])),
        (
            "setuid, setgid, sticky",
            all(&[
                mode("u", b'0', b"0004755"),
                mode("g", b'0', b"0002755"),
                mode("t", DIRECTORY, b"0001777"),
            ]),
        ),
        ("mode 0", all(&[mode("f", b'0', b"0000000"), mode("d", DIRECTORY, b"0000000"), file("d/x")])),
        (
            "a read-only directory with children",
            all(&[mode("d", DIRECTORY, b"0000555"), file("d/x"), directory("d/e"), file("d/e/y")]),
        ),
        (
            "a character device",
            all(&[raw(b"null", b'3', b"", b"", |b| {
                b[329..336].copy_from_slice(b"0000001");
                b[337..344].copy_from_slice(b"0000003");
            })]),
        ),
        (
            "a block device",
            all(&[raw(b"loop", b'4', b"", b"", |b| {
                b[329..336].copy_from_slice(b"0000007");
                b[337..344].copy_from_slice(b"0000001");
            })]),
        ),
        (
            "other owners",
            all(&[raw(b"x", b'0', b"", b"", |b| {
                b[108..115].copy_from_slice(b"0001750");
                b[116..123].copy_from_slice(b"0000062");
            })]),
        ),
        (
            "owners in base 256",
            all(&[raw(b"x", b'0', b"", b"", |b| {
                b[108..116].copy_from_slice(&[0x80, 0, 0, 0, 0, 0x2d, 0xc6, 0xc0]);
            })]),
        ),
        ("owners by pax", tagged(&[("uid", "3000000"), ("gid", "4000000000")], "x")),
        (
            "names of owners that do not exist",
            all(&[raw(b"x", b'0', b"", b"", |b| b[265..270].copy_from_slice(b"nouse"))]),
        ),
        ("a time before 1970", tagged(&[("mtime", "-1000.25")], "x")),
        ("a time in parts of a second", tagged(&[("mtime", "1700000000.123456789")], "x")),
        ("a time after 2038", tagged(&[("mtime", "4000000000")], "x")),
        (
            "a size by pax",
            all(&[
                pax(&[("size", "4")]),
                raw(b"x", b'0', b"", b"data", |b| b[124..135].copy_from_slice(b"00000000000")),
            ]),
        ),
        ("attributes", tagged(&[("SCHILY.xattr.user.a", "1"), ("SCHILY.xattr.user.b", "two\nlines")], "x")),
        ("a comment", tagged(&[("comment", "x=y\nz")], "x")),
        (
            "names that are not UTF-8",
            all(&[raw(b"\xff\xfe", b'0', b"", b"", |_| {}), raw(b"a\n\t\x1b[0m", b'0', b"", b"", |_| {})]),
        ),
        ("names like options", all(&[file("-rf"), file("--help"), file("*"), file("a b")])),
        ("three dots", all(&[file("..."), file("..x"), file("x..")])),
        ("a full name", all(&[file(&"n".repeat(100))])),
        (
            "a long name by pax",
            all(&[
                directory(&"d".repeat(99)),
                pax(&[("path", &format!("{}/{}", "d".repeat(99), "n".repeat(255)))]),
                file("x"),
            ]),
        ),
        (
            "a long name by GNU",
            all(&[
                pax(&[("path", &"d".repeat(200))]),
                directory("x"),
                entry("././@LongLink", b'L', "", format!("{long}\0").as_bytes()),
                file("x"),
            ]),
        ),
        (
            "a name in two parts",
            all(&[directory("p"), raw(b"x", b'0', b"", b"", |b| b[345..346].copy_from_slice(b"p"))]),
        ),
        ("a directory twice", all(&[directory("d"), file("d/x"), mode("d", DIRECTORY, b"0000700")])),
        ("ends with many zeros", [base.clone(), vec![0; 10 << 10]].concat()),
        ("several members of gzip", two(&gzip)),
        ("several streams of xz", two(&xz)),
        ("padding of xz", [xz(&base), vec![0; 8]].concat()),
        ("several frames of zstd", two(&|part| zstd::encode_all(part, 1).unwrap())),
        ("a frame of zstd to skip", skippable),
    ]
}

/// What GNU tar makes of it.
fn by_gnu_tar(name: &str, archive: &Path, target: &Path) {
    fs::create_dir(target).unwrap();
    let mut tar = Command::new("tar");
    tar.args([
        "--xattrs",
        "--xattrs-include=*",
        "--numeric-owner",
        "--same-owner",
        "--delay-directory-restore",
    ]);
    let out = tar.arg("-xpf").arg(archive).arg("-C").arg(target).env("LC_ALL", "C").output();
    let out = out.expect("this test needs GNU tar");
    assert!(out.status.success(), "{name}: {}", String::from_utf8_lossy(&out.stderr));
}

#[test]
fn odd_but_good_archives_come_out_as_from_gnu_tar() {
    let cases = odd_but_good();
    assert!(cases.len() >= 40);
    for (name, archive) in cases {
        let dir = tempfile::tempdir().unwrap();
        let (ours, theirs) = (dir.path().join("ours"), dir.path().join("theirs"));
        fs::create_dir(&ours).unwrap();
        let options = ExtractOptions { devices: Devices::Create, ..ExtractOptions::default() };
        extract(&archive[..], &ours, &options).unwrap_or_else(|e| panic!("{name}: {e}"));
        let file = dir.path().join("archive");
        // GNU tar knows zstd by its first frame only, and has no decoder of its own.
        let zstd = archive.get(1..4) == Some(b"\xb5\x2f\xfd") || archive.starts_with(b"\x50\x2a\x4d\x18");
        let archive = if zstd { zstd::decode_all(&archive[..]).unwrap() } else { archive };
        fs::write(&file, archive).unwrap();
        by_gnu_tar(name, &file, &theirs);
        same(&ours, &theirs, name);
    }
}
