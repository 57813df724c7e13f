//! An older state of the server, under a good signature.

use crate::support::{Fixture, NAME, PRODUCT, Tree, assert_refused};
use millstream_client::Error;

#[tokio::test]
async fn an_older_generation_is_refused_and_forgets_nothing() {
    let mut tree = Tree::new();
    let old = tree.snapshot();
    let fixture = Fixture::with_remote(&tree, &tree.url()).await;
    let newer = tree.add(PRODUCT, "20260102_0000", 1000);
    tree.publish();
    let new = tree.snapshot();
    assert_eq!(fixture.resolve(NAME).await.unwrap(), newer.fingerprint);

    crate::support::restore(&old);
    for _ in 0..2 {
        assert_refused!(fixture.resolve(NAME).await, Error::Rollback { .. });
    }
    fixture.assert_store_empty();
    crate::support::restore(&new);
    assert_eq!(fixture.resolve(NAME).await.unwrap(), newer.fingerprint);
}

#[tokio::test]
async fn one_generation_with_two_contents_is_refused() {
    let mut tree = Tree::new();
    let fixture = Fixture::with_remote(&tree, &tree.url()).await;
    tree.generation -= 1;
    tree.add(PRODUCT, "20260102_0000", 1000);
    tree.publish();
    assert_refused!(fixture.resolve(NAME).await, Error::Rollback { .. });
}

#[tokio::test]
async fn a_higher_generation_made_earlier_is_refused() {
    let mut tree = Tree::new();
    let fixture = Fixture::with_remote(&tree, &tree.url()).await;
    tree.publish_with(|index| index.millstream.as_mut().unwrap().created -= crate::support::DAY);
    assert_refused!(fixture.resolve(NAME).await, Error::Rollback { .. });
}

#[tokio::test]
async fn dropping_the_generation_is_refused() {
    let mut tree = Tree::new();
    let fixture = Fixture::with_remote(&tree, &tree.url()).await;
    tree.publish_with(|index| index.millstream = None);
    assert_refused!(fixture.resolve(NAME).await, Error::Rollback { .. });
}

#[tokio::test]
async fn what_failed_a_check_is_not_remembered() {
    let mut tree = Tree::new();
    let good = tree.snapshot();
    let fixture = Fixture::with_remote(&tree, &tree.url()).await;
    // A newer index whose product document is missing.
    tree.publish_with(|index| {
        let entry = index.index.get_mut("images").unwrap();
        entry.by_hash = Some("streams/v1/by-hash/missing.json".into());
        entry.sha256 = Some(millstream_image::Sha256Digest::of(b"missing"));
    });
    assert!(fixture.resolve(NAME).await.is_err());
    crate::support::restore(&good);
    fixture.resolve(NAME).await.unwrap();
}

#[tokio::test]
async fn a_damaged_memory_is_not_an_empty_one() {
    let tree = Tree::new();
    let fixture = Fixture::with_remote(&tree, &tree.url()).await;
    let file = fixture.dir.path().join("data/trust/r.json");
    std::fs::write(&file, "{").unwrap();
    let error = fixture.resolve(NAME).await.unwrap_err().to_string();
    assert!(error.contains("r.json"), "{error}");
}
