//! Debian with systemd, run by an ordinary user.

use std::time::Duration;

use crate::support::user::User;
use crate::support::{image, wait_for};

#[test]
fn debian_boots_for_an_ordinary_user() {
    let user = User::add("boot").delegate();
    let image = image().to_str().unwrap();
    let ok = |args: &[&str]| {
        let output = user.millstream(args);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{args:?}: {error}");
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    };
    ok(&["launch", image, "u1"]);
    let state = || {
        let output = user.millstream(&["exec", "u1", "--", "systemctl", "is-system-running"]);
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    };
    wait_for("systemd is up", 120, || !["", "initializing", "starting"].contains(&state().as_str()));
    let console = || {
        let log = user.home().join(".local/share/millstream/containers/u1/console.log");
        std::fs::read_to_string(log).unwrap_or_default()
    };
    assert_eq!(state(), "running", "{}", console());
    assert_eq!(ok(&["exec", "u1", "--", "hostname"]), "u1");
    // Set-user-ID programs, file capabilities and other users count inside.
    assert_eq!(ok(&["exec", "u1", "--user", "65534", "--", "id", "-u"]), "65534");
    assert!(ok(&["list", "--format", "csv"]).contains("u1,RUNNING,"));
    // A second one from the same unpacked image, in the same namespace.
    ok(&["launch", image, "u2"]);
    assert_eq!(ok(&["exec", "u2", "--", "hostname"]), "u2");
    ok(&["stop", "u1", "u2"]);
    assert!(console().contains("Halting system"), "cleanly");
    ok(&["start", "u1"]);
    std::thread::sleep(Duration::from_millis(300));
    ok(&["delete", "--force", "u1", "u2"]);
    assert_eq!(ok(&["list", "--format", "json"]), "[]");
}

#[test]
fn without_a_control_group_the_user_is_told_how_to_get_one() {
    let user = User::add("told");
    let output = user.millstream(&["launch", image().to_str().unwrap(), "u1"]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("systemd, its init, needs a control group of its own"), "{error}");
    assert!(error.contains("sudo sh -c 'mkdir") || error.contains("systemd-run --user"), "{error}");
}
