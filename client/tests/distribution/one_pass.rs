//! Who unpacks an image while it comes sees its end only when it has proved right.

use std::fs;
use std::io::Read;
use std::sync::mpsc::{Receiver, channel};

use crate::support::{Fault, Fixture, NAME, PRODUCT, Server, Tree, assert_same, flip, only_image, write};
use millstream_client::{Keep, NoProgress, Result, Sink, StoredImage};

/// Reads all of it, and tells what came.
fn sink() -> (Sink, Receiver<std::io::Result<Vec<u8>>>) {
    let (sender, receiver) = channel();
    let sink = Box::new(move |_, mut rootfs: millstream_client::Arriving| {
        let mut bytes = Vec::new();
        sender.send(rootfs.read_to_end(&mut bytes).map(|_| bytes)).unwrap();
    });
    (sink, receiver)
}

async fn fetch(fixture: &Fixture, sink: Sink) -> Result<StoredImage> {
    fixture.client.fetch_into(&NAME.parse().unwrap(), Keep::default(), Some(sink), &NoProgress).await
}

#[tokio::test]
async fn an_image_is_read_while_it_comes_and_to_its_end_only_when_right() {
    let tree = Tree::new();
    let image = only_image(&tree);
    let path = tree.path(&format!("{}/rootfs.tar.xz", image.dir));
    let whole = fs::read(&path).unwrap();
    let server = Server::start(tree.root());
    for url in [&server.url, &tree.url()] {
        let fixture = Fixture::with_remote(&tree, url).await;
        let (reader, read) = sink();
        assert_same(&tree, &image, &fetch(&fixture, reader).await.unwrap());
        assert!(read.recv().unwrap().unwrap() == whole);
        // What is here is not given to anybody.
        let (reader, read) = sink();
        fetch(&fixture, reader).await.unwrap();
        assert!(read.recv().is_err());
    }
    // Altered on the way: an error instead of the end.
    flip(&path);
    for url in [&server.url, &tree.url()] {
        let fixture = Fixture::with_remote(&tree, url).await;
        let (reader, read) = sink();
        fetch(&fixture, reader).await.unwrap_err();
        assert!(read.recv().unwrap().is_err());
        fixture.assert_store_empty();
    }
}

#[tokio::test]
async fn what_a_killed_fetch_left_is_read_first() {
    let tree = Tree::new();
    let image = only_image(&tree);
    let server = Server::start(tree.root());
    let fixture = Fixture::with_remote(&tree, &server.url).await;
    let whole = fs::read(tree.path(&format!("{}/rootfs.tar.xz", image.dir))).unwrap();
    let staging = fixture.dir.path().join(format!("data/images/.staging/{}", image.fingerprint));
    for cut in [0, 1, 77, 65_536, 299_999, whole.len()] {
        write(&staging.join("rootfs.tar.xz.part"), &whole[..cut]);
        let (reader, read) = sink();
        let stored = fetch(&fixture, reader).await.unwrap();
        assert!(read.recv().unwrap().unwrap() == whole, "cut at {cut}");
        fixture.client.store().unwrap().delete(stored.fingerprint).unwrap();
    }
    // Damaged: the download begins anew, and the reader does not get a mixture.
    let mut damaged = whole.clone();
    damaged[77] ^= 1;
    write(&staging.join("rootfs.tar.xz.part"), &damaged[..200_000]);
    let (reader, read) = sink();
    let stored = fetch(&fixture, reader).await.unwrap();
    assert_same(&tree, &image, &stored);
    assert!(read.recv().unwrap().is_ok_and(|bytes| bytes == whole) || server.count("rootfs.tar.xz") > 0);
    // Cut again and again: it goes on.
    fixture.client.store().unwrap().delete(stored.fingerprint).unwrap();
    server.fault("rootfs.tar.xz", Fault::CutAfter(65_536));
    let (reader, read) = sink();
    fetch(&fixture, reader).await.unwrap();
    assert!(read.recv().unwrap().unwrap() == whole);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_given_up_ends_its_reader() {
    let mut tree = Tree::empty();
    tree.add(PRODUCT, "20260101_0000", 300_000);
    tree.publish();
    let server = Server::start(tree.root());
    let fixture = Fixture::with_remote(&tree, &server.url).await;
    server.fault("rootfs.tar.xz", Fault::Silent);
    let (reader, read) = sink();
    let short = std::time::Duration::from_millis(150);
    assert!(tokio::time::timeout(short, fetch(&fixture, reader)).await.is_err());
    let ended = read.recv_timeout(std::time::Duration::from_secs(10));
    assert!(ended.expect("the reader still waits").is_err());
}
