//! The store as a whole: checked and healed.

use std::fs;

use crate::support::{ALIAS, Home, Published};

fn check(home: &Home, arguments: &[&str]) -> (Option<i32>, Vec<serde_json::Value>) {
    let output =
        home.command(&[&["store", "check", "--format", "json"], arguments].concat()).output().unwrap();
    let found = serde_json::from_slice(&output.stdout);
    (
        output.status.code(),
        found.unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&output.stderr))),
    )
}

#[test]
fn a_store_is_checked_and_healed() {
    let published = Published::new();
    let (home, key) = (Home::new(), published.key());
    assert_eq!(check(&home, &[]), (Some(0), vec![]), "none yet");
    home.run(&["remote", "add", "disk", published.root.to_str().unwrap(), "--key", key.to_str().unwrap()]);
    let source = format!("disk:{ALIAS}");
    let fingerprint = home.run(&["image", "copy", &source, "--alias", "mine"]);
    let fingerprint = fingerprint.trim();
    home.run(&["create", "mine", "c1"]);
    assert_eq!(check(&home, &[]), (Some(0), vec![]));
    assert_eq!(home.run(&["store", "check"]), "");

    let data = home.path().join("data");
    fs::remove_dir_all(data.join("containers/images").join(fingerprint).join("templates")).unwrap();
    fs::remove_dir_all(data.join("containers/images").join(fingerprint).join("rootfs")).unwrap();
    fs::write(data.join("trust/disk.json"), "{").unwrap();
    fs::write(data.join("images/images.db"), "no database ".repeat(1000)).unwrap();
    assert!(home.fail(&["image", "list"]).contains("store check --repair"));
    let kinds = |found: &[serde_json::Value]| -> Vec<String> {
        found.iter().map(|problem| problem["kind"].as_str().unwrap().to_owned()).collect()
    };
    let (code, found) = check(&home, &[]);
    assert_eq!((code, kinds(&found)), (Some(1), ["database", "trust", "tree"].map(str::to_owned).into()));
    let (code, found) = check(&home, &["--repair"]);
    assert_eq!((code, found.len()), (Some(0), 3), "{found:#?}");
    assert!(found.iter().all(|problem| problem["repaired"].is_string()), "{found:#?}");
    assert_eq!(check(&home, &[]), (Some(0), vec![]));
    home.run(&["image", "verify", fingerprint]);
    home.run(&["start", "c1"]);
    home.run(&["delete", "--force", "c1"]);

    // A damaged image goes out of sight, and comes again as the advice says.
    let rootfs = data.join("images").join(fingerprint).join("rootfs.tar.xz");
    let mut bytes = fs::read(&rootfs).unwrap();
    bytes[1000] ^= 1;
    fs::write(&rootfs, bytes).unwrap();
    let (code, found) = check(&home, &["--repair"]);
    let advice = found[0]["advice"].as_str().unwrap_or_default().to_owned();
    assert_eq!(code, Some(0), "{found:#?}");
    assert_eq!(home.run(&["image", "list", "--format", "json"]).trim(), "[]");
    let words: Vec<_> = advice.split(' ').skip(1).collect();
    assert_eq!(home.run(&words).trim(), fingerprint, "{advice}");
    assert_eq!(check(&home, &["--repair"]).0, Some(0));
}
