//! Unified archives in streams, and `/direct/ALIAS`, by which LXD and Incus import them.

mod support;

use std::fs::{self, File};
use std::path::Path;

use millstream_image::Sha256Digest;
use millstream_image::archive::{Compression, Limits, inspect};
use millstream_image::simplestreams::{Products, Version};
use millstream_server::config::{Area, Right};
use millstream_server::http::{Gate, Limits as Bounds, Tls};
use millstream_server::stream::Stream;
use support::serving::{Answer, ROOTFS, Running};
use support::{Fixture, Image, signing};

const PRODUCT: &str = "debian:bookworm:amd64:default";
const TYPES: [&str; 2] = ["lxd_combined.tar.gz", "incus_combined.tar.gz"];

fn version(root: &Path, serial: &str) -> Version {
    let bytes = fs::read(root.join("streams/v1/images-debian.json")).unwrap();
    Products::parse(&bytes).unwrap().products[PRODUCT].versions[serial].clone()
}

fn add_unified(tree: &Fixture, image: &Image) -> millstream_server::stream::Added {
    let stream = Stream::open(tree.root()).unwrap().with_unified(true);
    stream.add(&tree.build(image), &signing(&tree.key)).unwrap()
}

#[test]
fn a_unified_archive_is_listed_for_both_clients_and_changes_no_fingerprint() {
    let (plain, tree) = (Fixture::new(), Fixture::new());
    let serial = "20260101_0000";
    let without = plain.add(&Image::new(PRODUCT, serial)).unwrap();
    let added = tree.add(&Image { unified: "unified.tar.zst", ..Image::new(PRODUCT, serial) }).unwrap();
    assert_eq!(added.fingerprint, without.fingerprint);
    let (version, file) = (version(tree.root(), serial), added.path.join("unified.tar.zst"));
    for ftype in TYPES {
        let item = &version.items[ftype];
        assert_eq!((item.ftype.as_str(), tree.root().join(&item.path)), (ftype, file.clone()));
        assert_eq!(item.sha256, Some(Sha256Digest::of(&fs::read(&file).unwrap())));
        assert_eq!(item.size, fs::metadata(&file).unwrap().len());
    }
    assert_eq!(tree.problems(), "");
    fs::remove_dir_all(tree.root().join("streams/v1")).unwrap();
    fs::remove_dir_all(tree.root().join("meta/1.0")).unwrap();
    Stream::repair(tree.root(), &signing(&tree.key)).unwrap();
    assert_eq!(self::version(tree.root(), serial), version);
    assert_eq!(tree.problems(), "");
}

#[test]
fn one_is_made_of_the_parts_where_that_is_asked_for() {
    let tree = Fixture::new();
    let image = Image { data: vec![7; 3 << 20], ..Image::new(PRODUCT, "20260101_0000") };
    let added = add_unified(&tree, &image);
    let file = added.path.join("unified.tar.xz");
    let contents = inspect(File::open(&file).unwrap(), &Limits::default()).unwrap();
    assert!(contents.has_rootfs && contents.metadata.contains_key(Path::new("metadata.yaml")));
    assert_eq!(tree.problems(), "");
    let before = support::snapshot(tree.root());
    assert!(!add_unified(&tree, &image).new && !tree.add(&image).unwrap().new, "the same image again");
    assert_eq!(support::snapshot(tree.root()), before);
    // What a build brings is not made again.
    let image = Image { unified: "unified.tar.zst", ..Image::new(PRODUCT, "20260102_0000") };
    let added = add_unified(&tree, &image);
    let start = fs::read(added.path.join("unified.tar.zst")).unwrap();
    assert_eq!(Compression::detect(&start[..6]), Compression::Zstd);
    assert!(!added.path.join("unified.tar.xz").exists());
    assert_eq!(tree.problems(), "");
    // Damage is found.
    let mut bytes = fs::read(&file).unwrap();
    bytes[100] ^= 1;
    fs::write(&file, bytes).unwrap();
    assert_eq!(tree.problems().matches("unified.tar.xz: SHA-256").count(), 1, "{}", tree.problems());
}

#[test]
fn images_whose_archive_is_for_another_architecture_are_refused() {
    let tree = Fixture::new();
    let dir = tree.build(&Image { unified: "unified.tar.xz", ..Image::new(PRODUCT, "20260101_0000") });
    let other =
        Image { unified: "unified.tar.xz", ..Image::new("debian:bookworm:arm64:default", "20260101_0000") };
    let other = tree.build(&other);
    fs::copy(other.join("unified.tar.xz"), dir.join("unified.tar.xz")).unwrap();
    let error = tree.stream.add(&dir, &signing(&tree.key)).unwrap_err().to_string();
    assert!(error.contains("unified.tar.xz is for aarch64"), "{error}");
}

fn served() -> Running {
    let server = Running::start();
    let add = |product: &str, serial: &str| add_unified(&server.tree, &Image::new(product, serial));
    add(PRODUCT, "20260102_0000");
    add("debian:bookworm:arm64:default", "20260102_0000");
    add("debian:bookworm:armhf:cloud", "20260102_0000");
    server
}

fn stated<'a>(answer: &'a Answer, family: &str) -> (&'a str, &'a str) {
    let get = |what: &str| answer.header(&format!("{family}-Image-{what}")).unwrap_or_default();
    (get("Hash"), get("URL"))
}

#[test]
fn headers_lead_to_the_archive_of_the_architecture() {
    let server = served();
    let arm64 = "/images/debian/bookworm/arm64/default/20260102_0000/unified.tar.xz";
    let amd64 = arm64.replace("arm64", "amd64");
    for (alias, headers, path) in [
        ("debian/bookworm", "", amd64.as_str()),
        ("debian/bookworm/default", "LXD-Server-Architectures: aarch64, armv7l\r\n", arm64),
        (
            "debian/bookworm",
            "LXD-Server-Architectures: s390x, aarch64\r\nLXD-Server-Version: 5.0.2\r\n",
            arm64,
        ),
        (
            "debian/bookworm",
            "Incus-Server-Architectures: x86_64,i686\r\nIncus-Server-Version: 6.0\r\n",
            &amd64,
        ),
        ("debian/bookworm/arm64", "LXD-Server-Architectures: x86_64, i686\r\n", arm64),
        ("debian/bookworm/aarch64", "", arm64),
        ("debian//bookworm", "", &amd64),
        ("%64ebian/bookworm", "", &amd64),
    ] {
        for method in ["HEAD", "GET"] {
            let answer = server.request(method, &format!("/direct/{alias}"), headers);
            assert_eq!(answer.status, 200, "{alias} {headers}");
            let (hash, url) = stated(&answer, "LXD");
            assert_eq!((hash, url), stated(&answer, "Incus"));
            assert_eq!(url, format!("https://x{path}"), "{alias} {headers}");
            assert_eq!(hash, Sha256Digest::of(&server.file(path)).to_string());
            assert!(answer.header("vary").unwrap().contains("lxd-server-architectures"));
            assert_eq!(answer.header("cache-control"), Some("no-cache"));
            assert_eq!(answer.body.is_empty(), method == "HEAD");
        }
    }
    assert_eq!(server.get(arm64, "").body, server.file(arm64));
}

#[test]
fn what_there_is_not_is_said() {
    let server = served();
    server.tree.add(&Image::new("debian:trixie:amd64:default", "20260102_0000")).unwrap();
    let zstd =
        Image { unified: "unified.tar.zst", ..Image::new("debian:sid:amd64:default", "20260102_0000") };
    server.tree.add(&zstd).unwrap();
    for (path, headers, status, reason) in [
        ("debian/woody", "", 404, "no image debian/woody"),
        ("debian/bookworm", "LXD-Server-Architectures: s390x\r\n", 404, "for amd64, arm64, but not"),
        ("debian/bookworm", "LXD-Server-Architectures: ,;\r\n", 404, "but not"),
        ("debian/bookworm/riscv64", "", 404, "but not"),
        ("debian/trixie", "", 404, "stream add --unified"),
        ("debian/sid", "LXD-Server-Version: 4.0.9\r\n", 404, "4.9"),
        ("debian/sid", "LXD-Server-Version: 5.0.2\r\n", 200, "unified.tar.zst"),
        ("debian/../debian/bookworm", "", 404, "ALIAS"),
        ("..%2f..%2fetc/passwd", "", 400, "not a path"),
        ("debian/bookworm/", "", 404, "ALIAS"),
    ] {
        let answer = server.get(&format!("/direct/{path}"), headers);
        let body = String::from_utf8(answer.body.clone()).unwrap();
        assert!(answer.status == status && body.contains(reason), "{path}: {} {body}", answer.status);
        assert_eq!(stated(&answer, "LXD").0.is_empty(), status != 200, "{path}");
    }
    assert_eq!(server.request("POST", "/direct/debian/bookworm", "").status, 405);
}

#[test]
fn the_host_is_a_host() {
    use std::io::{Read, Write};
    let server = served();
    for (host, status) in [
        ("Host: images.example:8443\r\n", 200),
        ("", 400),
        ("Host: a@b\r\n", 400),
        ("Host: a/b\r\n", 400),
        ("Host: a b\r\n", 400),
    ] {
        let mut stream = server.connect();
        write!(stream, "GET /direct/debian/bookworm HTTP/1.1\r\nConnection: close\r\n{host}\r\n").unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        let answer = Answer::parse(&bytes);
        assert_eq!(answer.status, status, "{host}");
        if status == 200 {
            assert!(stated(&answer, "LXD").1.starts_with("https://images.example:8443/images/"));
        }
    }
}

#[test]
fn private_images_are_for_those_who_may_see_them() {
    let token = "one";
    let areas = vec![Area {
        path: "/images/debian".into(),
        right: Right::Read,
        tokens: vec![Sha256Digest::of(token.as_bytes())],
        certificates: Vec::new(),
    }];
    let gate = |_: &Fixture| Gate { areas, ..Gate::default() };
    let server = Running::guarded(Tls::Off, Bounds::default(), gate);
    add_unified(&server.tree, &Image::new(PRODUCT, "20260102_0000"));
    add_unified(&server.tree, &Image::new("alpine:3:amd64:default", "20260102_0000"));
    let nobody = server.get("/direct/debian/bookworm", "");
    let none = server.get("/direct/debian/woody", "");
    assert_eq!((nobody.status, none.status), (404, 404), "not even that it is there");
    assert_eq!(stated(&nobody, "LXD"), ("", ""));
    let text = String::from_utf8(nobody.body).unwrap();
    assert_eq!(text.replace("bookworm", "woody").into_bytes(), none.body);
    let known = server.get("/direct/debian/bookworm", &format!("Authorization: Bearer {token}\r\n"));
    assert!(known.status == 200 && known.header("cache-control").unwrap().contains("private"));
    assert_eq!(server.get("/direct/alpine/3", "").status, 200, "the rest is open");
    let (_, url) = stated(&known, "LXD");
    assert_eq!(server.get(url.strip_prefix("https://x").unwrap(), "").status, 401);
    assert_eq!(server.get(ROOTFS, "").status, 401);
}

#[test]
fn maps_for_other_servers_follow_what_is_published() {
    let tree = Fixture::new();
    let map = tree.root().join(".documents/current/direct/debian.map");
    add_unified(&tree, &Image::new(PRODUCT, "20260101_0000"));
    let first = fs::read_to_string(&map).unwrap();
    assert!(first.contains("/20260101_0000/unified.tar.xz ;\n"), "{first}");
    add_unified(&tree, &Image::new("alpine:3:amd64:default", "20260101_0000"));
    assert_eq!(fs::read_to_string(&map).unwrap(), first);
    add_unified(&tree, &Image::new(PRODUCT, "20260102_0000"));
    let second = fs::read_to_string(&map).unwrap();
    assert!(!second.contains("20260101_0000") && second.contains("20260102_0000"), "{second}");
    assert_eq!(tree.problems(), "");
    fs::write(&map, first).unwrap();
    assert!(tree.problems().contains("debian.map: it does not name the newest"), "{}", tree.problems());
    // As a tree of an older version: what changes next has one, the rest when documents are signed.
    fs::remove_dir_all(map.parent().unwrap()).unwrap();
    tree.add(&Image::new("alpine:3:amd64:cloud", "20260103_0000")).unwrap();
    assert!(!map.exists());
    tree.stream.sign(&signing(&tree.key)).unwrap();
    assert_eq!(fs::read_to_string(&map).unwrap(), second);
    assert_eq!(tree.problems(), "");
}
