//! LXC's own `download` template creates and starts containers from our tree.

use std::fs;
use std::path::Path;

use crate::lxd::busybox;
use crate::support::{Home, Published, Server, shell};

#[test]
fn download_template_creates_what_starts() {
    let published = Published::new();
    let server = published.serve();
    let home = Home::new();
    let container = Container { home };
    let at = container.home.path();
    let message = download(at, &server, "-d debian -r bookworm -a amd64 --variant minimal");
    assert!(message.contains("Debian bookworm container"), "the image's own message: {message}");
    assert!(fs::read_to_string(at.join("lxc/c1/rootfs/etc/hostname")).unwrap().contains("c1"));
    container.lxc("lxc-start -P \"$AT/lxc\" -n c1");
    container.lxc("lxc-wait -P \"$AT/lxc\" -n c1 -s RUNNING -t 30");
    let state = container.lxc(
        "lxc-attach -P \"$AT/lxc\" -n c1 --clear-env -- \
         sh -c 'until [ -S /run/dbus/system_bus_socket ]; do sleep 0.1; done; systemctl is-system-running --wait || systemctl --failed'",
    );
    assert_eq!(state.trim(), "running");
}

/// Creates `lxc/c1` in `at` with LXC's own template; what that says.
fn download(at: &Path, server: &Server, image: &str) -> String {
    fs::write(at.join("default.conf"), "lxc.net.0.type = empty\n").unwrap();
    fs::write(at.join("wgetrc"), format!("ca_certificate = {}\n", server.ca.display())).unwrap();
    let create = format!(
        "lxc-create -P \"$AT/lxc\" -n c1 -f \"$AT/default.conf\" -t download -- {image} --server {}",
        server.host()
    );
    shell(&create, &[("AT", at), ("WGETRC", &at.join("wgetrc")), ("LXC_CACHE_PATH", &at.join("cache"))])
}

/// Through a server that has nothing yet.
#[test]
fn download_template_creates_from_a_server_that_pulls() {
    let (upstream, home) = (Home::new(), Home::new());
    let text = |home: &Home, name: &str| home.path().join(name).to_str().unwrap().to_owned();
    busybox(&upstream.path().join("root"));
    let tree = text(&upstream, "tree");
    upstream.run(&["pack", &text(&upstream, "root"), "--out", &text(&upstream, "image")]);
    upstream.run(&["stream", "init", &tree]);
    upstream.run(&["stream", "add", &tree, &text(&upstream, "image")]);
    let from = Server::start(&upstream, Path::new(&tree));
    let pulled = text(&home, "pulled");
    home.run(&["stream", "init", &pulled]);
    let key = format!("{tree}/key.asc");
    let ca = from.ca.to_str().unwrap();
    let more = ["--upstream", &from.url, "--upstream-key", &key, "--upstream-ca", ca];
    let server = Server::start_with(&home, Path::new(&pulled), &more);
    let container = Container { home };
    let at = container.home.path();
    download(at, &server, "-d tiny -r 1 -a amd64");
    assert!(at.join("lxc/c1/rootfs/bin/busybox").exists());
}

struct Container {
    home: Home,
}

impl Container {
    fn lxc(&self, script: &str) -> String {
        shell(script, &[("AT", self.home.path() as &Path)])
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let at = self.home.path();
        for command in ["lxc-stop -k", "lxc-destroy"] {
            let script = format!("{command} -P \"$AT/lxc\" -n c1 || true");
            let _ = std::process::Command::new("sh").args(["-c", &script]).env("AT", at).output();
        }
    }
}
