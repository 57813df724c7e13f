//! Servers that never end.

use crate::support::{Fault, Fixture, INDEX, NAME, Server, Tree, assert_refused};
use millstream_client::{Error, HttpClient, HttpOptions};

#[tokio::test]
async fn an_endless_document_is_cut_at_its_cap() {
    let tree = Tree::new();
    let server = Server::start(tree.root());
    let client = HttpClient::new(&HttpOptions::default()).unwrap();
    server.fault(INDEX, Fault::Endless);
    let result = client.document(&format!("{}{INDEX}", server.url), 100_000).await;
    assert_refused!(result, Error::Mismatch { .. });
}

#[tokio::test]
async fn endless_documents_and_files_end_at_what_is_stated() {
    let tree = Tree::new();
    let server = Server::start(tree.root());
    let fixture = Fixture::with_remote(&tree, &server.url).await;
    server.fault("rootfs.tar.xz", Fault::Endless);
    assert_refused!(fixture.fetch(NAME).await, Error::Mismatch { .. });
    fixture.assert_store_empty();

    server.fault(".json", Fault::Endless);
    assert_refused!(Fixture::new().add(&tree, &server.url).await, Error::Mismatch { .. });
}

#[tokio::test]
async fn a_stated_length_that_is_wrong_is_refused_before_its_bytes() {
    let tree = Tree::new();
    let server = Server::start(tree.root());
    let fixture = Fixture::with_remote(&tree, &server.url).await;
    server.fault("rootfs.tar.xz", Fault::Replace(vec![0; 300_001]));
    let error = fixture.fetch(NAME).await.unwrap_err().to_string();
    assert!(error.contains("300001 bytes") && error.contains("300000"), "{error}");
    fixture.assert_store_empty();
}
