//! No signature never means "unsigned is fine", unless the user said so.

use std::fs;

use crate::support::{Fixture, INDEX, NAME, Server, Tree, assert_refused};
use millstream_client::{Error, Remote, Trust};

#[tokio::test]
async fn an_index_without_its_signed_form_is_refused() {
    let tree = Tree::new();
    let server = Server::start(tree.root());
    for url in [&server.url, &tree.url()] {
        let fixture = Fixture::with_remote(&tree, url).await;
        let signed = fs::read(tree.path(INDEX)).unwrap();
        fs::remove_file(tree.path(INDEX)).unwrap();
        assert_refused!(fixture.resolve(NAME).await, Error::Signature { .. });
        // The unsigned document in the signed one's place.
        fs::copy(tree.path("streams/v1/index.json"), tree.path(INDEX)).unwrap();
        assert_refused!(fixture.resolve(NAME).await, Error::Signature { .. });
        fs::write(tree.path(INDEX), signed).unwrap();
        fixture.resolve(NAME).await.unwrap();
    }
}

#[tokio::test]
async fn text_around_the_signed_text_is_refused() {
    let tree = Tree::new();
    let signed = fs::read_to_string(tree.path(INDEX)).unwrap();
    let unsigned = fs::read_to_string(tree.path("streams/v1/index.json")).unwrap();
    for bad in [format!("{unsigned}{signed}"), format!("{signed}{unsigned}"), format!("{signed}{signed}")] {
        fs::write(tree.path(INDEX), bad).unwrap();
        assert_refused!(Fixture::new().add(&tree, &tree.url()).await, Error::Signature { .. });
    }
}

#[tokio::test]
async fn an_unsigned_tree_works_only_when_the_user_said_so() {
    let tree = Tree::new();
    fs::remove_file(tree.path(INDEX)).unwrap();
    let fixture = Fixture::new();
    assert_refused!(fixture.add(&tree, &tree.url()).await, Error::Signature { .. });

    let remote = Remote::new(&tree.url(), Trust::InsecureNoSignature, None).unwrap();
    fixture.client.add_remote(&"r".parse().unwrap(), remote).await.unwrap();
    let stored = fixture.fetch(NAME).await.unwrap();
    fixture.client.store().unwrap().verify(&stored).unwrap();
    let remotes = fixture.client.remotes().unwrap();
    assert!(!remotes.get(&"r".parse().unwrap()).unwrap().is_signed(), "it is remembered");

    let server = Server::start(tree.root());
    let plain = Remote::new(&server.url, Trust::InsecureNoSignature, None);
    assert_refused!(plain, Error::Url { .. });
}
