//! LXD finds, fetches and boots what we publish.

use crate::support::lxd::Lxd;
use crate::support::{ALIAS, Published, within};

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
    takes_it_through_the_public_api(&lxd, &server.url, fingerprint);
    lxd.run(&["launch", &format!("ms:{ALIAS}"), "c1"]);
    boots(&lxd, "c1");
    assert_eq!(lxd.run(&["exec", "c1", "--", "cat", "/etc/hostname"]).trim(), "c1");
}

/// The same image, from the same server, as from another LXD that is public.
fn takes_it_through_the_public_api(lxd: &Lxd, url: &str, fingerprint: &str) {
    lxd.run(&["remote", "add", "api", url, "--public", "--accept-certificate"]);
    let list = lxd.run(&["image", "list", "api:", "-f", "json"]);
    assert!(list.contains(ALIAS) && list.contains(fingerprint), "{list}");
    lxd.run(&["image", "copy", &format!("api:{ALIAS}"), "local:", "--alias", "copied"]);
    let info = lxd.run(&["image", "info", "copied"]);
    assert!(info.contains(fingerprint), "{info}");
    lxd.run(&["image", "delete", "copied"]);
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
