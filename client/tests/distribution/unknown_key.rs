//! Signatures by keys that are not pinned.

use crate::support::{Fixture, NAME, Tree, assert_refused, key};
use millstream_client::{Access, Error, Trust};

#[tokio::test]
async fn a_good_signature_by_another_key_is_refused() {
    let mut tree = Tree::new();
    let fixture = Fixture::with_remote(&tree, &tree.url()).await;
    tree.key = key();
    tree.publish();
    let error = fixture.resolve(NAME).await.unwrap_err();
    assert!(error.to_string().contains("no good signature"), "{error}");
    assert_refused!(Err::<(), _>(error), Error::Signature { .. });
}

#[tokio::test]
async fn the_key_offered_must_have_the_fingerprint_given() {
    let tree = Tree::new();
    let fixture = Fixture::new();
    let access = Access::default();
    let offered = || fixture.client.offered_key(tree.root().to_str().unwrap(), None, &access);
    let right = Trust::pin_one(offered().await.unwrap(), &tree.key.fingerprint()).unwrap();
    assert_eq!(right, Trust::pin(&tree.key.keyring()).unwrap());
    let error = Trust::pin_one(offered().await.unwrap(), &key().fingerprint()).unwrap_err().to_string();
    assert!(error.contains(tree.key.fingerprint().as_str()), "{error}");
}

#[tokio::test]
async fn only_the_pinned_key_of_several_counts() {
    let mut tree = Tree::new();
    let pinned = tree.key.clone();
    let other = key();
    let mut both = pinned.keyring();
    both.merge(other.keyring());
    let trust = Trust::pin_one(both, &pinned.fingerprint()).unwrap();
    assert_eq!(trust, Trust::pin(&pinned.keyring()).unwrap());
    // The file was tampered with so that it holds another key beside the pinned fingerprint.
    let mut keyring = pinned.keyring();
    keyring.merge(other.keyring());
    let Trust::Keys { fingerprints, .. } = trust else { panic!() };
    let trust = Trust::Keys { fingerprints, keyring: keyring.to_armored().unwrap() };
    tree.key = other;
    tree.publish();
    let remote = millstream_client::Remote::new(&tree.url(), trust, None).unwrap();
    let added = Fixture::new().client.add_remote(&"r".parse().unwrap(), remote).await;
    assert_refused!(added, Error::Signature { .. });
}
