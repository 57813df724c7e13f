//! LXD finds, fetches and boots what we publish, and imports what we pack.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::support::lxd::Lxd;
use crate::support::{ALIAS, Home, Published, within};

#[test]
fn lists_launches_and_boots() {
    launches_what_is_published(Lxd::start);
}

/// What LXD does, and Incus.
pub fn launches_what_is_published(daemon: fn(&Path) -> Lxd) {
    let published = Published::new();
    let server = published.serve();
    let lxd = daemon(&server.ca);
    lxd.run(&["remote", "add", "ms", &server.url, "--protocol", "simplestreams"]);
    let list = lxd.run(&["image", "list", "ms:", "-f", "json"]);
    assert!(list.contains(ALIAS), "{list}");
    let info = lxd.run(&["image", "info", &format!("ms:{ALIAS}")]);
    let ours = published.home.run(&["stream", "list", published.root.to_str().unwrap(), "--format", "json"]);
    let fingerprint = info.lines().find_map(|line| line.strip_prefix("Fingerprint: ")).unwrap();
    assert!(ours.contains(fingerprint), "their fingerprint {fingerprint} is in {ours}");
    takes_it_through_the_public_api(&lxd, &server.url, fingerprint);
    lxd.run(&["launch", &format!("ms:{ALIAS}"), "c1"]);
    boots(&lxd, "c1");
    assert_eq!(lxd.run(&["exec", "c1", "--", "cat", "/etc/hostname"]).trim(), "c1");
}

/// The same image, from the same server, as from another daemon that is public.
fn takes_it_through_the_public_api(lxd: &Lxd, url: &str, fingerprint: &str) {
    lxd.run(&["remote", "add", "api", url, "--public", "--accept-certificate"]);
    let list = lxd.run(&["image", "list", "api:", "-f", "json"]);
    assert!(list.contains(ALIAS) && list.contains(fingerprint), "{list}");
    lxd.run(&["image", "copy", &format!("api:{ALIAS}"), "local:", "--alias", "copied"]);
    let info = lxd.run(&["image", "info", "copied"]);
    assert!(info.contains(fingerprint), "{info}");
    lxd.run(&["image", "delete", "copied"]);
}

#[test]
fn imports_unified_and_squashfs_images_and_launches_one() {
    imports_what_is_packed(Lxd::start);
}

/// What LXD does, and Incus.
pub fn imports_what_is_packed(daemon: fn(&Path) -> Lxd) {
    let home = Home::new();
    let path = |name: &str| home.path().join(name).to_str().unwrap().to_owned();
    busybox(&home.path().join("root"));
    let formats = "--format=unified,squashfs";
    home.run(&["pack", &path("root"), "--out", &path("image"), formats, "--compression", "gzip"]);
    let lxd = daemon(Path::new("/etc/ssl/certs/ca-certificates.crt"));
    lxd.run(&["image", "import", &path("image/unified.tar.gz"), "--alias", "unified"]);
    lxd.run(&[
        "image",
        "import",
        &path("image/lxd.tar.xz"),
        &path("image/rootfs.squashfs"),
        "--alias",
        "split",
    ]);
    let both =
        ["lxd.tar.xz", "rootfs.squashfs"].map(|n| fs::read(home.path().join("image").join(n)).unwrap());
    let fingerprint = millstream_image::Sha256Digest::of(&both.concat()).to_string();
    for (alias, says) in [("split", fingerprint.as_str()), ("unified", "Tiny One")] {
        let info = lxd.run(&["image", "info", alias]);
        assert!(info.contains(says), "{alias}: {info}");
    }
    lxd.run(&["launch", "split", "c1"]);
    assert_eq!(lxd.run(&["exec", "c1", "--", "/bin/busybox", "cat", "/etc/hostname"]).trim(), "c1");
    lxd.run(&["launch", "unified", "c2"]);
    lxd.run(&["exec", "c2", "--", "/bin/busybox", "true"]);
}

/// The smallest system there is.
pub fn busybox(root: &Path) {
    for directory in ["bin", "sbin", "etc", "dev", "proc", "sys", "tmp"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    fs::copy("/bin/busybox", root.join("bin/busybox")).expect("this test needs busybox-static");
    symlink("busybox", root.join("bin/sh")).unwrap();
    symlink("../bin/busybox", root.join("sbin/init")).unwrap();
    fs::write(root.join("etc/os-release"), "ID=tiny\nVERSION_ID=1\nPRETTY_NAME=\"Tiny One\"\n").unwrap();
}

/// The container's init comes up and no unit fails.
pub fn boots(lxd: &Lxd, name: &str) {
    let mut state = String::new();
    let running = within(90, || {
        let output = lxd.command(&["exec", name, "--", "systemctl", "is-system-running"]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).trim().clone_into(&mut state);
        state == "running" || state == "degraded"
    });
    let failed = if running {
        lxd.run(&["exec", name, "--", "systemctl", "--failed", "--plain"])
    } else {
        String::new()
    };
    assert_eq!(state, "running", "{failed}");
}
