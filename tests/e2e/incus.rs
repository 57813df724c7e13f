//! Incus finds, fetches and boots what we publish, and imports what we pack; and our client reads Incus.

use std::net::TcpListener;
use std::path::Path;

use serde_json::Value;

use crate::import::Forms;
use crate::lxd::{imports_what_is_packed, launches_what_is_published};
use crate::support::lxd::Lxd;

#[test]
fn lists_launches_and_boots() {
    launches_what_is_published(Lxd::incus);
}

#[test]
fn imports_unified_and_squashfs_images_and_launches_one() {
    imports_what_is_packed(Lxd::incus);
}

#[test]
fn an_incus_is_a_remote_of_ours() {
    let forms = Forms::new("--format=unified,squashfs");
    let incus = Lxd::incus(Path::new("/etc/ssl/certs/ca-certificates.crt"));
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    incus.run(&["config", "set", "core.https_address", &format!("127.0.0.1:{port}")]);
    let about: Value = serde_json::from_str(&incus.run(&["query", "/1.0"])).unwrap();
    let certificate = about["environment"]["certificate_fingerprint"].as_str().unwrap();
    let file = |name: &str| forms.text(&format!("image/{name}"));
    incus.run(&["image", "import", &file("unified.tar.gz"), "--alias", "unified", "--public"]);
    let (metadata, squashfs) = (file("lxd.tar.xz"), file("rootfs.squashfs"));
    incus.run(&["image", "import", &metadata, &squashfs, "--alias", "split/squashfs", "--public"]);

    let (home, url) = (&forms.home, format!("https://127.0.0.1:{port}"));
    home.run(&["remote", "add", "lab", &url, "--accept-certificate", certificate]);
    let list = home.run(&["image", "list", "lab:", "--format", "json"]);
    for files in [&["image/unified.tar.gz"][..], &["image/lxd.tar.xz", "image/rootfs.squashfs"]] {
        assert!(list.contains(&forms.hash(files)), "{files:?}: {list}");
    }
    for (image, name) in [("lab:unified", "incusremote-1"), ("lab:split/squashfs", "incusremote-2")] {
        home.run(&["launch", image, name]);
        let says = home.run(&["exec", name, "--", "/bin/busybox", "cat", "/etc/os-release"]);
        home.run(&["delete", "--force", name]);
        assert!(says.contains("Tiny One"), "{image}: {says}");
    }
}
