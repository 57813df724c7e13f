//! The units shipped for the server.

use std::process::Command;

#[test]
fn the_service_is_hardened() {
    let unit = concat!(env!("CARGO_MANIFEST_DIR"), "/../systemd/millstream-serve.service");
    // The threshold is ten times the exposure level that is shown: 2.5.
    let checked = Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--no-pager", "--threshold=25", unit])
        .output()
        .expect("systemd-analyze, of the package systemd");
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
}
