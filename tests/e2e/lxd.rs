//! LXD finds, fetches and boots what we publish.

use crate::support::lxd::Lxd;
use crate::support::{ALIAS, Published};

#[test]
fn lists_launches_and_boots() {
    let published = Published::new();
    let server = published.serve();
    let lxd = Lxd::start(&server.ca);
    lxd.run(&["remote", "add", "ms", &server.url, "--protocol", "simplestreams"]);
    let list = lxd.run(&["image", "list", "ms:", "-f", "json"]);
    assert!(list.contains(ALIAS), "{list}");
    let info = lxd.run(&["image", "info", &format!("ms:{ALIAS}")]);
    let ours = published.home.run(&["stream", "list", published.root.to_str().unwrap(), "--format", "json"]);
    let fingerprint = info.lines().find_map(|line| line.strip_prefix("Fingerprint: ")).unwrap();
    assert!(ours.contains(fingerprint), "LXD's fingerprint {fingerprint} is in {ours}");
    lxd.run(&["launch", &format!("ms:{ALIAS}"), "c1"]);
    boots(&lxd, "c1");
    assert_eq!(lxd.run(&["exec", "c1", "--", "cat", "/etc/hostname"]).trim(), "c1");
}

/// The container's init comes up and no unit fails.
pub fn boots(lxd: &Lxd, name: &str) {
    let state = lxd.command(&["exec", name, "--", "systemctl", "is-system-running", "--wait"]).output();
    let state = String::from_utf8_lossy(&state.unwrap().stdout).into_owned();
    let failed = lxd.run(&["exec", name, "--", "systemctl", "--failed", "--plain"]);
    assert_eq!(state.trim(), "running", "{failed}");
}
