//! Processes killed, and writes that fail, at any moment of a fetch: whoever comes next finds the
//! image complete, or not at all, and can fetch it.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use millstream_client::{Client, Download, HttpClient, HttpOptions, Keep, NoProgress, Store};
use millstream_image::Sha256Digest;

use crate::support::{Fixture, NAME, PRODUCT, Server, Tree, assert_same, config, files};

const DIR: &str = "MILLSTREAM_TEST_DIR";
/// A file to download without a store, instead of an image.
const URL: &str = "MILLSTREAM_TEST_URL";
/// Files may grow to 4 MiB (of 512-byte blocks); what is written beyond fails.
const LIMITED: &str = "ulimit -f 8192; trap '' XFSZ; exec \"$0\" \"$@\"";
pub const CHILD: &str = "killed::child";

/// Not a test of its own: what the tests here start as another process, and kill.
#[tokio::test]
#[ignore = "started by the tests beside it"]
async fn child() {
    let dir = PathBuf::from(std::env::var_os(DIR).unwrap());
    let done = if let Ok(url) = std::env::var(URL) {
        let sha256 = Sha256Digest::of(b"never reached");
        let what = Download { url: &url, dest: &dir.join("file"), size: 8_000_000, sha256 };
        HttpClient::new(&HttpOptions::default()).unwrap().download(&what, &NoProgress).await
    } else {
        let client = Client::new(config(&dir));
        client.fetch(&NAME.parse().unwrap(), Keep::default(), &NoProgress).await.map(drop)
    };
    if let Err(error) = done {
        eprintln!("{error}");
        std::process::exit(1);
    }
}

pub fn command(program: impl AsRef<std::ffi::OsStr>, dir: &Path) -> Command {
    let mut command = Command::new(program);
    command.env(DIR, dir).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

fn start(dir: &Path) -> Child {
    command(std::env::current_exe().unwrap(), dir)
        .args([CHILD, "--exact", "--ignored", "--nocapture"])
        .spawn()
        .unwrap()
}

async fn tree_and_client(size: usize) -> (Tree, crate::support::Image, Fixture) {
    let mut tree = Tree::empty();
    let image = tree.add(PRODUCT, "20260101_0000", size);
    tree.publish();
    let fixture = Fixture::with_remote(&tree, &tree.url()).await;
    (tree, image, fixture)
}

#[tokio::test]
async fn a_fetch_killed_at_any_moment_leaves_all_or_nothing() {
    let mut tree = Tree::empty();
    let image = tree.add(PRODUCT, "20260101_0000", 4_000_000);
    tree.publish();
    let server = Server::start(tree.root());
    let fixture = Fixture::with_remote(&tree, &server.url).await;
    let (mut killed, mut delay) = (0, Duration::ZERO);
    loop {
        let mut child = start(fixture.dir.path());
        thread::sleep(delay);
        child.kill().unwrap();
        let status = child.wait().unwrap();
        let store = Store::open(&fixture.dir.path().join("data/images")).unwrap();
        for stored in store.list().unwrap() {
            store.verify(&stored).unwrap();
        }
        let directories = fs::read_dir(store.dir())
            .unwrap()
            .filter(|entry| entry.as_ref().unwrap().file_name().to_str().unwrap().len() == 64);
        assert_eq!(directories.count(), store.list().unwrap().len(), "rows and directories agree");
        if status.signal().is_none() {
            assert!(status.success(), "{status}");
            assert!(store.get(image.fingerprint).unwrap().is_some(), "the child fetched nothing");
            break;
        }
        killed += 1;
        // Steps that grow reach the end on slow machines too.
        delay += Duration::from_millis(2) + delay / 20;
        // Each time from the beginning, so that every moment is met.
        if let Some(stored) = store.get(image.fingerprint).unwrap() {
            store.delete(stored.fingerprint).unwrap();
        }
    }
    assert!(killed > 3, "it was killed {killed} times");
    assert_same(&tree, &image, &fixture.fetch(NAME).await.unwrap());
}

#[tokio::test]
async fn a_write_that_fails_leaves_the_store_unchanged() {
    let (tree, image, fixture) = tree_and_client(8_000_000).await;
    let out = command("sh", fixture.dir.path())
        .args(["-c", LIMITED, std::env::current_exe().unwrap().to_str().unwrap()])
        .args([CHILD, "--exact", "--ignored", "--nocapture"])
        .output()
        .unwrap();
    let message = String::from_utf8_lossy(&out.stderr);
    assert!(!out.status.success(), "{message}");
    assert!(message.contains("rootfs.tar.xz") && message.contains("File too large"), "{message}");
    fixture.assert_store_empty();
    assert_eq!(files(&fixture.dir.path().join("data/images/.staging")).len(), 0, "the disk is not kept full");
    assert_same(&tree, &image, &fixture.fetch(NAME).await.unwrap());
}

#[test]
fn a_write_that_fails_does_not_keep_the_disk_full() {
    let tree = Tree::empty();
    fs::write(tree.path("file"), vec![0; 8_000_000]).unwrap();
    let server = Server::start(tree.root());
    let dir = tempfile::tempdir().unwrap();
    let out = command("sh", dir.path())
        .env(URL, format!("{}file", server.url))
        .args(["-c", LIMITED, std::env::current_exe().unwrap().to_str().unwrap()])
        .args([CHILD, "--exact", "--ignored", "--nocapture"])
        .output()
        .unwrap();
    let message = String::from_utf8_lossy(&out.stderr);
    assert!(message.contains("file.part") && message.contains("File too large"), "{message}");
    assert_eq!(files(dir.path()).len(), 0, "what cannot be finished is removed");
}

#[tokio::test]
async fn two_processes_fetch_at_once() {
    let (tree, image, fixture) = tree_and_client(4_000_000).await;
    let children: Vec<_> = (0..3).map(|_| start(fixture.dir.path())).collect();
    for child in children {
        let out = child.wait_with_output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    }
    assert_same(&tree, &image, &fixture.fetch(NAME).await.unwrap());
    assert_eq!(fixture.client.store().unwrap().list().unwrap().len(), 1);
}
