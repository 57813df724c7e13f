//! One of several servers of a tree misbehaves on purpose: the next one serves, nothing of the bad one is
//! kept, and alone it gets nowhere. What fails by accident stands in `mirrors.rs`.

use std::path::Path;

use crate::support::{
    Fault, Fixture, INDEX, NAME, PRODUCT, Server, Tree, assert_refused, assert_same, files, only_image, write,
};
use chrono::TimeDelta;
use millstream_client::{Access, Error, Remote, Trust};

async fn client(tree: &Tree, servers: &[&Server]) -> Fixture {
    let fixture = Fixture::new();
    let remote = Remote::new(&servers[0].url, Trust::pin(&tree.key.keyring()).unwrap(), None).unwrap();
    let mirrors: Vec<_> = servers[1..].iter().map(|server| server.url.clone()).collect();
    let remote = remote.reached(Access::default(), &mirrors).unwrap();
    fixture.client.add_remote(&"r".parse().unwrap(), remote).await.unwrap();
    fixture
}

/// Every file the client keeps, but for its data base.
fn kept(fixture: &Fixture) -> Vec<Vec<u8>> {
    let data = fixture.dir.path().join("data/images");
    files(&data).into_iter().filter(|(path, _)| !is_data_base(path)).map(|(_, bytes)| bytes).collect()
}

fn is_data_base(path: &Path) -> bool {
    path.file_name().unwrap().to_str().unwrap().starts_with("images.db")
}

#[tokio::test]
async fn a_file_of_a_bad_mirror_is_never_kept() {
    let tree = Tree::new();
    let image = only_image(&tree);
    let (bad, good) = (Server::start(tree.root()), Server::start(tree.root()));
    // Of the right length, too long, too short, without end, from elsewhere, or another's place.
    let evil = vec![0xee; 300_000];
    for fault in [
        Fault::Replace(evil.clone()),
        Fault::Replace([&evil[..], b"more"].concat()),
        Fault::Replace(evil[..1000].to_vec()),
        Fault::Endless,
        Fault::Redirect("file:///etc/hostname".into()),
        Fault::Redirect("/key.asc".into()),
        Fault::Encoded("gzip"),
    ] {
        bad.heal();
        bad.fault("rootfs.tar.xz", fault.clone());
        let fixture = client(&tree, &[&bad, &good]).await;
        let asked = bad.count("rootfs.tar.xz");
        assert_same(&tree, &image, &fixture.fetch(NAME).await.unwrap());
        assert!(bad.count("rootfs.tar.xz") > asked, "{fault:?}: the bad one was asked first");
        assert!(!kept(&fixture).iter().any(|file| file.starts_with(&evil[..500])), "{fault:?}");

        let alone = client(&tree, &[&bad]).await;
        assert!(alone.fetch(NAME).await.is_err(), "{fault:?}");
        assert!(alone.client.store().unwrap().list().unwrap().is_empty(), "{fault:?}");
    }
}

#[tokio::test]
async fn a_document_of_a_bad_mirror_is_never_believed() {
    let tree = Tree::new();
    let image = only_image(&tree);
    // The same names, signed by another.
    let mut other = Tree::new();
    let evil = other.add(PRODUCT, "20990101_0000", 300_000);
    other.publish();
    let (bad, good) = (Server::start(tree.root()), Server::start(tree.root()));
    let index = std::fs::read(other.path(INDEX)).unwrap();
    let unsigned = std::fs::read(other.path("streams/v1/index.json")).unwrap();
    for fault in [
        Fault::Replace(index),
        Fault::Replace(unsigned),
        Fault::Replace(Vec::new()),
        Fault::Endless,
        Fault::Status(200),
        Fault::Status(404),
        Fault::Redirect("http://127.0.0.1:1/".into()),
    ] {
        bad.heal();
        bad.fault(INDEX, fault.clone());
        let fixture = client(&tree, &[&bad, &good]).await;
        assert_eq!(fixture.resolve(NAME).await.unwrap(), image.fingerprint, "{fault:?}");
        assert_same(&tree, &image, &fixture.fetch(NAME).await.unwrap());
        assert_ne!(image.fingerprint, evil.fingerprint);
        assert!(Fixture::new().add(&tree, &bad.url).await.is_err(), "{fault:?}");
    }
}

#[tokio::test]
async fn a_mirror_kept_at_an_expired_state_is_skipped() {
    let mut tree = Tree::new();
    tree.publish_with(|index| {
        let freshness = index.millstream.as_mut().unwrap();
        freshness.expires = freshness.created + TimeDelta::milliseconds(20);
    });
    let frozen = tempfile::tempdir().unwrap();
    for (path, bytes) in files(tree.root()) {
        write(&frozen.path().join(path.strip_prefix(tree.root()).unwrap()), &bytes);
    }
    let newer = tree.add(PRODUCT, "20260102_0000", 1000);
    tree.publish();
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    let (stale, fresh) = (Server::start(frozen.path()), Server::start(tree.root()));
    let fixture = client(&tree, &[&stale, &fresh]).await;
    assert!(stale.count(INDEX) > 0, "it was asked first");
    assert_eq!(fixture.resolve(NAME).await.unwrap(), newer.fingerprint);
    assert_refused!(Fixture::new().add(&tree, &stale.url).await, Error::Expired { .. });
}
