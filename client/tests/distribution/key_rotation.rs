//! A stream whose key changes, and one whose key was stolen.

use millstream_client::{Error, Remote, Trust};
use millstream_image::openpgp::{KeyFingerprint, SigningKey};

use crate::support::{Fixture, NAME, PRODUCT, Tree, assert_refused, key, restore};

fn pinned(fixture: &Fixture) -> Vec<KeyFingerprint> {
    match &fixture.client.remotes().unwrap().get(&"r".parse().unwrap()).unwrap().trust {
        Trust::Keys { fingerprints, .. } => fingerprints.clone(),
        Trust::InsecureNoSignature => Vec::new(),
    }
}

fn sorted(key: &SigningKey) -> Vec<KeyFingerprint> {
    let mut fingerprints = key.fingerprints();
    fingerprints.sort();
    fingerprints
}

/// Publishes with documents that name these keys.
fn publish(tree: &mut Tree, key: &SigningKey) {
    tree.key = key.clone();
    let keys = key.fingerprints();
    tree.publish_with(|index| index.millstream.as_mut().unwrap().keys = keys);
}

#[tokio::test]
async fn a_new_key_is_learned_from_the_old_one_and_the_old_one_forgotten() {
    let mut tree = Tree::new();
    let fixture = Fixture::with_remote(&tree, &tree.url()).await;
    let late = Fixture::with_remote(&tree, &tree.url()).await;
    let (old, new) = (tree.key.clone(), key());
    let both = old.clone().with(new.clone());
    publish(&mut tree, &both);
    let overlap = tree.snapshot();
    fixture.resolve(NAME).await.unwrap();
    assert_eq!(pinned(&fixture), sorted(&both));
    publish(&mut tree, &new);
    fixture.resolve(NAME).await.unwrap();
    assert_eq!(pinned(&fixture), [new.fingerprint()]);
    // What the old key says counts no more, in whoever's hands it is.
    let rotated = tree.snapshot();
    publish(&mut tree, &old);
    assert_refused!(fixture.resolve(NAME).await, Error::Signature { .. });
    // Nor does the time of the overlap come back.
    restore(&overlap);
    assert_refused!(fixture.resolve(NAME).await, Error::Rollback { .. });
    restore(&rotated);
    fixture.resolve(NAME).await.unwrap();
    // Who was away during the overlap must be told.
    assert_refused!(late.resolve(NAME).await, Error::Signature { .. });
    let trust = Trust::pin(&new.keyring()).unwrap();
    late.client.set_trust(&"r".parse().unwrap(), trust).await.unwrap();
    late.resolve(NAME).await.unwrap();
}

#[tokio::test]
async fn a_key_that_only_lies_there_is_not_learned() {
    let mut tree = Tree::new();
    let fixture = Fixture::with_remote(&tree, &tree.url()).await;
    let thief = key();
    // Offered beside the right one, and named by nobody.
    let mut keyring = tree.key.keyring();
    keyring.merge(thief.keyring());
    std::fs::write(tree.path("key.asc"), keyring.to_armored().unwrap()).unwrap();
    fixture.resolve(NAME).await.unwrap();
    assert_eq!(pinned(&fixture), [tree.key.fingerprint()]);
    // Named, and not to be had: what is pinned stays.
    let named = vec![tree.key.fingerprint(), key().fingerprint()];
    tree.publish_with(|index| index.millstream.as_mut().unwrap().keys = named);
    fixture.resolve(NAME).await.unwrap();
    assert_eq!(pinned(&fixture), [tree.key.fingerprint()]);
    // Named by itself alone.
    let good = tree.snapshot();
    publish(&mut tree, &thief);
    assert_refused!(fixture.resolve(NAME).await, Error::Signature { .. });
    assert_eq!(pinned(&fixture).len(), 1);
    restore(&good);
    fixture.resolve(NAME).await.unwrap();
}

/// A thief of the key signs the last number there is, so that nothing newer can follow. A key that takes
/// over ends that.
#[tokio::test]
async fn a_fast_forward_attack_ends_with_the_key() {
    let mut tree = Tree::new();
    let fixture = Fixture::with_remote(&tree, &tree.url()).await;
    let learned = Fixture::with_remote(&tree, &tree.url()).await;
    let (stolen, new) = (tree.key.clone(), key());
    let both = stolen.clone().with(new.clone());
    publish(&mut tree, &both);
    learned.resolve(NAME).await.unwrap();
    let genuine = tree.generation;
    tree.key = stolen.clone();
    tree.generation = u64::MAX - 1;
    tree.add(PRODUCT, "99991231_2359", 500);
    tree.publish();
    fixture.resolve(NAME).await.unwrap();
    learned.resolve(NAME).await.unwrap();
    tree.generation = genuine;
    let entry = tree.products.products.get_mut(PRODUCT).unwrap();
    entry.versions.remove("99991231_2359");
    publish(&mut tree, &new);
    // Who knew the new key already goes on; who did not is told, and goes on.
    learned.resolve(NAME).await.unwrap();
    assert_refused!(fixture.resolve(NAME).await, Error::Signature { .. });
    let trust = Trust::pin(&new.keyring()).unwrap();
    fixture.client.set_trust(&"r".parse().unwrap(), trust).await.unwrap();
    fixture.resolve(NAME).await.unwrap();
    assert_eq!(pinned(&fixture), [new.fingerprint()]);
}

/// A remote added while both keys sign, by the fingerprint of either, ends up with both.
#[tokio::test]
async fn a_remote_added_during_the_overlap_knows_both_keys() {
    let mut tree = Tree::new();
    let (old, new) = (tree.key.clone(), key());
    let both = old.with(new.clone());
    publish(&mut tree, &both);
    let fixture = Fixture::new();
    let remote = Remote::new(&tree.url(), Trust::pin(&new.keyring()).unwrap(), None).unwrap();
    fixture.client.add_remote(&"r".parse().unwrap(), remote).await.unwrap();
    assert_eq!(pinned(&fixture), sorted(&both));
}
