//! A real LXD as a remote, and our own server through the same API.

use std::fs;
use std::net::TcpListener;
use std::path::Path;

use millstream_image::Sha256Digest;
use serde_json::Value;

use crate::import::Forms;
use crate::lxd::busybox;
use crate::support::lxd::Lxd;
use crate::support::{Home, Server, shell};

/// An LXD that listens on loopback, with the fingerprint of the certificate it made itself.
fn listening() -> (Lxd, String, String) {
    let lxd = Lxd::start(Path::new("/etc/ssl/certs/ca-certificates.crt"));
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    lxd.run(&["config", "set", "core.https_address", &format!("127.0.0.1:{port}")]);
    let about: Value = serde_json::from_str(&lxd.run(&["query", "/1.0"])).unwrap();
    let fingerprint = about["environment"]["certificate_fingerprint"].as_str().unwrap().to_owned();
    (lxd, format!("https://127.0.0.1:{port}"), fingerprint)
}

fn fingerprints(home: &Home, remote: &str) -> Vec<String> {
    let list = home.run(&["image", "list", remote, "--all", "--format", "json"]);
    let list: Vec<Value> = serde_json::from_str(&list).unwrap();
    let mut found: Vec<_> =
        list.iter().map(|image| image["fingerprint"].as_str().unwrap().to_owned()).collect();
    found.sort();
    found
}

/// A container of an image of a remote comes up, and goes.
fn launch(home: &Home, image: &str, name: &str) {
    home.run(&["launch", image, name]);
    let says = home.run(&["exec", name, "--", "/bin/busybox", "cat", "/etc/os-release"]);
    home.run(&["delete", "--force", name]);
    assert!(says.contains("Tiny One"), "{says}");
}

#[test]
fn an_lxd_is_known_by_its_certificate_and_its_images_are_listed_copied_and_launched() {
    let forms = Forms::new("--format=unified,squashfs");
    let home = &forms.home;
    home.run(&["pack", &forms.text("root"), "--out", &forms.text("xz")]);
    let (lxd, url, certificate) = listening();
    let file = |name: &str| forms.text(&format!("image/{name}"));
    lxd.run(&["image", "import", &file("unified.tar.gz"), "--alias", "unified", "--public"]);
    let (metadata, squashfs) = (file("lxd.tar.xz"), file("rootfs.squashfs"));
    lxd.run(&["image", "import", &metadata, &squashfs, "--alias", "split/squashfs", "--public"]);
    lxd.run(&[
        "image",
        "import",
        &forms.text("xz/lxd.tar.xz"),
        &forms.text("xz/rootfs.tar.xz"),
        "--alias",
        "private",
    ]);

    // Nobody vouches for it: said once, with the fingerprint that LXD itself shows.
    let error = home.fail(&["remote", "add", "lab", &url]);
    assert!(error.contains(&format!("--accept-certificate {certificate}")), "{error}");
    let other = "0".repeat(64);
    let error = home.fail(&["remote", "add", "lab", &url, "--accept-certificate", &other]);
    assert!(error.contains(&certificate) && error.contains("not the one"), "{error}");
    let error = home.fail(&["remote", "add", "lab", &url, "--insecure-no-signature"]);
    assert!(error.contains("--accept-certificate"), "a waived signature waives no more: {error}");
    home.run(&["remote", "add", "lab", &url, "--accept-certificate", &certificate]);
    let list = home.run(&["remote", "list"]);
    assert!(
        list.contains("lxd") && list.contains("NOT SIGNED") && list.contains(&certificate[..12]),
        "{list}"
    );

    let (unified, split) =
        (forms.hash(&["image/unified.tar.gz"]), forms.hash(&["image/lxd.tar.xz", "image/rootfs.squashfs"]));
    let mut both = vec![unified.clone(), split.clone()];
    both.sort();
    assert_eq!(fingerprints(home, "lab:"), both, "the public ones, by LXD's own fingerprints");
    let error = home.fail(&["image", "info", "lab:unifeid"]);
    assert!(error.contains("did you mean unified"), "{error}");
    assert!(home.fail(&["image", "copy", "lab:private"]).contains("none of that name"));

    assert_eq!(home.run(&["image", "copy", "lab:unified", "--copy-aliases"]).trim(), unified);
    launch(home, "unified", "lxdremote-1");
    launch(home, "lab:split/squashfs", "lxdremote-2");
    home.run(&["image", "export", &split, &forms.text("out")]);
    assert_eq!(home.run(&["image", "verify"]).matches(" good").count(), 2);

    // What only those see whom LXD trusts.
    shell(
        "cd \"$D\"; openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-384 -nodes -days 2 -subj /CN=c \
         -keyout c.key -out c.crt 2>&1; cat c.crt c.key >c.pem; chmod 600 c.pem",
        &[("D", home.path())],
    );
    lxd.run(&["config", "trust", "add", &forms.text("c.crt")]);
    let pem = forms.text("c.pem");
    home.run(&[
        "remote",
        "add",
        "mine",
        &url,
        "--accept-certificate",
        &certificate,
        "--client-certificate",
        &pem,
    ]);
    assert_eq!(fingerprints(home, "mine:").len(), 3);
    launch(home, "mine:private", "lxdremote-3");
}

#[test]
fn our_own_server_is_read_through_the_same_api() {
    let home = Home::new();
    let text = |name: &str| home.path().join(name).to_str().unwrap().to_owned();
    busybox(&home.path().join("root"));
    home.run(&["pack", &text("root"), "--out", &text("image")]);
    let root = text("tree");
    home.run(&["stream", "init", &root]);
    home.run(&["stream", "add", &root, &text("image")]);
    let server = Server::start(&home, Path::new(&root));
    let ca = server.ca.to_str().unwrap();
    let add = ["remote", "add", "api", &server.url, "--ca", ca, "--protocol", "lxd"];
    assert!(home.fail(&add).contains("--insecure-no-signature"));
    let key = format!("{root}/key.asc");
    assert!(home.fail(&[&add[..], &["--key", &key]].concat()).contains("nothing is signed there"));
    home.run(&[&add[..], &["--insecure-no-signature"]].concat());
    let fingerprint = {
        let files = ["image/lxd.tar.xz", "image/rootfs.tar.xz"].map(|file| fs::read(text(file)).unwrap());
        Sha256Digest::of(&files.concat()).to_string()
    };
    assert_eq!(fingerprints(&home, "api:"), std::slice::from_ref(&fingerprint));
    launch(&home, "api:tiny/1", "lxdremote-4");
    assert!(home.run(&["image", "list"]).contains(&fingerprint[..12]));

    // Other bytes than the fingerprint says are not kept.
    home.run(&["image", "delete", &fingerprint]);
    let dir = shell("echo \"$ROOT\"/images/tiny/1/*/*/*", &[("ROOT", Path::new(&root))]);
    let rootfs = Path::new(dir.trim()).join("rootfs.tar.xz");
    let mut bytes = fs::read(&rootfs).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::remove_file(&rootfs).unwrap(); // It may share its bytes with the build.
    fs::write(&rootfs, bytes).unwrap();
    assert!(home.fail(&["image", "copy", "api:tiny/1"]).contains("fingerprint"));
    assert_eq!(home.run(&["image", "list", "--format", "json"]).trim(), "[]");
}
