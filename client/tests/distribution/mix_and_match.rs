//! Good documents of different times or places, put together.

use std::fs;

use crate::support::{Fixture, INDEX, NAME, PRODUCT, Tree, assert_refused, files};
use millstream_client::Error;
use millstream_image::simplestreams::to_bytes;

#[tokio::test]
async fn an_old_product_document_under_a_new_index_is_refused() {
    let mut tree = Tree::new();
    let old = files(&tree.path("streams/v1/by-hash")).into_values().next().unwrap();
    let fixture = Fixture::with_remote(&tree, &tree.url()).await;
    tree.add(PRODUCT, "20260102_0000", 1000);
    tree.publish();
    for path in files(&tree.path("streams/v1/by-hash")).into_keys() {
        fs::write(path, &old).unwrap();
    }
    assert_refused!(fixture.resolve(NAME).await, Error::Mismatch { .. });
}

#[tokio::test]
async fn a_signed_text_from_another_place_is_refused() {
    // What the same key signed as the product document, or for another path, shown as the index.
    let mut tree = Tree::new();
    fs::copy(tree.path("streams/v1/images.sjson"), tree.path(INDEX)).unwrap();
    assert!(Fixture::new().add(&tree, &tree.url()).await.is_err());
    tree.publish_with(|index| index.millstream.as_mut().unwrap().path = "other/v1/index.sjson".into());
    assert_refused!(Fixture::new().add(&tree, &tree.url()).await, Error::Signature { .. });
}

/// A stream as other signers make it: no hashes in the index, a signature on each document.
fn foreign(tree: &mut Tree) {
    tree.publish_with(|index| {
        index.millstream = None;
        let entry = index.index.get_mut("images").unwrap();
        (entry.sha256, entry.size, entry.by_hash) = (None, None, None);
    });
}

#[tokio::test]
async fn a_foreign_signed_stream_is_read_by_its_own_signatures() {
    let mut tree = Tree::new();
    foreign(&mut tree);
    let fixture = Fixture::with_remote(&tree, &tree.url()).await;
    fixture.fetch(NAME).await.unwrap();
    // The document without its signature is never read.
    fs::remove_file(tree.path("streams/v1/images.sjson")).unwrap();
    assert_refused!(fixture.resolve(NAME).await, Error::Signature { .. });
}

#[tokio::test]
async fn an_older_document_of_a_foreign_stream_is_refused() {
    let mut tree = Tree::new();
    foreign(&mut tree);
    let old = fs::read(tree.path("streams/v1/images.sjson")).unwrap();
    // Signatures count seconds.
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    tree.add(PRODUCT, "20260102_0000", 1000);
    foreign(&mut tree);
    let fixture = Fixture::with_remote(&tree, &tree.url()).await;
    fs::write(tree.path("streams/v1/images.sjson"), old).unwrap();
    assert_refused!(fixture.resolve(NAME).await, Error::Rollback { .. });
}

#[tokio::test]
async fn a_foreign_document_under_another_name_is_refused() {
    let mut tree = Tree::new();
    foreign(&mut tree);
    tree.products.content_id = "daily".into();
    tree.sign("streams/v1/images.json", &to_bytes(&tree.products).unwrap());
    assert_refused!(Fixture::new().add(&tree, &tree.url()).await, Error::Signature { .. });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_among_many_publications_sees_whole_sets() {
    let mut tree = Tree::new();
    let url = tree.url();
    let fixture = Fixture::with_remote(&tree, &url).await;
    let writer = tokio::task::spawn_blocking(move || {
        for day in 1..=60 {
            tree.add(PRODUCT, &format!("202602{:02}_{:02}00", day % 28 + 1, day / 28), 64);
            publish_atomically(&mut tree);
        }
        tree
    });
    let mut reads = 0;
    while !writer.is_finished() {
        fixture.resolve(NAME).await.unwrap();
        reads += 1;
    }
    let tree = writer.await.unwrap();
    assert!(reads > 3, "the reader was there: {reads}");
    let newest = tree.products.products[PRODUCT].versions.values().next_back().unwrap();
    let newest = newest.items["lxd.tar.xz"].combined_sha256.unwrap();
    assert_eq!(fixture.resolve(NAME).await.unwrap().digest(), newest);
}

/// The index appears by rename, as the server's does; by-hash documents stay.
fn publish_atomically(tree: &mut Tree) {
    let staged = tree.path("streams/v1/staged");
    // publish() writes in place, so it works on a second tree that shares this one's documents.
    let mut other = Tree::empty();
    other.key = tree.key.clone();
    (other.products, other.generation) = (tree.products.clone(), tree.generation);
    other.publish();
    tree.generation = other.generation;
    for (path, bytes) in files(&other.path("streams/v1/by-hash")) {
        fs::write(tree.path("streams/v1/by-hash").join(path.file_name().unwrap()), bytes).unwrap();
    }
    fs::copy(other.path(INDEX), &staged).unwrap();
    fs::rename(&staged, tree.path(INDEX)).unwrap();
}
