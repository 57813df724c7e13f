//! Several servers of one tree: one that is down, frozen or lies is passed over, and nothing of what it
//! said is kept.

use std::fs;

use crate::support::{
    Fault, Fixture, NAME, PRODUCT, Server, Tree, assert_same, files, flip, only_image, restore,
};
use millstream_client::{Access, Remote, Trust};

/// A second tree with the same bytes.
fn copy(tree: &Tree) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (path, bytes) in files(tree.root()) {
        crate::support::write(&dir.path().join(path.strip_prefix(tree.root()).unwrap()), &bytes);
    }
    dir
}

async fn client(tree: &Tree, url: &str, mirrors: &[String]) -> Fixture {
    let fixture = Fixture::new();
    let remote = Remote::new(url, Trust::pin(&tree.key.keyring()).unwrap(), None).unwrap();
    let remote = remote.reached(Access::default(), mirrors).unwrap();
    fixture.client.add_remote(&"r".parse().unwrap(), remote).await.unwrap();
    fixture
}

#[tokio::test]
async fn a_server_that_is_down_gives_way_to_the_next() {
    let tree = Tree::new();
    let mirror = Server::start(tree.root());
    let gone = Server::start(tree.root());
    let url = gone.url.clone();
    drop(gone);
    let fixture = client(&tree, &url, std::slice::from_ref(&mirror.url)).await;
    assert_same(&tree, &only_image(&tree), &fixture.fetch(NAME).await.unwrap());
}

#[tokio::test]
async fn a_file_that_breaks_off_is_completed_elsewhere() {
    let tree = Tree::new();
    let (first, mirror) = (Server::start(tree.root()), Server::start(tree.root()));
    let fixture = client(&tree, &first.url, std::slice::from_ref(&mirror.url)).await;
    first.fault("rootfs.tar.xz", Fault::CutAfter(100_000));
    assert_same(&tree, &only_image(&tree), &fixture.fetch(NAME).await.unwrap());
    let asked: Vec<_> = mirror.requests().into_iter().filter(|r| r.contains("rootfs")).collect();
    assert!(asked.len() == 1 && asked[0].ends_with("100000"), "only what was missing: {asked:?}");
}

#[tokio::test]
async fn a_frozen_server_is_passed_over() {
    let mut tree = Tree::new();
    let old = tree.snapshot();
    let frozen = copy(&tree);
    tree.add(PRODUCT, "20260102_0000", 1000);
    tree.publish();
    let (stale, fresh) = (Server::start(frozen.path()), Server::start(tree.root()));
    // What was seen from the fresh one proves the other old.
    let fixture = client(&tree, &fresh.url, &[]).await;
    let newest = fixture.resolve(NAME).await.unwrap();
    let name = "r".parse().unwrap();
    millstream_client::Remotes::update(&fixture.dir.path().join("config/remotes.json"), |remotes| {
        let remote = remotes.remotes.get_mut(&name).unwrap();
        (remote.url, remote.mirrors) = (stale.url.parse().unwrap(), vec![fresh.url.parse().unwrap()]);
        Ok(())
    })
    .unwrap();
    assert_eq!(fixture.resolve(NAME).await.unwrap(), newest);
    assert!(stale.count("index.sjson") > 0);
    // All of them frozen: refused, as ever.
    restore(&old);
    assert!(fixture.resolve(NAME).await.is_err());
}

#[tokio::test]
async fn a_server_with_other_bytes_is_passed_over_and_nothing_of_it_kept() {
    let tree = Tree::new();
    let image = only_image(&tree);
    let bad = copy(&tree);
    flip(&bad.path().join(format!("{}/rootfs.tar.xz", image.dir)));
    let (liar, honest) = (Server::start(bad.path()), Server::start(tree.root()));
    let fixture = client(&tree, &liar.url, std::slice::from_ref(&honest.url)).await;
    assert_same(&tree, &image, &fixture.fetch(NAME).await.unwrap());
    assert!(liar.count("rootfs.tar.xz") > 0, "it was asked first");
    let asked: Vec<_> = honest.requests().into_iter().filter(|r| r.contains("rootfs")).collect();
    assert!(asked.len() == 1 && asked[0].ends_with(' '), "from the beginning: {asked:?}");
    // The documents of a server that another key signed.
    let other = Tree::new();
    let foreign = Server::start(other.root());
    let fixture = client(&tree, &honest.url, &[]).await;
    let name = "r".parse().unwrap();
    millstream_client::Remotes::update(&fixture.dir.path().join("config/remotes.json"), |remotes| {
        let remote = remotes.remotes.get_mut(&name).unwrap();
        (remote.url, remote.mirrors) = (foreign.url.parse().unwrap(), vec![honest.url.parse().unwrap()]);
        Ok(())
    })
    .unwrap();
    assert_same(&tree, &image, &fixture.fetch(NAME).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn large_files_come_from_all_servers_at_once() {
    let mut tree = Tree::empty();
    let image = tree.add(PRODUCT, "20260101_0000", 12_000_000);
    tree.publish();
    let bad = copy(&tree);
    flip(&bad.path().join(format!("{}/rootfs.tar.xz", image.dir)));
    let (one, two) = (Server::start(tree.root()), Server::start(tree.root()));
    let liar = Server::start(bad.path());
    let fetch = async |mirror: &Server| {
        let fixture = client(&tree, &one.url, std::slice::from_ref(&mirror.url)).await;
        assert_same(&tree, &image, &fixture.fetch(NAME).await.unwrap());
    };
    fetch(&two).await;
    let (a, b) = (one.count("rootfs.tar.xz"), two.count("rootfs.tar.xz"));
    assert!(a > 1 && b > 1 && a + b == 12, "{a} pieces from one, {b} from the other");
    // One that fails leaves the rest to the other; one that knows no ranges, or lies, as well.
    for fault in [Fault::Status(500), Fault::IgnoreRange, Fault::CutAfter(10)] {
        two.fault("rootfs.tar.xz", fault);
        fetch(&two).await;
    }
    fetch(&liar).await;
    fs::remove_file(bad.path().join(format!("{}/rootfs.tar.xz", image.dir))).unwrap();
    fetch(&liar).await;
}
