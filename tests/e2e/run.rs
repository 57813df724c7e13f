//! Our own client and runtime: from the served stream to a Debian that has booted.

use std::process::Command;

use crate::support::{ALIAS, Home, Published, succeed, wait_for};

/// A home whose containers are gone when the test ends.
struct Containers(Home);

impl Drop for Containers {
    fn drop(&mut self) {
        let list = self.0.command(&["list", "--format", "json"]).output();
        let list = list.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default();
        let names = list.lines().filter_map(|line| line.trim().strip_prefix("\"name\": \""));
        for name in names.filter_map(|rest| rest.split('"').next()) {
            let _ = self.0.command(&["delete", "--force", name]).output();
        }
    }
}

#[test]
fn debian_boots_from_the_served_stream() {
    let published = Published::new();
    let server = published.serve();
    let containers = Containers(Home::new());
    let home = &containers.0;
    let (key, ca) = (published.key(), server.ca.clone());
    home.run(&[
        "remote",
        "add",
        "home",
        &server.url,
        "--key",
        key.to_str().unwrap(),
        "--ca",
        ca.to_str().unwrap(),
    ]);
    home.run(&["launch", &format!("home:{ALIAS}"), "c1"]);
    wait_for("systemd in c1", 60, || {
        let state = home.command(&["exec", "c1", "--", "systemctl", "is-system-running"]).output().unwrap();
        String::from_utf8_lossy(&state.stdout).trim() == "running"
    });
    assert_eq!(home.run(&["exec", "c1", "--", "hostname"]).trim(), "c1");
    let status = home.command(&["exec", "c1", "--", "sh", "-c", "exit 42"]).status().unwrap();
    assert_eq!(status.code(), Some(42), "exec returns the command's exit code");

    // Root inside is somebody else outside, and a second container somebody else again.
    let first = home.run(&["exec", "c1", "--", "cat", "/proc/self/uid_map"]);
    home.run(&["launch", ALIAS, "c2"]);
    let second = home.run(&["exec", "c2", "--", "cat", "/proc/self/uid_map"]);
    let base = |map: &str| map.split_whitespace().nth(1).unwrap().parse::<u32>().unwrap();
    assert!(base(&first) > 0 && base(&second) > 0 && base(&first) != base(&second), "{first} {second}");

    home.run(&["stop", "c1", "c2"]);
    assert!(home.run(&["list"]).contains("STOPPED"));
    home.run(&["start", "c1"]);
    home.run(&["delete", "--force", "c1"]);
    home.run(&["delete", "c2"]);
    assert_eq!(host(home), Vec::<String>::new(), "no mount and no process stays behind");
}

/// Lines of the host's mount table and commands of its processes that name this home.
fn host(home: &Home) -> Vec<String> {
    let at = home.path().to_str().unwrap();
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let commands = succeed(Command::new("ps").args(["-eo", "args"]));
    let ours = |line: &&str| line.contains(at);
    mounts.lines().chain(commands.lines()).filter(ours).map(str::to_owned).collect()
}
