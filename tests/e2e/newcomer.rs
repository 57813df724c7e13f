//! One command: recipe → signed image → served; and again, with nothing built or made anew.

use std::fs;
use std::process::Stdio;

use crate::support::{Home, Server, succeed, wait_for_url};

#[test]
fn up_builds_signs_and_serves_then_reuses() {
    let home = Home::new();
    let first = Up::start(&home);
    first.answers();
    let key = fs::read(home.path().join("config/keys/default.key")).unwrap();
    let ca = fs::read(home.path().join("config/tls/ca.crt")).unwrap();
    drop(first);

    let second = Up::start(&home);
    second.answers();
    drop(second);
    assert_eq!(fs::read(home.path().join("config/keys/default.key")).unwrap(), key, "the key is kept");
    assert_eq!(fs::read(home.path().join("config/tls/ca.crt")).unwrap(), ca, "the authority is kept");
    let root = home.path().join("data/stream");
    let list = home.run(&["stream", "list", root.to_str().unwrap(), "--format", "json"]);
    assert_eq!(list.matches("\"serial\"").count(), 1, "the unchanged image is not built again: {list}");
}

struct Up {
    server: Server,
}

impl Up {
    fn start(home: &Home) -> Self {
        let mut command = home.command(&["up", "-o", "image.variant=minimal", "--listen", "127.0.0.1:0"]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let url =
            wait_for_url([Box::new(child.stdout.take().unwrap()), Box::new(child.stderr.take().unwrap())]);
        Self { server: Server::adopt(child, url, home) }
    }

    fn answers(&self) {
        let ca = self.server.ca.to_str().unwrap();
        let url = format!("{}/streams/v1/index.json", self.server.url);
        let text = succeed(std::process::Command::new("curl").args(["-sS", "--fail", "--cacert", ca, &url]));
        assert!(text.contains("debian"), "{text}");
    }
}
