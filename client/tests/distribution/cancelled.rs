//! A fetch dropped at any await leaves the store right, and can be done again.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll};

use crate::support::{Fixture, NAME, PRODUCT, Server, Tree, assert_same};

/// Polls a future so many times; `None` when it is not done by then.
async fn polled<F: Future>(work: F, times: usize) -> Option<F::Output> {
    let mut work = pin!(work);
    let mut left = times;
    std::future::poll_fn(move |context: &mut Context<'_>| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        work.as_mut().poll(context).map(Some)
    })
    .await
}

#[tokio::test]
async fn a_fetch_dropped_at_any_await_leaves_the_store_right() {
    let mut tree = Tree::empty();
    let image = tree.add(PRODUCT, "20260101_0000", 40_000);
    tree.publish();
    let server = Server::start(tree.root());
    let fixture = Fixture::with_remote(&tree, &server.url).await;
    let store = fixture.client.store().unwrap();
    let mut dropped = 0;
    for times in 1.. {
        let done = polled(fixture.fetch(NAME), times).await;
        for stored in store.list().unwrap() {
            store.verify(&stored).unwrap();
        }
        if let Some(done) = done {
            assert_same(&tree, &image, &done.unwrap());
            break;
        }
        dropped += 1;
        assert!(times < 2000, "it never ends");
        // Now and then all of it, from whatever was left.
        if times % 4 == 0 {
            assert_same(&tree, &image, &fixture.fetch(NAME).await.unwrap());
        }
        if store.get(image.fingerprint).unwrap().is_some() {
            store.delete(image.fingerprint).unwrap();
        }
    }
    assert!(dropped > 5, "it was dropped {dropped} times");
}
