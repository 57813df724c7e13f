//! Images of the store under other names and properties, refreshed and pruned.

use crate::support::{ALIAS, Home, Published, succeed};

#[test]
fn images_are_named_described_refreshed_and_pruned() {
    let published = Published::new();
    let (home, key) = (Home::new(), published.key());
    home.run(&["remote", "add", "disk", published.root.to_str().unwrap(), "--key", key.to_str().unwrap()]);
    let source = format!("disk:{ALIAS}");
    let fingerprint = home.run(&["image", "copy", &source, "--alias", "one", "--auto-update"]);
    home.run(&["image", "alias", "rename", "one", "two"]);
    assert!(home.fail(&["image", "alias", "rename", "one", "three"]).contains("no such alias"));
    home.run(&["image", "set", "two", "note=a=b", "os=Mine"]);
    assert!(home.fail(&["image", "set", "two", "architecture=arm64"]).contains("architecture"));
    assert!(home.fail(&["image", "set", "two", "nonsense"]).contains("KEY=VALUE"));
    assert!(home.run(&["image", "info", "two"]).contains("note: a=b"));
    assert!(home.run(&["image", "list", "os=mine"]).contains("two"));
    home.run(&["image", "unset", "two", "note"]);
    assert!(!home.run(&["image", "info", "two"]).contains("note:"));

    assert_eq!(home.run(&["image", "refresh", "--all"]), "", "it is the newest");
    assert_eq!(home.run(&["image", "prune", "--days", "0"]), "", "it was copied, not cached");
    home.run(&["image", "verify", fingerprint.trim()]);
    std::fs::rename(&published.root, published.root.with_extension("away")).unwrap();
    assert_eq!(home.run(&["image", "refresh"]), "", "it is not due: no server is asked");
    assert!(home.fail(&["image", "refresh", "--all"]).contains("stay as they are"));
}

/// What the units start exists, by the names it is started with; the refresh really runs.
#[test]
fn the_shipped_units_run_commands_that_exist() {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/systemd");
    let home = Home::new();
    let (mut commands, mut units) = (0, 0);
    let files = |dir: &str| std::fs::read_dir(dir).unwrap().map(|item| item.unwrap().path());
    for unit in files(dir).chain(files(&format!("{dir}/user"))).filter(|path| path.is_file()) {
        let text = std::fs::read_to_string(&unit).unwrap();
        let name = unit.file_name().unwrap().to_str().unwrap();
        if unit.extension().is_some_and(|kind| kind == "timer") {
            let service = unit.with_extension("service");
            assert!(text.contains("OnCalendar=") && service.exists(), "{name}");
        }
        // A reload is a signal.
        let runs = |line: &&str| line.starts_with("Exec") && !line.starts_with("ExecReload");
        for line in text.lines().filter(runs) {
            let mut words = line.split_once('=').unwrap().1.split(' ');
            assert_eq!(
                words.next(),
                Some("/usr/local/bin/millstream"),
                "where `cargo xtask install` puts it"
            );
            let words: Vec<_> = words.collect();
            succeed(&mut home.command(&[&words[..], &["--help"]].concat()));
            if name == "millstream-refresh.service" {
                succeed(&mut home.command(&words));
                commands += 1;
            }
        }
        units += 1;
    }
    assert!(units >= 9, "{units}");
    assert_eq!(commands, 2);
}
