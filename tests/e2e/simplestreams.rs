//! The reference tools (python-simplestreams) query and mirror the signed tree.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Home, Published, image, succeed};

fn tool(name: &str) -> Command {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "target/simplestreams/bin", name].iter().collect();
    assert!(path.exists(), "{} is missing: `cargo xtask test` installs it", path.display());
    Command::new(path)
}

#[test]
fn reference_tools_query_and_mirror() {
    let published = Published::new();
    let server = published.serve();
    let home = Home::new();
    let keyring = home.path().join("keyring.gpg");
    succeed(Command::new("gpg").args(["--dearmor", "-o"]).arg(&keyring).arg(published.key()));
    let url = format!("{}/streams/v1/index.sjson", server.url);
    let with_ca = |mut command: Command| {
        command.env("REQUESTS_CA_BUNDLE", &server.ca).env("SSL_CERT_FILE", &server.ca);
        command
    };
    let mut query = with_ca(tool("sstream-query"));
    query.arg("--keyring").arg(&keyring).args(["--json", &url, "ftype=root.tar.xz"]);
    let found = succeed(&mut query);
    assert!(found.contains("debian:bookworm:amd64:minimal"), "{found}");

    let copy = home.path().join("copy");
    let mut mirror = with_ca(tool("sstream-mirror"));
    mirror.arg("--keyring").arg(&keyring).args(["--max=1", "--path=streams/v1/index.sjson"]);
    mirror.arg(format!("{}/", server.url));
    succeed(mirror.arg(&copy));
    let rootfs = walk(&copy).into_iter().find(|p| p.ends_with("rootfs.tar.xz")).expect("rootfs is mirrored");
    let ours = std::fs::read(image().join("rootfs.tar.xz")).unwrap();
    assert!(std::fs::read(rootfs).unwrap() == ours, "bit for bit");

    // A tree somebody changed is refused by the same tools: the signature is what they believe.
    let document = published.root.join("streams/v1/index.sjson");
    let text = std::fs::read_to_string(&document).unwrap();
    std::fs::write(&document, text.replace("bookworm", "bookw0rm")).unwrap();
    let mut query = with_ca(tool("sstream-query"));
    query.arg("--keyring").arg(&keyring).args(["--json", &url]);
    assert!(!query.output().unwrap().status.success());
}

fn walk(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for item in std::fs::read_dir(dir).unwrap().flatten() {
        if item.path().is_dir() {
            found.extend(walk(&item.path()));
        } else {
            found.push(item.path());
        }
    }
    found
}
