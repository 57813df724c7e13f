//! A fetch dropped at any await leaves the store right, and can be done again.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::support::{Fixture, NAME, PRODUCT, Server, Tree, assert_same, files};

/// Polls a future so many times, and drops it at once when it is not done by then: `None`. What it
/// left to threads is still under way.
async fn polled<F: Future>(work: F, times: usize) -> Option<F::Output> {
    let mut work = pin!(work);
    let mut left = times;
    std::future::poll_fn(move |context: &mut Context<'_>| {
        left -= 1;
        match work.as_mut().poll(context) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// Whoever drops a fetch may remove what it gathered: no thread it left may put a file there.
#[tokio::test]
async fn a_dropped_fetch_puts_nothing_in_its_place_afterwards() {
    let mut tree = Tree::empty();
    tree.add(PRODUCT, "20260101_0000", 40_000);
    tree.publish();
    let server = Server::start(tree.root());
    let fixture = Fixture::with_remote(&tree, &server.url).await;
    let staging = fixture.dir.path().join("data/images/.staging");
    let in_place = || files(&staging).into_keys().filter(|path| path.ends_with("rootfs.tar.xz")).count();
    for times in 1..2000 {
        if polled(fixture.fetch(NAME), times).await.is_some() {
            return;
        }
        let before = in_place();
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(in_place() <= before, "after {times} polls");
        drop(std::fs::remove_dir_all(&staging));
        std::fs::create_dir_all(&staging).unwrap();
    }
    panic!("it never ends");
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
