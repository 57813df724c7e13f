//! Pushes that are refused: by strangers, of others' products, of what is no image or not the one announced.

mod support;

use std::fs;
use std::io::{Read, Write};
use std::time::SystemTime;

use millstream_server::config::{Area, Push as Settings, Right};
use serde_json::{Value, json};
use support::pushing::{
    OWNER, QUICK, announce, announcement, area, build, open_server, pushed, send, send_all, server, uploads,
};
use support::serving::{Answer, Running};
use support::{Fixture, Image, snapshot};

const PRODUCT: &str = "debian:trixie";
const SERIAL: &str = "20260102_0000";

/// The answer to a head whose body never comes.
fn answer_to_head(server: &Running, target: &str, headers: &str) -> Answer {
    let mut stream = server.connect();
    write!(stream, "PATCH {target} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n{headers}\r\n")
        .unwrap();
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    while !bytes.windows(4).any(|window| window == b"\r\n\r\n") {
        let count = stream.read(&mut buffer).unwrap();
        assert!(count > 0, "an answer before the body");
        bytes.extend_from_slice(&buffer[..count]);
    }
    Answer::parse(&bytes)
}

#[test]
fn strangers_are_refused_before_anything_is_read() {
    let reading = Area { right: Right::Read, ..area("/", "mst_reader") };
    let server = server(vec![area("/images/debian", OWNER), reading], Settings::default());
    let before = snapshot(server.tree.root());
    let id = "0".repeat(64);
    for target in ["/push/v1", &format!("/push/v1/{id}/rootfs.tar.xz?offset=0"), "/push/v1/x/y/z"] {
        assert_eq!(answer_to_head(&server, target, "").status, 401, "{target}");
        for (token, status) in [("mst_guess", 401), ("mst_reader", 403)] {
            let answer = answer_to_head(&server, target, &format!("Authorization: Bearer {token}\r\n"));
            assert_eq!(answer.status, status, "{target} {token}");
        }
    }
    // Whoever may push need not be one who may read, and the other way round.
    let bearer = format!("Authorization: Bearer {OWNER}\r\n");
    assert_eq!(server.get("/index.html", &bearer).status, 403);
    assert_eq!(
        answer_to_head(&server, &format!("/push/v1/{id}/rootfs.tar.xz?offset=0"), &bearer).status,
        413
    );
    let debian = build(&server.tree, PRODUCT, SERIAL, 10);
    let error = pushed(server.address, "mst_guess", &debian, QUICK).unwrap_err().to_string();
    assert!(error.contains("--token-file"), "{error}");
    for product in ["alpine:3", "debianish:1"] {
        let dir = build(&server.tree, product, SERIAL, 10);
        let error = pushed(server.address, OWNER, &dir, QUICK).unwrap_err().to_string();
        assert!(error.contains("in no area"), "{error}");
    }
    assert_eq!(snapshot(server.tree.root()), before);
    assert!(pushed(server.address, OWNER, &debian, QUICK).unwrap().new);
    let log = server.log.lock().unwrap().join("\n");
    assert!(!log.contains("mst_") && !log.contains("Bearer"), "{log}");

    // Where nobody may push there is nothing.
    for server in [Running::start(), support::pushing::server(Vec::new(), Settings::default())] {
        let error = pushed(server.address, OWNER, &debian, QUICK).unwrap_err().to_string();
        assert!(error.contains("takes no pushes"), "{error}");
    }
}

#[test]
fn uploads_are_for_their_pusher_alone() {
    let server = server(vec![area("/", OWNER), area("/", "mst_other")], Settings::default());
    let dir = build(&server.tree, PRODUCT, SERIAL, 10);
    let announcement = announcement(&dir, PRODUCT, SERIAL);
    let upload = announce(&server, OWNER, &announcement);
    assert_ne!(announce(&server, "mst_other", &announcement), upload);
    let target = format!("{upload}/manifest.json?offset=0");
    assert_eq!(send(&server, "mst_other", "PATCH", &target, b"{").0, 404);
    assert_eq!(send(&server, "mst_other", "POST", &format!("{upload}/finish"), b"").0, 404);
    assert_eq!(send_all(&server, OWNER, &upload, &dir).1["state"], "published");
    assert_eq!(uploads(server.tree.root()).len(), 1, "the other's");
}

#[test]
fn what_is_not_as_announced_is_not_published() {
    let server = server(vec![area("/images/debian", OWNER)], Settings::default());
    let dir = build(&server.tree, PRODUCT, SERIAL, 10);
    let said = |answer: &(u16, Value)| answer.1["error"].as_str().unwrap_or_default().to_owned();
    let spoiled = |file: &str, spoil: &dyn Fn(&mut Vec<u8>)| {
        let upload = announce(&server, OWNER, &announcement(&dir, PRODUCT, SERIAL));
        let copy = server.tree.dir.path().join("copy");
        let _ = fs::remove_dir_all(&copy);
        fs::create_dir(&copy).unwrap();
        for item in fs::read_dir(&dir).unwrap().flatten() {
            fs::copy(item.path(), copy.join(item.file_name())).unwrap();
        }
        let mut bytes = fs::read(copy.join(file)).unwrap();
        spoil(&mut bytes);
        fs::write(copy.join(file), bytes).unwrap();
        (upload.clone(), send_all(&server, OWNER, &upload, &copy))
    };
    for file in ["rootfs.tar.xz", "manifest.json", "lxd.tar.xz", "build.log"] {
        let (upload, answer) = spoiled(file, &|bytes| bytes[3] ^= 1);
        assert!(
            answer.0 == 409 && said(&answer).contains(&format!("damaged on the way: {file}")),
            "{answer:?}"
        );
        // Only that file is asked for again.
        let (status, state) = send(
            &server,
            OWNER,
            "POST",
            "/push/v1",
            announcement(&dir, PRODUCT, SERIAL).to_string().as_bytes(),
        );
        assert_eq!((status, &state["offsets"][file]), (200, &json!(0)));
        assert!(state["offsets"]["incus.tar.xz"].as_u64() > Some(0));
        fs::remove_dir_all(&uploads(server.tree.root())[0]).unwrap();
        assert_eq!(send(&server, OWNER, "POST", &format!("{upload}/finish"), b"").0, 404);
    }
    // Manifests of others, of other files, or none.
    let alpine = build(&server.tree, "alpine:3", SERIAL, 10);
    let mut extra = announcement(&dir, PRODUCT, SERIAL);
    extra["files"]["unified.tar.xz"] = extra["files"]["lxd.tar.xz"].clone();
    for (announced, from, reason) in [
        (announcement(&alpine, PRODUCT, SERIAL), &alpine, "another image than was announced"),
        (announcement(&dir, PRODUCT, "20260102_0001"), &dir, "another image than was announced"),
        (extra, &dir, "not all"),
    ] {
        let upload = announce(&server, OWNER, &announced);
        let answer = send_all(&server, OWNER, &upload, from);
        assert!(said(&answer).contains(reason), "{answer:?}");
    }
    fs::write(dir.join("manifest.json"), "{}").unwrap();
    let upload = announce(&server, OWNER, &announcement(&dir, PRODUCT, SERIAL));
    assert_eq!(send_all(&server, OWNER, &upload, &dir).0, 422);
    // What is no image: metadata of another architecture, two names of one image.
    let mut image = Image::new("debian:trixie:amd64:default", SERIAL);
    image.kernel_architecture = "aarch64".into();
    server.log.lock().unwrap().clear();
    let error = pushed(server.address, OWNER, &server.tree.build(&image), QUICK).unwrap_err().to_string();
    let sent = server.log.lock().unwrap().iter().filter(|line| line.contains("lxd.tar.xz?")).count();
    assert_eq!(sent, 1, "what is no good is not sent again");
    assert!(error.contains("not added") && !error.contains(server.tree.root().to_str().unwrap()), "{error}");
    assert_eq!(server.tree.stream.list(SystemTime::now()).unwrap().len(), 1);
    assert_eq!(server.tree.problems(), "");
}

#[test]
fn aliases_of_others_are_not_taken() {
    let server = server(
        vec![area("/images/debian", OWNER), area("/images/debian/sid", "mst_sid")],
        Settings::default(),
    );
    let image = |release: &str, alias: &str| {
        let mut image = Image::new(&format!("debian:{release}:amd64:default"), SERIAL);
        image.release_aliases = vec![alias.into()];
        server.tree.build(&image)
    };
    let error = pushed(server.address, "mst_sid", &image("sid", "bookworm"), QUICK).unwrap_err().to_string();
    assert!(error.contains("not yours"), "{error}");
    assert!(pushed(server.address, "mst_sid", &image("sid", "trixie"), QUICK).unwrap().new, "nobody's yet");
    // A release has its own name back.
    assert!(pushed(server.address, OWNER, &image("trixie", "13"), QUICK).unwrap().new);
    let listed = server.tree.stream.list(SystemTime::now()).unwrap();
    let trixie = listed.iter().find(|image| image.product.release() == "trixie").unwrap();
    assert!(trixie.aliases.contains(&"debian/trixie".to_owned()), "{listed:#?}");
    assert_eq!(server.tree.problems(), "");
}

#[test]
fn bounds_are_kept() {
    let settings = Settings { max_size: 5000, uploads: 2, ..Settings::default() };
    let server = server(vec![area("/", OWNER)], settings);
    let announcing = |serial: &str, size: u64| {
        let file = json!({"size": size, "sha256": "0".repeat(64)});
        let text = json!({"product": "debian:trixie:amd64:default", "serial": serial,
            "files": {"manifest.json": file}});
        send(&server, OWNER, "POST", "/push/v1", text.to_string().as_bytes())
    };
    assert_eq!(announcing(SERIAL, 5001).0, 413);
    assert_eq!(announcing(SERIAL, u64::MAX).0, 400);
    assert_eq!(announcing("29990102_0000", 5).0, 400, "what would be the newest for ever");
    let (_, first) = announcing(SERIAL, 5);
    assert_eq!(announcing("20260102_0001", 5).0, 200);
    let (status, said) = announcing("20260102_0002", 5);
    assert!(status == 429 && said["error"].as_str().unwrap().contains("2 images"), "{said}");
    let upload = format!("/push/v1/{}", first["id"].as_str().unwrap());
    let piece =
        |target: &str, bytes: &[u8]| send(&server, OWNER, "PATCH", &format!("{upload}/{target}"), bytes);
    for (target, bytes, status) in [
        ("manifest.json", b"12".as_slice(), 400),
        ("manifest.json?offset=-1", b"12", 400),
        ("manifest.json?offset=3", b"45", 409),
        ("manifest.json?offset=18446744073709551615", b"45", 409),
        ("manifest.json?offset=0", b"123456", 400),
        ("rootfs.tar.xz?offset=0", b"12", 404),
        ("..%2fupload.json?offset=0", b"12", 404),
        ("..?offset=0", b"12", 404),
        ("manifest.json?offset=0", b"12", 200),
    ] {
        assert_eq!(piece(target, bytes).0, status, "{target}");
    }
    assert_eq!(piece("manifest.json?offset=0", b"12").1["offset"], 2);
    assert_eq!(send(&server, OWNER, "POST", "/push/v1", &vec![b' '; 70_000]).0, 413);
    for (method, target) in [("GET", "/push/v1"), ("PUT", "/push/v1/a/b"), ("GET", "/push/v1/a/finish")] {
        assert_eq!(send(&server, OWNER, method, target, b"").0, 405, "{method} {target}");
    }
}

#[test]
fn hostile_names_lead_nowhere() {
    let server = open_server();
    let before = snapshot(server.tree.root());
    let file = json!({"size": 1, "sha256": "0".repeat(64)});
    for name in
        ["../x", "/etc/x", "a/b", ".", "..", "", "index.html", "evil.js", "rootfs.tar.xz.asc", "x\u{0}"]
    {
        let text = json!({"product": "debian:trixie:amd64:default", "serial": SERIAL,
            "files": {"manifest.json": file, name: file}});
        assert_eq!(send(&server, OWNER, "POST", "/push/v1", text.to_string().as_bytes()).0, 400, "{name:?}");
    }
    for (product, serial) in [("../../x:a:amd64:default", SERIAL), ("a:b:amd64:default", "../20260102")] {
        let text = json!({"product": product, "serial": serial, "files": {"manifest.json": file}});
        assert_eq!(send(&server, OWNER, "POST", "/push/v1", text.to_string().as_bytes()).0, 400, "{product}");
    }
    for id in ["..", "../..", "%2e%2e", ".", &"A".repeat(64), ""] {
        let target = format!("/push/v1/{id}/manifest.json?offset=0");
        let (status, _) = send(&server, OWNER, "PATCH", &target, b"1");
        assert!(matches!(status, 404 | 405), "{target}: {status}");
    }
    assert_eq!(snapshot(server.tree.root()), before);
    let tree = Fixture::new();
    let keys = millstream_server::keys::KeyStore::new(tree.dir.path().join("none"));
    let error = millstream_server::push::Push::open(
        tree.stream.clone(),
        keys,
        Settings::default(),
        std::sync::Arc::new(|_| {}),
    );
    assert!(error.err().unwrap().to_string().contains("fingerprint"), "no key, no pushes");
}
