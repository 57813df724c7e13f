//! LXD's and Incus' public API, metrics and health, as their clients read them.

mod support;

use serde_json::Value;
use support::serving::{ROOTFS, Running};
use support::{Image, signing};

fn json(server: &Running, target: &str) -> Value {
    let answer = server.get(target, "");
    assert_eq!(answer.header("content-type"), Some("application/json"), "{target}");
    let body: Value = serde_json::from_slice(&answer.body).unwrap();
    let status = if answer.status == 200 { &body["status_code"] } else { &body["error_code"] };
    assert_eq!(status.as_u64(), Some(answer.status.into()), "{target}: {body}");
    body
}

fn start() -> (Running, String) {
    let server = Running::start();
    server.tree.add(&Image::new("debian:bookworm:arm64:default", "20260102_0000")).unwrap();
    let listed = server.tree.stream.list(std::time::SystemTime::now()).unwrap();
    let first = listed.iter().find(|image| image.product.architecture().debian() == "amd64").unwrap();
    (server, first.fingerprint.unwrap().to_string())
}

#[test]
fn server_says_that_it_is_public() {
    let (server, _) = start();
    let about = json(&server, "/1.0")["metadata"].clone();
    assert_eq!((&about["public"], &about["auth"]), (&true.into(), &"untrusted".into()));
    assert_eq!(about["api_version"], "1.0");
}

#[test]
fn images_and_aliases_are_listed_and_found() {
    let (server, fingerprint) = start();
    let urls = json(&server, "/1.0/images")["metadata"].clone();
    assert_eq!(urls.as_array().unwrap().len(), 2);
    assert!(urls.as_array().unwrap().contains(&format!("/1.0/images/{fingerprint}").into()));
    let all = json(&server, "/1.0/images?recursion=1")["metadata"].clone();
    let one = json(&server, &format!("/1.0/images/{fingerprint}"))["metadata"].clone();
    assert!(all.as_array().unwrap().contains(&one));
    assert_eq!(one["architecture"], "x86_64");
    assert_eq!(one["properties"]["os"], "Debian");
    let size = server.file(ROOTFS).len() + server.file(&ROOTFS.replace("rootfs", "lxd")).len();
    assert_eq!(one["size"].as_u64(), Some(size as u64));
    let filtered = json(&server, "/1.0/images?recursion=1&filter=architecture+eq+aarch64");
    assert_eq!(filtered["metadata"].as_array().unwrap().len(), 1);
    assert_eq!(json(&server, "/1.0/images?filter=architecture")["error_code"], 400);

    let target =
        |name: &str| json(&server, &format!("/1.0/images/aliases/{name}"))["metadata"]["target"].clone();
    assert_eq!(target("debian%2Fbookworm%2Famd64"), fingerprint);
    assert_eq!(target("debian/bookworm/amd64"), fingerprint);
    assert_ne!(target("debian%2Fbookworm%2Farm64"), fingerprint);
    let aliases = json(&server, "/1.0/images/aliases?recursion=1")["metadata"].clone();
    let names: Vec<_> = aliases.as_array().unwrap().iter().map(|a| a["name"].as_str().unwrap()).collect();
    for name in ["debian/bookworm", "debian/bookworm/amd64", "debian/bookworm/arm64"] {
        assert!(names.contains(&name), "{names:?}");
    }
}

#[test]
fn what_is_not_there_is_said_in_the_apis_way() {
    let (server, _) = start();
    for target in [
        &format!("/1.0/images/{}", "0".repeat(64)),
        &format!("/1.0/images/{}/export", "0".repeat(64)),
        "/1.0/images/aliases/nope",
        "/1.0/images/..%2f..%2fetc",
        "/1.0/instances",
    ] {
        assert_eq!(json(&server, target)["error_code"], 404, "{target}");
    }
    let answer = server.request("POST", "/1.0/images", "Content-Length: 0\r\n");
    assert_eq!(answer.status, 403);
}

#[test]
fn export_is_metadata_and_root_file_system_whose_hash_is_the_fingerprint() {
    let (server, fingerprint) = start();
    let answer = server.get(&format!("/1.0/images/{fingerprint}/export"), "");
    let kind = answer.header("content-type").unwrap();
    let boundary = kind.strip_prefix("multipart/form-data; boundary=").unwrap();
    assert_eq!(answer.header("content-length").unwrap().parse::<usize>().unwrap(), answer.body.len());
    let mut expected = Vec::new();
    for (name, file) in [("metadata", "lxd.tar.xz"), ("rootfs", "rootfs.tar.xz")] {
        expected.extend_from_slice(
            format!(
                "--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"{file}\"\r\n\
                 Content-Type: application/octet-stream\r\n\r\n"
            )
            .as_bytes(),
        );
        expected.extend(server.file(&ROOTFS.replace("rootfs.tar.xz", file)));
        expected.extend_from_slice(b"\r\n");
    }
    expected.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
    assert_eq!(answer.body, expected);
    let head = server.request("HEAD", &format!("/1.0/images/{fingerprint}/export"), "");
    assert_eq!((head.body.len(), head.header("content-length")), (0, answer.header("content-length")));
}

#[test]
fn a_new_publication_is_offered_at_once() {
    let (server, _) = start();
    assert_eq!(json(&server, "/1.0/images")["metadata"].as_array().unwrap().len(), 2);
    server.tree.add(&Image::new("debian:trixie:amd64:default", "20260103_0000")).unwrap();
    assert_eq!(json(&server, "/1.0/images")["metadata"].as_array().unwrap().len(), 3);
    let images = server.tree.stream.list(std::time::SystemTime::now()).unwrap();
    let trixie = images.iter().find(|image| image.product.release() == "trixie").unwrap();
    let gone = [(trixie.product.clone(), trixie.serial)];
    server.tree.stream.remove(&gone, std::time::Duration::ZERO, &signing(&server.tree.key)).unwrap();
    assert_eq!(json(&server, "/1.0/images")["metadata"].as_array().unwrap().len(), 2);
}

#[test]
fn metrics_count_requests_and_whole_downloads() {
    let (server, _) = start();
    server.get(ROOTFS, "");
    server.get(ROOTFS, "Range: bytes=0-3\r\n");
    server.request("HEAD", ROOTFS, "");
    server.get("/nothing", "");
    let text = || String::from_utf8(server.get("/metrics", "").body).unwrap();
    let expected = "millstream_image_downloads_total{product=\"debian:bookworm:amd64:default\"} 1\n";
    let wanted = [expected, "{status=\"4xx\"} 1", "millstream_http_connections 1\n"];
    let mut found = text();
    // A request is counted when its connection has let it go, a moment after the client has it.
    for _ in 0..500 {
        if wanted.iter().all(|line| found.contains(line)) {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
        found = text();
    }
    assert!(wanted.iter().all(|line| found.contains(line)), "{found}");
    assert!(found.contains("# TYPE millstream_http_requests_total counter"), "{found}");
}

#[test]
fn health_is_the_trees() {
    let (server, _) = start();
    let healthy = server.get("/healthz", "");
    assert_eq!((healthy.status, healthy.body.as_slice()), (200, b"ok\n".as_slice()));
    std::fs::remove_file(server.tree.root().join(".documents/current")).unwrap();
    assert_eq!(server.get("/healthz", "").status, 503);
}
