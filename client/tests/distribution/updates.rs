//! Images follow newer serials: names move, nothing else is lost, and nothing older is taken.

use std::collections::BTreeSet;

use millstream_client::{Keep, NoProgress};

use crate::support::{Fixture, NAME, PRODUCT, Server, Tree, assert_same, only_image};

#[tokio::test]
async fn a_newer_serial_takes_the_place_and_the_names() {
    let mut tree = Tree::new();
    let server = Server::start(tree.root());
    let fixture = Fixture::with_remote(&tree, &server.url).await;
    let keep = Keep { cached: false, auto_update: true };
    let old = fixture.client.fetch(&NAME.parse().unwrap(), keep, &NoProgress).await.unwrap();
    assert_eq!(old.fingerprint, only_image(&tree).fingerprint);
    let store = fixture.client.store().unwrap();
    store.add_alias(&"mine".parse().unwrap(), old.fingerprint, false).unwrap();
    let refresh = async |in_use: &BTreeSet<_>| {
        let images = store.list().unwrap().into_iter().filter(|image| image.auto_update).collect();
        let mut done = fixture.client.refresh(images, in_use, &NoProgress).await.unwrap();
        assert_eq!(done.len(), 1);
        done.remove(0).newer
    };
    assert!(refresh(&BTreeSet::new()).await.unwrap().is_none(), "it is the newest");

    let second = tree.add(PRODUCT, "20260102_0000", 200_000);
    tree.publish();
    let newer = refresh(&BTreeSet::new()).await.unwrap().unwrap();
    assert_same(&tree, &second, &newer);
    assert!(newer.auto_update && !newer.cached);
    assert_eq!(newer.last_used.unwrap().timestamp(), old.stored.timestamp(), "coming by itself is no use");
    assert_eq!(store.aliases().unwrap().into_values().collect::<Vec<_>>(), [newer.fingerprint]);
    assert_eq!(store.list().unwrap().len(), 1, "the old one went");

    // What something was made from stays.
    let third = tree.add(PRODUCT, "20260103_0000", 200_000);
    tree.publish();
    refresh(&[newer.fingerprint].into()).await.unwrap().unwrap();
    assert_eq!(store.list().unwrap().len(), 2);
    assert_eq!(store.aliases().unwrap().into_values().collect::<Vec<_>>(), [third.fingerprint]);

    // A remote that fails, or takes its newest back, changes nothing.
    tree.products.products.get_mut(PRODUCT).unwrap().versions.remove("20260103_0000");
    tree.publish();
    assert!(refresh(&BTreeSet::new()).await.unwrap().is_none());
    drop(server);
    assert!(refresh(&BTreeSet::new()).await.is_err());
    store.verify(&store.get(third.fingerprint).unwrap().unwrap()).unwrap();
}
