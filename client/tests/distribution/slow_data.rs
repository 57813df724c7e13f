//! Servers that never begin, or trickle.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use crate::support::{Fault, Fixture, INDEX, NAME, Server, Tree, assert_refused, assert_same, only_image};
use millstream_client::{Access, Error, HttpClient, HttpOptions, Remote, Trust};

#[tokio::test]
async fn trickles_and_silence_end() {
    let tree = Tree::new();
    let server = Server::start(tree.root());
    let fixture = Fixture::with_remote(&tree, &server.url).await;
    for fault in [Fault::Drip(Duration::from_millis(10)), Fault::Silent] {
        for path in ["rootfs.tar.xz", INDEX] {
            server.heal();
            server.fault(path, fault.clone());
            let began = Instant::now();
            assert_refused!(fixture.fetch(NAME).await, Error::Network { .. });
            // Two tries of half a second.
            assert!(began.elapsed() < Duration::from_secs(10), "{fault:?} {:?}", began.elapsed());
            assert!(fixture.client.store().unwrap().list().unwrap().is_empty());
        }
    }
}

#[tokio::test]
async fn a_server_that_takes_connections_and_never_answers_is_left() {
    let tree = Tree::new();
    // Connections wait in the queue of the listener, which nobody reads.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let began = Instant::now();
    assert_refused!(Fixture::new().add(&tree, &url).await, Error::Network { .. });
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_document_that_trickles_ends() {
    let tree = Tree::new();
    let server = Server::start(tree.root());
    server.fault(INDEX, Fault::Drip(Duration::from_millis(10)));
    let mut options = HttpOptions::default();
    let pace = crate::support::config(tree.root()).http;
    (options.pace, options.retry) = (pace.pace, pace.retry);
    let client = HttpClient::new(&options).unwrap();
    assert_refused!(client.document(&format!("{}{INDEX}", server.url), 100_000).await, Error::Network { .. });
}

#[tokio::test]
async fn a_slow_server_gives_way_to_the_next() {
    let tree = Tree::new();
    let (slow, next) = (Server::start(tree.root()), Server::start(tree.root()));
    for path in ["rootfs.tar.xz", INDEX] {
        slow.heal();
        slow.fault(path, Fault::Drip(Duration::from_millis(10)));
        let fixture = Fixture::new();
        let remote = Remote::new(&slow.url, Trust::pin(&tree.key.keyring()).unwrap(), None).unwrap();
        let remote = remote.reached(Access::default(), std::slice::from_ref(&next.url)).unwrap();
        fixture.client.add_remote(&"r".parse().unwrap(), remote).await.unwrap();
        assert_same(&tree, &only_image(&tree), &fixture.fetch(NAME).await.unwrap());
    }
}
