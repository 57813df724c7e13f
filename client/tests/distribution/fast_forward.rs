//! Numbers and dates as high as they go, so that nothing newer can follow. A thief's end with the key: see
//! `key_rotation.rs` too.

use crate::support::{Fixture, NAME, PRODUCT, Tree, assert_refused};
use millstream_client::{Error, Remote, Trust};

#[tokio::test]
async fn a_date_far_ahead_is_left_behind_with_its_key() {
    let mut tree = Tree::new();
    let fixture = Fixture::with_remote(&tree, &tree.url()).await;
    tree.generation = u64::MAX - 1;
    tree.publish();
    fixture.resolve(NAME).await.unwrap();
    (tree.generation, tree.key) = (1, crate::support::key());
    tree.publish();
    assert_refused!(fixture.resolve(NAME).await, Error::Signature { .. });
    // The user pins the new key: what the old one said no longer counts.
    let name = "r".parse().unwrap();
    fixture.client.remove_remote(&name).unwrap();
    let remote = Remote::new(&tree.url(), Trust::pin(&tree.key.keyring()).unwrap(), None).unwrap();
    fixture.client.add_remote(&name, remote).await.unwrap();
    fixture.resolve(NAME).await.unwrap();
}

#[tokio::test]
async fn a_serial_of_the_year_9999_can_be_withdrawn() {
    let mut tree = Tree::new();
    let fixture = Fixture::with_remote(&tree, &tree.url()).await;
    let genuine = fixture.resolve(NAME).await.unwrap();
    let far = tree.add(PRODUCT, "99991231_2359", 500);
    tree.publish();
    assert_eq!(fixture.resolve(NAME).await.unwrap(), far.fingerprint);
    tree.products.products.get_mut(PRODUCT).unwrap().versions.remove("99991231_2359");
    tree.publish();
    assert_eq!(fixture.resolve(NAME).await.unwrap(), genuine);
}

#[tokio::test]
async fn a_document_made_in_the_year_9999_is_not_remembered() {
    let mut tree = Tree::new();
    let fixture = Fixture::with_remote(&tree, &tree.url()).await;
    tree.publish_with(|index| {
        let freshness = index.millstream.as_mut().unwrap();
        freshness.created = "9999-12-31T00:00:00Z".parse().unwrap();
        freshness.expires = "9999-12-31T12:00:00Z".parse().unwrap();
    });
    assert_refused!(fixture.resolve(NAME).await, Error::Expired { .. });
    tree.publish();
    fixture.resolve(NAME).await.unwrap();
}
