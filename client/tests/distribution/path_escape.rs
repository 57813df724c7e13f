//! Documents that name what is outside their tree, and redirects that lead away.

use std::fs;

use crate::support::{Fault, Fixture, NAME, PRODUCT, Server, Tree, assert_refused};
use millstream_client::Error;

const OUTSIDE: [&str; 6] = [
    "../secret",
    "/etc/passwd",
    "images/../../secret",
    "file:///etc/passwd",
    "http://elsewhere/x",
    "a/%2e%2e/b",
];

#[tokio::test]
async fn item_paths_stay_in_the_tree() {
    for path in OUTSIDE {
        let mut tree = Tree::new();
        let version = tree.products.products.get_mut(PRODUCT).unwrap().versions.values_mut().next().unwrap();
        version.items.get_mut("root.tar.xz").unwrap().path = path.into();
        tree.publish();
        let fixture = Fixture::with_remote(&tree, &tree.url()).await;
        let error = fixture.fetch(NAME).await.unwrap_err().to_string();
        assert!(error.contains("not a path inside the tree"), "{path}: {error}");
        fixture.assert_store_empty();
    }
}

#[tokio::test]
async fn document_paths_stay_in_the_tree() {
    for path in OUTSIDE {
        let mut tree = Tree::new();
        tree.publish_with(|index| index.index.get_mut("images").unwrap().by_hash = Some(path.into()));
        assert_refused!(Fixture::new().add(&tree, &tree.url()).await, Error::Name { .. });
        tree.publish_with(|index| {
            let entry = index.index.get_mut("images").unwrap();
            (entry.by_hash, entry.path) = (None, path.into());
        });
        assert_refused!(Fixture::new().add(&tree, &tree.url()).await, Error::Name { .. });
    }
}

#[tokio::test]
async fn redirects_do_not_leave_the_web() {
    let tree = Tree::new();
    let server = Server::start(tree.root());
    let fixture = Fixture::with_remote(&tree, &server.url).await;
    let secret = tree.path("secret");
    fs::write(&secret, "x").unwrap();
    for to in
        [format!("file://{}", secret.display()), "ftp://127.0.0.1/x".into(), "/loop/rootfs.tar.xz".into()]
    {
        server.fault("rootfs.tar.xz", Fault::Redirect(to));
        let error = fixture.fetch(NAME).await.unwrap_err();
        assert_refused!(Err::<(), _>(error), Error::Network { .. } | Error::Url { .. });
    }
}

#[tokio::test]
async fn fingerprints_are_digits_before_they_are_paths() {
    let tree = Tree::new();
    let fixture = Fixture::with_remote(&tree, &tree.url()).await;
    fixture.fetch(NAME).await.unwrap();
    for name in ["local:../trust", "local:..", "local:/etc", "local:images.db/x/../..", "local:a%2fb"] {
        assert_refused!(fixture.fetch(name).await, Error::Name { .. });
    }
    assert_refused!(fixture.fetch("local:images.db").await, Error::Image { .. });
    assert_refused!(fixture.fetch("local:.staging").await, Error::Name { .. });
}
