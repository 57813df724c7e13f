//! The examples do what they say, one after the other, with a real tree.

use std::path::{Path, PathBuf};
use std::process::Command;

#[path = "distribution/support/mod.rs"]
#[allow(dead_code, unused_imports, unused_macros, reason = "shared with the tests of attacks")]
mod support;

use support::{PRODUCT, Tree, metadata_archive};

/// Cargo builds the examples with the tests, beside them.
fn example(name: &str) -> PathBuf {
    let deps = std::env::current_exe().unwrap();
    let path = deps.parent().unwrap().parent().unwrap().join("examples").join(name);
    assert!(path.exists(), "build the examples first: cargo build -p millstream-client --examples");
    path
}

fn run(name: &str, args: &[&Path]) -> Result<String, String> {
    let out = Command::new(example(name)).args(args).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if out.status.success() { Ok(text(&out.stdout)) } else { Err(text(&out.stderr)) }
}

#[test]
fn list_fetch_verify_and_unpack() {
    let mut tree = Tree::empty();
    // Any archive is a root file system here.
    let image = tree.add_files(PRODUCT, "20260101_0000", &metadata_archive("x86_64"), &metadata_archive("x"));
    tree.publish();
    let dir = tempfile::tempdir().unwrap();
    let (here, name) = (dir.path(), format!("images:{}", image.fingerprint));
    let (name, target) = (Path::new(&name), here.join("target"));
    let listed = run("list", &[here, tree.root(), &tree.path("key.asc")]).unwrap();
    assert!(listed.contains(&image.fingerprint.short()) && listed.contains(PRODUCT), "{listed}");
    let unpacked = run("unpack", &[here, name, &target]).unwrap();
    assert!(unpacked.contains("entries") && target.join("metadata.yaml").exists(), "{unpacked}");
    assert!(run("fetch", &[here, name]).unwrap().contains(&image.fingerprint.to_string()));
    let store = here.join("data/images");
    assert!(run("verify", &[&store]).unwrap().contains("good"));
    // From the store this time.
    run("unpack", &[here, name, &here.join("again")]).unwrap();
    assert!(run("unpack", &[here, Path::new("images:nothing"), &here.join("none")]).is_err());
    assert!(!here.join("none").exists() && !here.join("none.unfinished").exists());
    support::flip(&store.join(image.fingerprint.to_string()).join("rootfs.tar.xz"));
    assert!(run("verify", &[&store]).is_err());
}
