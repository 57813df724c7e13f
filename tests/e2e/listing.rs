//! `list` and `info`: which containers, which columns, what they use.

use std::path::{Path, PathBuf};
use std::process::Child;

use crate::support::{Home, busybox_image, wait_for};

/// Two containers, deleted at the end: `NAME-web` runs, `NAME-db` does not.
struct Two {
    home: Home,
    name: String,
}

impl Two {
    fn new(what: &str) -> Self {
        let two = Self { home: Home::new(), name: format!("l{}{what}", std::process::id()) };
        let image = busybox_image(&two.home, "#!/bin/sh\ntrap 'exit 0' PWR\nwhile :; do sleep 1; done\n");
        let image = image.to_str().unwrap();
        two.home.run(&["launch", image, &two.web(), "-c", "user.colour=red", "-c", "limits.memory=64MiB"]);
        two.home.run(&["create", image, &two.db(), "-c", "boot.autostart=1", "--ephemeral"]);
        two
    }

    fn web(&self) -> String {
        format!("{}-web", self.name)
    }

    fn db(&self) -> String {
        format!("{}-db", self.name)
    }

    /// The names that filters leave.
    fn found(&self, filters: &[&str]) -> String {
        let table = self.home.run(&[&["list", "-c", "n", "--format", "csv"], filters].concat());
        table.lines().skip(1).map(|name| name.replace(&self.name, "")).collect::<Vec<_>>().join(" ")
    }
}

impl Drop for Two {
    fn drop(&mut self) {
        let _ = self.home.command(&["delete", "--force", &self.web(), &self.db()]).status();
    }
}

#[test]
fn containers_are_found_by_name_state_and_configuration() {
    let two = Two::new("a");
    for (filters, found) in [
        (&[][..], "-db -web"),
        (&[two.name.as_str()], "-db -web"),
        (&["*-web"], "-web"),
        (&["*-d?", "*-w[a-e]b"], "-db -web"),
        (&["web"], ""),
        (&["status=running"], "-web"),
        (&["state=stop*"], "-db"),
        (&["type=container"], "-db -web"),
        (&["user.colour=red"], "-web"),
        (&["u.c=r*", "l.m=64*"], "-web"),
        (&["u.c=blue"], ""),
        (&["boot.autostart=true"], "-db"),
        (&["*-web", "boot.autostart=true"], ""),
    ] {
        assert_eq!(two.found(filters), found, "{filters:?}");
    }
    assert!(two.home.fail(&["list", "colour=red"]).contains("containers have no colour"));
    assert!(two.home.fail(&["list", "web[", "-c", "n"]).contains("no pattern"));
}

#[test]
fn columns_and_info_tell_what_is_used() {
    let two = Two::new("b");
    let web = two.web();
    let script = "busybox dd if=/dev/zero of=/big bs=1M count=3 2>/dev/null; echo done";
    assert_eq!(two.home.run(&["exec", &web, "--", "sh", "-c", script]), "done\n");
    let list = two.home.run(&["list", "*-web", "-c", "nstS,user.colour:COLOUR:2,D", "--format", "csv"]);
    assert_eq!(
        list,
        format!(
            "NAME,STATUS,TYPE,SNAPSHOTS,COLOUR,DISK USAGE\n{web},RUNNING,CONTAINER,0,re,{}\n",
            list.rsplit(',').next().unwrap().trim()
        )
    );
    assert!(list.contains(",3.") && list.contains("MiB"), "{list}");
    let fast = two.home.run(&["list", "--fast", "--format", "csv"]);
    assert!(fast.starts_with("NAME,STATUS,ARCHITECTURE,CREATED,PROFILES,TYPE\n"), "{fast}");
    assert!(
        fast.contains(&format!("{},STOPPED,", two.db())) && fast.contains("CONTAINER (EPHEMERAL)"),
        "{fast}"
    );
    assert!(fast.contains(&format!("{web},RUNNING,")), "{fast}");
    two.home.run(&["pause", &web]);
    wait_for("it is paused", 20, || two.home.run(&["list", "--fast", "--format", "csv"]).contains("PAUSED"));
    two.home.run(&["resume", &web]);
    let info: serde_json::Value =
        serde_json::from_str(&two.home.run(&["info", &web, "--format", "json"])).unwrap();
    assert!(info["disk"].as_u64().unwrap() >= 3 << 20, "{info}");
    assert!(info["processes"].as_u64().unwrap() >= 1, "{info}");
    assert!(info["memory"].as_u64().unwrap() > 0 && info["memory_peak"].as_u64() >= info["memory"].as_u64());
    assert!(info["cpu_seconds"].as_f64().unwrap() > 0.0, "{info}");
    assert!(info["network"]["counters"].is_object(), "{info}");
}

/// What it has changed takes a while to copy.
#[test]
fn a_snapshot_command_that_is_killed_lets_the_container_go_on() {
    let two = Two::new("c");
    let web = two.web();
    let script = "cd /tmp; busybox touch $(busybox seq 5000)";
    two.home.run(&["exec", &web, "--", "sh", "-c", script]);
    let events = frozen_file(&web);
    let mut child: Child = two.home.command(&["snapshot", &web]).spawn().unwrap();
    while !std::fs::read_to_string(&events).unwrap().contains("frozen 1") {
        assert!(child.try_wait().unwrap().is_none(), "it was done too early to be killed");
    }
    child.kill().unwrap();
    child.wait().unwrap();
    wait_for("it goes on", 20, || std::fs::read_to_string(&events).unwrap().contains("frozen 0"));
    assert!(!two.found(&["status=running"]).is_empty());
    assert!(
        two.home.run(&["list", "*-web", "-c", "S", "--format", "csv"]).ends_with("\n0\n"),
        "none was taken"
    );
    assert_eq!(two.home.run(&["snapshot", &web]), "snap0\n", "nothing is in the way");
    assert_eq!(two.home.run(&["snapshot", "--scheduled"]), "");
    two.home.run(&["config", "set", &web, "snapshots.expiry=2H"]);
    let refused = two.home.fail(&["config", "set", &web, "snapshots.schedule=often"]);
    assert!(refused.contains("MINUTE HOUR DAY") && refused.contains("@daily"), "{refused}");
}

/// Where the kernel says whether a container stands still.
fn frozen_file(name: &str) -> PathBuf {
    let mountinfo = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let root =
        mountinfo.lines().find(|line| line.contains(" - cgroup2 ")).unwrap().split(' ').nth(4).unwrap();
    let groups = std::fs::read_dir(Path::new(root).join("millstream")).unwrap().flatten();
    let mut ours =
        groups.map(|e| e.path()).filter(|path| path.to_str().unwrap().contains(&format!("/{name}-")));
    ours.next().unwrap().join("cgroup.events")
}
