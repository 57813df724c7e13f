//! A flipped byte anywhere: refused, named, nothing kept.

use crate::support::{Fixture, INDEX, NAME, Server, Tree, assert_refused, assert_same, flip, only_image};
use millstream_client::Error;

#[tokio::test]
async fn an_untouched_image_arrives() {
    let tree = Tree::new();
    let server = Server::start(tree.root());
    let fixture = Fixture::with_remote(&tree, &server.url).await;
    let stored = fixture.fetch(NAME).await.unwrap();
    assert_same(&tree, &only_image(&tree), &stored);
    assert_eq!(stored.origin.unwrap().serial, "20260101_0000");
    fixture.client.store().unwrap().verify(&fixture.fetch(NAME).await.unwrap()).unwrap();
    assert_eq!(server.count("rootfs.tar.xz"), 1, "the second time it is here");
}

#[tokio::test]
async fn a_flipped_byte_in_a_file_is_refused() {
    for file in ["rootfs.tar.xz", "lxd.tar.xz"] {
        let tree = Tree::new();
        let server = Server::start(tree.root());
        for url in [&server.url, &tree.url()] {
            let fixture = Fixture::with_remote(&tree, url).await;
            let path = tree.path(&format!("{}/{file}", only_image(&tree).dir));
            flip(&path);
            let result = fixture.fetch(NAME).await;
            assert!(result.as_ref().is_err_and(|e| e.to_string().contains(file)), "{result:?}");
            assert_refused!(result, Error::Mismatch { .. });
            fixture.assert_store_empty();
            flip(&path);
        }
    }
}

#[tokio::test]
async fn a_flipped_byte_in_the_index_is_refused() {
    let tree = Tree::new();
    flip(&tree.path(INDEX));
    let fixture = Fixture::new();
    assert_refused!(fixture.add(&tree, &tree.url()).await, Error::Signature { .. });
    assert!(fixture.client.remotes().unwrap().remotes.is_empty(), "the remote was not added");
}

#[tokio::test]
async fn a_flipped_byte_in_a_product_document_is_refused() {
    let tree = Tree::new();
    let by_hash = crate::support::files(&tree.path("streams/v1/by-hash")).into_keys().next().unwrap();
    flip(&by_hash);
    assert_refused!(Fixture::new().add(&tree, &tree.url()).await, Error::Mismatch { .. });
}

#[tokio::test]
async fn a_damaged_document_cache_is_not_believed() {
    let tree = Tree::new();
    let fixture = Fixture::with_remote(&tree, &tree.url()).await;
    let cached = crate::support::files(&fixture.dir.path().join("cache/documents"));
    assert_eq!(cached.len(), 1);
    for path in cached.keys() {
        flip(path);
    }
    fixture.resolve(NAME).await.unwrap();
    assert_eq!(
        crate::support::files(&fixture.dir.path().join("cache/documents")),
        cached,
        "it was fetched again"
    );
}
