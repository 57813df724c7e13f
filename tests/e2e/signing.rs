//! Keys that take over, and images signed elsewhere, as an operator types it.

use std::path::PathBuf;

use crate::support::{Home, image, within};

/// A stream without images, its root, and its first key.
fn stream(home: &Home) -> (PathBuf, String) {
    let root = home.path().join("stream");
    let key = home.run(&["key", "generate"]).trim().to_owned();
    home.run(&["stream", "init", root.to_str().unwrap()]);
    (root, key)
}

#[test]
fn a_key_takes_over_and_remotes_follow() {
    let operator = Home::new();
    let (root, old) = stream(&operator);
    let root = root.to_str().unwrap();
    operator.run(&["stream", "add", root, image().to_str().unwrap(), "--deltas", "0"]);
    let reader = Home::new();
    reader.run(&["remote", "add", "r", root, "--key", &old]);
    let keys = || reader.run(&["remote", "show", "r", "--format", "json"]);
    let new = operator.run(&["key", "rotate"]).trim().to_owned();
    operator.run(&["stream", "sign", root]);
    reader.run(&["image", "list", "r:"]);
    assert!(keys().contains(&old) && keys().contains(&new), "{}", keys());
    operator.run(&["stream", "verify", root]);
    operator.run(&["key", "revoke", "default"]);
    assert!(operator.run(&["key", "list"]).contains("revoked"));
    operator.run(&["stream", "sign", root, "--if-due"]);
    reader.run(&["image", "list", "r:"]);
    assert!(!keys().contains(&old) && keys().contains(&new), "{}", keys());
    operator.run(&["stream", "verify", root]);
    // Who was away is refused, and told the new key.
    let late = Home::new();
    assert!(late.fail(&["remote", "add", "r", root, "--key", &old]).contains(&new));
    reader.run(&["remote", "set-key", "r", &new]);
}

/// The builder has no key; a server that has it signs by itself.
#[test]
fn a_server_signs_what_a_builder_left() {
    let operator = Home::new();
    let (root, _) = stream(&operator);
    let text = root.to_str().unwrap();
    let builder = Home::new();
    builder.run(&["stream", "add", text, image().to_str().unwrap(), "--unsigned"]);
    assert_eq!(operator.run(&["stream", "list", text, "--format", "json"]).trim(), "[]");
    let config = operator.path().join("signing.toml");
    std::fs::write(&config, format!("[serve]\nroot = {text:?}\nlisten = \"127.0.0.1:0\"\nresign = true\n"))
        .unwrap();
    let mut server = operator.command(&["serve", "--plain-http", "--config", config.to_str().unwrap()]);
    let mut server =
        server.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap();
    let listed = || operator.run(&["stream", "list", text, "--format", "json"]).contains("bookworm");
    let signed = within(60, listed);
    server.kill().unwrap();
    server.wait().unwrap();
    assert!(signed, "nothing was signed");
    operator.run(&["stream", "verify", text]);
}
