//! The same tree on a plain web server: nothing in it needs ours.

use crate::support::lxd::Lxd;
use crate::support::nginx::Nginx;
use crate::support::{ALIAS, Home, Published};

#[test]
fn nginx_serves_lxd_and_our_client() {
    let published = Published::new();
    // Makes the certificate; nginx then serves with it.
    drop(published.serve());
    let tls = published.home.path().join("config/tls");
    let nginx = Nginx::start(&published.root, &tls.join("server.crt"), &tls.join("server.key"));
    let ca = tls.join("ca.crt");

    let home = Home::new();
    let key = published.key();
    let (key, ca_text) = (key.to_str().unwrap(), ca.to_str().unwrap());
    home.run(&["remote", "add", "site", &nginx.url, "--key", key, "--ca", ca_text]);
    assert!(home.run(&["image", "list", "site:", "--format", "json"]).contains(ALIAS));
    home.run(&["image", "copy", &format!("site:{ALIAS}"), "local:", "--alias", "mine"]);
    assert!(home.run(&["image", "list"]).contains("mine"));

    let lxd = Lxd::start(&ca);
    lxd.run(&["remote", "add", "site", &nginx.url, "--protocol", "simplestreams"]);
    lxd.run(&["image", "copy", &format!("site:{ALIAS}"), "local:", "--alias", "d"]);
    lxd.run(&["init", "d", "c1"]);
}
