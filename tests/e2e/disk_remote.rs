//! Directories as remotes: a tree on a disk, with simplestreams or with LXC's index alone.

use std::fs;
use std::path::Path;

use crate::lxc_template::Lxc;
use crate::lxd::busybox;

#[test]
fn a_tree_on_a_disk_is_listed_copied_launched_and_given_to_lxc() {
    let lxc = Lxc::new();
    let home = &lxc.home;
    let text = |name: &str| home.path().join(name).to_str().unwrap().to_owned();
    busybox(&home.path().join("root"));
    let (root, image) = (text("tree"), text("image"));
    home.run(&["pack", &text("root"), "--out", &image]);
    home.run(&["stream", "init", &root]);
    home.run(&["stream", "add", &root, &image]);

    // An image is no tree, and what is in neither form is said to be nothing.
    let error = home.fail(&["remote", "add", "disk", &image]);
    assert!(error.contains("millstream stream add"), "{error}");
    let error = home.fail(&["remote", "add", "disk", &text("root")]);
    assert!(error.contains("neither streams/v1/index.json nor meta/1.0/index-system"), "{error}");

    let key = format!("{root}/key.asc");
    home.run(&["remote", "add", "disk", &root, "--key", &key]);
    home.run(&["remote", "add", "same", &format!("file://{root}"), "--key", &key]);
    for remote in ["disk:", "same:"] {
        assert!(home.run(&["image", "list", remote]).contains("tiny/1"), "{remote}");
    }
    home.run(&["image", "copy", "same:tiny/1", "--alias", "tiny"]);
    home.run(&["image", "delete", "tiny"]);
    home.run(&["launch", "disk:tiny/1", "disk-1"]);
    home.run(&["delete", "--force", "disk-1"]);

    // LXC's index alone, signed and not.
    fs::remove_file(Path::new(&root).join("streams")).unwrap();
    home.run(&["remote", "add", "signed", &root, "--key", &key]);
    home.run(&["remote", "add", "plain", &root, "--insecure-no-signature"]);
    for remote in ["signed", "plain"] {
        let message = lxc.created(remote, &format!("--server {remote} -d tiny -r 1 -a amd64"));
        assert!(!message.contains("Unpacking the rootfs"), "{message}");
        assert!(lxc.path(remote).join("rootfs/bin/busybox").is_file());
    }
    assert!(home.run(&["remote", "list"]).contains("lxc"));
}
