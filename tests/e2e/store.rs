//! The store as a whole: checked and healed.

use std::fs;

use crate::support::user::User;
use crate::support::{ALIAS, Home, Published, succeed};

fn check(home: &Home, arguments: &[&str]) -> (Option<i32>, Vec<serde_json::Value>) {
    let output =
        home.command(&[&["store", "check", "--format", "json"], arguments].concat()).output().unwrap();
    let found = serde_json::from_slice(&output.stdout);
    (
        output.status.code(),
        found.unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&output.stderr))),
    )
}

/// Of what containers were made stays; the rest goes when it is due, unpacked images included.
#[test]
fn settings_say_when_images_are_refreshed_and_go() {
    let published = Published::new();
    let (home, key) = (Home::new(), published.key());
    home.run(&["remote", "add", "disk", published.root.to_str().unwrap(), "--key", key.to_str().unwrap()]);
    let set = |key: &str, value: &str| home.run(&["config", "set", key, value]);
    assert!(home.fail(&["config", "set", "images.remote_cache_expiry", "soon"]).contains("number of days"));
    assert!(home.fail(&["config", "set", "images.remote_cache_expire=1"]).contains("remote_cache_expiry"));
    set("images.auto_update_cached", "false");
    assert_eq!(home.run(&["config", "get", "images.auto_update_cached"]), "false\n");
    home.run(&["config", "set", "images.auto_update_interval=1", "images.remote_cache_expiry=1"]);
    let shown = home.run(&["config", "show", "--format", "json"]);
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["images.remote_cache_expiry"], "1");
    home.run(&["create", &format!("disk:{ALIAS}"), "c1"]);
    let db = || rusqlite::Connection::open(home.path().join("data/images/images.db")).unwrap();
    let flags = || -> (bool, bool) {
        let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
        db().query_row("SELECT cached, auto_update FROM images", [], row).unwrap()
    };
    assert_eq!(flags(), (true, false), "cached, and not to be updated");
    let long_ago = |hours: u32| {
        let query = format!(
            "UPDATE images SET auto_update = 1, looked = NULL, last_used = unixepoch() - {hours} * 3600, \
                             record = json_set(record, '$.stored', '2020-01-01T00:00:00Z')"
        );
        assert_eq!(db().execute(&query, []).unwrap(), 1);
    };
    long_ago(30);
    let refresh = || {
        let output = home.command(&["image", "refresh"]).output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(refresh().contains("no image is due"), "cached images are not to follow");
    set("images.auto_update_cached", "true");
    assert!(refresh().contains("is the newest"));
    assert!(refresh().contains("no image is due"), "it was just looked for");
    home.run(&["config", "unset", "images.auto_update_interval"]);
    assert!(refresh().contains("no image is due"));

    assert_eq!(home.run(&["image", "prune"]), "", "a container was made from it");
    home.run(&["delete", "c1"]);
    set("images.remote_cache_expiry", "2");
    assert_eq!(home.run(&["image", "prune"]), "", "it was used thirty hours ago");
    set("images.remote_cache_expiry", "0");
    assert_eq!(home.run(&["image", "prune"]), "", "never");
    set("images.remote_cache_expiry", "1");
    assert_eq!(home.run(&["image", "prune"]).trim().len(), 64);
    let trees = std::fs::read_dir(home.path().join("data/containers/images")).unwrap().count();
    assert_eq!(trees, 0, "the unpacked image went with it");
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

/// One image on disk, read by root and by an ordinary user, who is told when it goes.
#[test]
fn ordinary_users_read_the_images_that_root_shares() {
    let published = Published::new();
    let (home, key, source) = (Home::new(), published.key(), format!("disk:{ALIAS}"));
    let remote = ["remote", "add", "disk", published.root.to_str().unwrap(), "--key", key.to_str().unwrap()];
    home.run(&remote);
    let fingerprint = home.run(&["image", "copy", &source, "--alias", "mine"]).trim().to_owned();
    let store = home.path().join("data/images");
    let user = User::add("share").reading(store.clone());
    let run = |args: &[&str]| {
        let output = user.millstream(args);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.success(), String::from_utf8_lossy(&output.stdout).trim().to_owned(), text)
    };
    let ok = |args: &[&str]| {
        let (success, said, error) = run(args);
        assert!(success, "{args:?}: {error}");
        said
    };
    let fails = |args: &[&str]| {
        let (success, said, error) = run(args);
        assert!(!success, "{args:?}: {said}");
        error
    };
    assert!(fails(&["image", "info", "mine"]).contains("not in the local store"), "not shared yet");
    assert!(fails(&["config", "set", "images.shared", "true"]).contains("root"));
    home.run(&["config", "set", "images.shared", "true"]);
    assert_eq!(check(&home, &[]), (Some(0), vec![]));

    // By root's name and by what the user's own remote says: nothing is fetched, nothing is copied.
    let named = ok(&["image", "info", "mine", "--format", "json"]);
    assert!(named.contains(store.to_str().unwrap()), "{named}");
    assert_eq!(ok(&["image", "copy", "mine", "--alias", "own"]), fingerprint);
    let images = user.home().join(".local/share/millstream/images");
    let link = images.join(&fingerprint).join("rootfs.tar.xz");
    assert_eq!(fs::read_link(&link).unwrap(), store.join(&fingerprint).join("rootfs.tar.xz"));
    assert_eq!(ok(&["image", "verify"]), format!("{fingerprint} good"));
    ok(&["image", "delete", "own"]);
    assert!(store.join(&fingerprint).join("rootfs.tar.xz").exists(), "only the link went");
    ok(&remote);
    ok(&["image", "copy", &source, "--alias", "own"]);
    assert!(link.is_symlink());
    ok(&["create", "own", "u1"]);
    assert_eq!(ok(&["store", "check"]), "");

    // Who cannot open a directory cannot lock it; who cannot write cannot change it.
    let mut tried = vec![];
    for path in [store.clone(), store.join(&fingerprint), store.join(".lock"), store.join("images.db")] {
        let name = user.name();
        let mut command = std::process::Command::new("setpriv");
        command
            .args(["--init-groups", "--reuid", name, "--regid", name, "flock", "-n"])
            .arg(&path)
            .arg("true");
        tried.push(command.output().unwrap().status.success());
    }
    assert_eq!(tried, [false; 4]);

    // Names follow; an image that comes later is shared as well.
    home.run(&["image", "alias", "rename", "mine", "other"]);
    assert!(ok(&["image", "info", "other"]).contains(&fingerprint));
    home.run(&["image", "delete", "other"]);
    for command in [&["image", "verify", "own"][..], &["image", "export", "own"], &["create", "own", "u2"]] {
        assert!(fails(command).contains("the administrator has removed"), "{command:?}");
    }
    // The container does not need it, and it comes again under its name.
    assert!(ok(&["list", "--format", "csv"]).contains("u1"));
    home.run(&["image", "copy", &source]);
    ok(&["image", "verify", "own"]);
    home.run(&["config", "unset", "images.shared"]);
    assert!(fails(&["image", "verify", "own"]).contains("the administrator has removed"));
    ok(&["image", "copy", &source]);
    assert!(
        !link.is_symlink() && ok(&["image", "verify", "own"]).contains("good"),
        "fetched, as nobody shares it"
    );
    ok(&["delete", "u1"]);
    succeed(std::process::Command::new("rm").arg("-r").arg(&images));
}
