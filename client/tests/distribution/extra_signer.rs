//! A second signature by a key nobody pinned does no harm; during a change of keys both count.

use std::fs;
use std::process::Command;

use crate::support::{Fixture, INDEX, NAME, Tree, key};
use millstream_client::{Remote, Trust};

#[tokio::test]
async fn an_unknown_signer_beside_a_good_one_is_accepted() {
    let tree = Tree::new();
    let other = key();
    let text = fs::read_to_string(tree.path(INDEX)).unwrap();
    let (payload, _) =
        tree.key.keyring().verify_cleartext(text.as_bytes(), std::time::SystemTime::now()).unwrap();
    let second =
        other.sign_cleartext(std::str::from_utf8(&payload).unwrap(), std::time::SystemTime::now()).unwrap();
    fs::write(tree.path(INDEX), joined(&text, &second)).unwrap();
    for key in [&tree.key, &other] {
        let fixture = Fixture::new();
        let remote = Remote::new(&tree.url(), Trust::pin(&key.keyring()).unwrap(), None).unwrap();
        fixture.client.add_remote(&"r".parse().unwrap(), remote).await.unwrap();
        fixture.resolve(NAME).await.unwrap();
    }
}

/// One cleartext message with both messages' signatures.
fn joined(first: &str, second: &str) -> String {
    const BEGIN: &str = "-----BEGIN PGP SIGNATURE-----";
    let (body, one) = first.split_once(BEGIN).unwrap();
    let (_, two) = second.split_once(BEGIN).unwrap();
    let mut packets = dearmored(&format!("{BEGIN}{one}"));
    packets.extend(dearmored(&format!("{BEGIN}{two}")));
    let armored = gpg(&["--enarmor"], &packets);
    let armored = String::from_utf8(armored).unwrap().replace("PGP ARMORED FILE", "PGP SIGNATURE");
    let armored: Vec<_> = armored.lines().filter(|line| !line.starts_with("Comment:")).collect();
    format!("{body}{}\n", armored.join("\n"))
}

fn dearmored(text: &str) -> Vec<u8> {
    gpg(&["--dearmor"], text.as_bytes())
}

fn gpg(args: &[&str], input: &[u8]) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("in");
    fs::write(&file, input).unwrap();
    let out =
        Command::new("gpg").arg("--homedir").arg(dir.path()).args(["-o", "-"]).args(args).arg(&file).output();
    let out = out.expect("gpg is needed for this test: install gnupg");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    out.stdout
}
