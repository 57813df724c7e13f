//! What is set for containers through the command line, and what the host offers them.

use std::io::Write;
use std::process::Stdio;

use crate::support::{Home, image, wait_for};

#[test]
fn this_host_is_fit_for_containers_and_says_what_it_lacks() {
    let home = Home::new();
    let found: serde_json::Value = serde_json::from_str(&home.run(&["check", "--format", "json"])).unwrap();
    let found = found.as_array().unwrap();
    let required = |finding: &&serde_json::Value| finding["required"] == true;
    assert!(found.iter().filter(required).count() > 10);
    assert!(found.iter().filter(required).all(|finding| finding["present"] == true));
    let overlay = found.iter().find(|f| f["name"] == "overlay on id-mapped mounts").unwrap();
    assert_eq!(overlay["present"], true, "{overlay}");
    assert!(!home.path().join("data").exists(), "looking leaves nothing");
    let user = crate::support::user::User::add("check");
    let output = user.millstream(&["check"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}");
    assert!(text.contains("no containers with systemd as init"), "{text}");
    let how = format!("chown {} ", user.id());
    assert!(text.contains(&how) || text.contains("systemd-run --user"), "{text}");
}

#[test]
fn settings_and_profiles_through_the_command_line() {
    let home = Home::new();
    let name = format!("set{}", std::process::id());
    home.run(&["profile", "create", "small", "--description", "little"]);
    home.run(&["profile", "set", "small", "limits.processes=500", "user.kind=small"]);
    let image = image().to_str().unwrap();
    let launch = ["launch", image, &name, "-p", "small", "-c", "user.colour=red", "-c", "boot.autostart=1"];
    home.run(&launch);
    assert_eq!(home.run(&["config", "get", &name, "user.colour"]), "red\n");
    home.run(&["config", "set", &name, "limits.memory=256MiB", "user.colour=blue"]);
    let shown = home.run(&["config", "show", &name, "--expanded", "--format", "json"]);
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["config"]["limits.memory"], "256MiB");
    assert_eq!(shown["config"]["user.kind"], "small");
    assert_eq!(shown["profiles"][0], "small");
    home.run(&["config", "unset", &name, "limits.memory"]);
    let edit = |what: &[&str], text: &str| {
        let mut child = home.command(what).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert_eq!(edit(&["config", "edit", &name], "config: {user.a: b}\nprofiles: [default]\n").0, Some(0));
    assert_eq!(home.run(&["config", "get", &name, "user.a"]), "b\n");
    let (code, error) = edit(&["config", "edit", &name], "configuration: {}\n");
    assert!(code == Some(1) && error.contains("nothing has changed"), "{error}");
    assert!(home.fail(&["config", "set", &name, "limits.memory=lots"]).contains("512MiB"));
    assert!(home.fail(&["config", "set", &name, "limits.memery=1"]).contains("limits.memory"));
    assert!(home.fail(&["profile", "assign", &name, "none"]).contains("no profile none"));
    home.run(&["profile", "copy", "small", "other"]);
    home.run(&["profile", "assign", &name, "other", "default"]);
    assert!(home.fail(&["profile", "delete", "other"]).contains(&name));
    home.run(&["profile", "delete", "small"]);
    assert!(home.run(&["profile", "list", "--format", "csv"]).contains("other,little,1\n"));
    assert_eq!(
        home.run(&["list", "user.kind=small", "-c", "nP", "--format", "csv"]),
        format!("NAME,PROFILES\n{name},other default\n")
    );
    assert!(home.fail(&["list", "-c", "z"]).contains("column"));
    home.run(&["pause", &name]);
    wait_for("it is paused", 20, || {
        home.run(&["list", &name, "-c", "s", "--format", "csv"]).contains("PAUSED")
    });
    home.run(&["resume", &name]);
    wait_for("systemd speaks", 60, || home.run(&["logs", &name]).contains("Welcome to"));
    home.run(&["restart", "--force", &name]);
    assert!(home.run(&["logs", "--previous", &name]).contains("Welcome to"));
    home.run(&["config", "set", &name, "boot.autostart=true"]);
    home.run(&["stop", "--force", &name]);
    assert_eq!(home.run(&["snapshot", &name, "--expiry", "7d"]), "snap0\n");
    let other = format!("{name}-b");
    home.run(&["copy", &format!("{name}/snap0"), &other]);
    home.run(&["rename", &other, &format!("{other}2")]);
    assert!(home.run(&["list", &name, "-c", "nS", "--format", "csv"]).contains(&format!("{other}2,0\n")));
    home.run(&["restore", &name, "snap0"]);
    assert!(home.fail(&["restore", &name, "snap1"]).contains("no snapshot snap1"));
    home.run(&["delete", &format!("{name}/snap0"), &format!("{other}2")]);
    published(&home, &name);
    // As the unit for systemd does.
    let unit = include_str!("../../systemd/millstream-containers.service");
    let line = |key: &str| {
        let line = unit.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        line.split(' ').skip(1).collect::<Vec<_>>()
    };
    home.run(&line("ExecStart="));
    assert!(home.run(&["list", "status=running"]).contains(&name));
    home.run(&line("ExecStop="));
    assert!(!home.run(&["list", "status=running"]).contains(&name));
    home.run(&["start", &name]);
    let file = format!("{name}/etc/motd");
    home.run(&["file", "push", concat!(env!("CARGO_MANIFEST_DIR"), "/LICENSE"), &file, "--mode", "0600"]);
    assert_eq!(home.run(&["file", "pull", &file, "-"]), include_str!("../../LICENSE"));
    let mut edit = home.command(&["file", "edit", &file]);
    assert!(edit.env("VISUAL", "sed -i 1d").status().unwrap().success());
    assert!(include_str!("../../LICENSE").ends_with(&home.run(&["file", "pull", &file, "-"])));
    assert_eq!(home.run(&["exec", &name, "--", "stat", "-c", "%u:%a", "/etc/motd"]), "0:600\n");
    assert!(home.fail(&["file", "pull", &name, "-"]).contains("CONTAINER/PATH"));
    shared(&home, &name);
    home.run(&["delete", "--force", &name]);
    home.run(&["launch", image, "--ephemeral", "-c", "user.x=y"]);
    let random = home.run(&["list", "-c", "n", "--format", "csv"]);
    home.run(&["stop", "--force", random.lines().nth(1).unwrap()]);
    assert_eq!(home.run(&["list", "--format", "json"]), "[]\n");
}

/// What the host shares, with a container whose systemd runs under the host's ids in the end.
fn shared(home: &Home, name: &str) {
    let source = format!("source={}", home.path().display());
    std::fs::write(home.path().join("file"), "shared\n").unwrap();
    let add = ["config", "device", "add", name, "data", "disk", &source, "path=/data", "shift=true"];
    home.run(&add);
    assert_eq!(home.run(&["exec", name, "--", "cat", "/data/file"]), "shared\n");
    home.run(&["config", "device", "set", name, "data", "readonly=true"]);
    home.fail(&["exec", name, "--", "touch", "/data/x"]);
    let output = home.command(&["config", "set", name, "security.privileged=true"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.contains("root"), "{said}");
    home.run(&["restart", "--force", name]);
    wait_for("systemd speaks", 60, || home.run(&["logs", name]).contains("Welcome to"));
    let map = home.run(&["exec", name, "--", "cat", "/proc/self/uid_map", "/data/file"]);
    assert_eq!(map.split_whitespace().collect::<Vec<_>>(), ["0", "0", "65536", "shared"]);
    assert_eq!(home.run(&["exec", name, "--", "stat", "-c", "%u", "/etc/motd"]), "0\n");
    assert!(home.fail(&["config", "set", name, "raw.lxc=lxc.mount.entry"]).contains("devices"));
}

/// The base system is small enough to be packed again.
fn published(home: &Home, name: &str) {
    let args = ["publish", name, "--alias", "mine", "--property", "description=my own"];
    let fingerprint = home.run(&args);
    let listed = home.run(&["image", "list", "--format", "csv"]);
    assert!(listed.contains("mine,") && listed.contains(&fingerprint[..12]), "{listed}");
    let again = format!("{name}-again");
    home.run(&["create", "mine", &again]);
    assert!(home.run(&["list", &again, "-c", "i", "--format", "csv"]).contains("my own"));
    home.run(&["delete", &again]);
}
