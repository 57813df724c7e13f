//! Well-signed images that are not what was asked for.

use crate::support::{Fixture, NAME, PRODUCT, Server, Tree, assert_refused, metadata_archive};
use millstream_client::Error;
use millstream_image::Sha256Digest;

#[tokio::test]
async fn a_fingerprint_that_is_not_the_files_is_refused() {
    let mut tree = Tree::new();
    let version = tree.products.products.get_mut(PRODUCT).unwrap().versions.values_mut().next().unwrap();
    for name in ["lxd.tar.xz", "incus.tar.xz"] {
        let item = version.items.get_mut(name).unwrap();
        item.combined_sha256 = Some(Sha256Digest::of(b"another image"));
        item.combined_rootxz_sha256 = item.combined_sha256;
    }
    tree.publish();
    let server = Server::start(tree.root());
    for url in [&server.url, &tree.url()] {
        let fixture = Fixture::with_remote(&tree, url).await;
        let error = fixture.fetch(NAME).await.unwrap_err();
        assert!(error.to_string().contains("fingerprint"), "{error}");
        assert_refused!(Err::<(), _>(error), Error::Mismatch { .. });
        fixture.assert_store_empty();
    }
}

#[tokio::test]
async fn metadata_of_another_architecture_is_refused() {
    for metadata in [metadata_archive("aarch64"), b"no archive".to_vec()] {
        let mut tree = Tree::empty();
        tree.add_with_metadata(PRODUCT, "20260101_0000", 1000, &metadata);
        tree.publish();
        let fixture = Fixture::with_remote(&tree, &tree.url()).await;
        assert_refused!(fixture.fetch(NAME).await, Error::Mismatch { .. });
        fixture.assert_store_empty();
    }
}

#[tokio::test]
async fn another_product_under_the_name_asked_for_is_refused() {
    let mut tree = Tree::new();
    let other = tree.products.products.get_mut(PRODUCT).unwrap();
    other.release = "trixie".into();
    tree.publish();
    let fixture = Fixture::with_remote(&tree, &tree.url()).await;
    let error = fixture.fetch(NAME).await.unwrap_err();
    assert!(error.to_string().contains("refused"), "{error}");
    assert_refused!(Err::<(), _>(error), Error::Image { .. });
}

#[tokio::test]
async fn an_alias_of_another_product_is_refused() {
    let mut tree = Tree::new();
    tree.add("alpine:edge:amd64:default", "20260101_0000", 1000);
    let evil = tree.products.products.get_mut("alpine:edge:amd64:default").unwrap();
    evil.os = "Alpine".into();
    evil.aliases = "alpine/edge,debian/trixie".into();
    tree.publish();
    let fixture = Fixture::with_remote(&tree, &tree.url()).await;
    for name in ["r:debian/trixie", "r:alpine/edge"] {
        let error = fixture.fetch(name).await.unwrap_err().to_string();
        assert!(error.contains("calls itself debian/trixie"), "{error}");
    }
    fixture.fetch(NAME).await.unwrap();
}
