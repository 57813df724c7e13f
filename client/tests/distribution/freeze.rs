//! A server that shows the same state for ever, or clocks that cannot be right.

use crate::support::{Fixture, NAME, Tree, assert_refused};
use chrono::TimeDelta;
use millstream_client::Error;

#[tokio::test]
async fn an_expired_index_is_refused() {
    let mut tree = Tree::new();
    let fixture = Fixture::with_remote(&tree, &tree.url()).await;
    tree.publish_with(|index| {
        let freshness = index.millstream.as_mut().unwrap();
        freshness.expires = freshness.created + TimeDelta::milliseconds(20);
    });
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    assert_refused!(fixture.resolve(NAME).await, Error::Expired { .. });
    assert_refused!(fixture.fetch(NAME).await, Error::Expired { .. });
    fixture.assert_store_empty();
    tree.publish();
    fixture.resolve(NAME).await.unwrap();
}

#[tokio::test]
async fn an_index_of_the_future_points_at_the_clock() {
    let mut tree = Tree::new();
    let fixture = Fixture::with_remote(&tree, &tree.url()).await;
    tree.publish_with(|index| {
        let freshness = index.millstream.as_mut().unwrap();
        freshness.created += TimeDelta::days(2);
        freshness.expires += TimeDelta::days(4);
    });
    let error = fixture.resolve(NAME).await.unwrap_err();
    assert!(error.to_string().contains("clock"), "{error}");
    assert_refused!(Err::<(), _>(error), Error::Expired { .. });
}
