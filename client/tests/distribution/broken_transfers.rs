//! Cuts, wrong answers, full disks: the image is in the store verified, or not at all.

use std::fs;

use crate::support::{Fault, Fixture, NAME, Server, Tree, assert_refused, assert_same, files, only_image};
use millstream_client::Error;

#[tokio::test]
async fn a_transfer_cut_at_every_64_kib_goes_on_where_it_was() {
    let tree = Tree::new();
    let server = Server::start(tree.root());
    let fixture = Fixture::with_remote(&tree, &server.url).await;
    for fault in [Fault::CutAfter(65536), Fault::EndAfter(65536)] {
        server.fault("rootfs.tar.xz", fault);
        let stored = fixture.fetch(NAME).await.unwrap();
        assert_same(&tree, &only_image(&tree), &stored);
        fixture.client.store().unwrap().delete(stored.fingerprint).unwrap();
    }
    let from: Vec<_> = server
        .requests()
        .iter()
        .filter(|r| r.contains("rootfs"))
        .map(|r| r.split(' ').nth(1).unwrap().to_owned())
        .collect();
    assert_eq!(from[..5], ["", "65536", "131072", "196608", "262144"]);
}

#[tokio::test]
async fn what_an_earlier_run_left_is_hashed_again_and_used() {
    let tree = Tree::new();
    let image = only_image(&tree);
    let server = Server::start(tree.root());
    let fixture = Fixture::with_remote(&tree, &server.url).await;
    let whole = fs::read(tree.path(&format!("{}/rootfs.tar.xz", image.dir))).unwrap();
    let part =
        fixture.dir.path().join(format!("data/images/.staging/{}/rootfs.tar.xz.part", image.fingerprint));
    let mut damaged = whole[..200_000].to_vec();
    damaged[77] ^= 1;
    let mut long = whole.clone();
    long.push(0);
    for (left, resumed) in [
        (whole[..200_000].to_vec(), true),
        (whole.clone(), true),
        (damaged, true),
        (long, false),
        (vec![0; whole.len()], false),
    ] {
        let before = server.count("rootfs.tar.xz");
        crate::support::write(&part, &left);
        let stored = fixture.fetch(NAME).await.unwrap();
        assert_same(&tree, &image, &stored);
        let requests = &server.requests();
        let asked: Vec<_> = requests.iter().filter(|r| r.contains("rootfs")).skip(before).collect();
        assert_eq!(asked.first().is_none_or(|r| r.ends_with("200000")), resumed, "{asked:?}");
        fixture.client.store().unwrap().delete(stored.fingerprint).unwrap();
    }
}

#[tokio::test]
async fn servers_that_answer_ranges_wrongly_are_survived_or_refused() {
    let tree = Tree::new();
    let image = only_image(&tree);
    let server = Server::start(tree.root());
    let fixture = Fixture::with_remote(&tree, &server.url).await;
    let whole = fs::read(tree.path(&format!("{}/rootfs.tar.xz", image.dir))).unwrap();
    let part =
        fixture.dir.path().join(format!("data/images/.staging/{}/rootfs.tar.xz.part", image.fingerprint));
    for fault in [Fault::IgnoreRange, Fault::Unsatisfiable] {
        crate::support::write(&part, &whole[..200_000]);
        server.fault("rootfs.tar.xz", fault);
        let stored = fixture.fetch(NAME).await.unwrap();
        assert_same(&tree, &image, &stored);
        fixture.client.store().unwrap().delete(stored.fingerprint).unwrap();
    }
    crate::support::write(&part, &whole[..200_000]);
    server.fault("rootfs.tar.xz", Fault::WrongRange);
    let error = fixture.fetch(NAME).await.unwrap_err();
    assert!(error.to_string().contains("another range"), "{error}");
    assert_refused!(Err::<(), _>(error), Error::Mismatch { .. });
    fixture.assert_store_empty();
    server.fault("rootfs.tar.xz", Fault::Encoded("gzip"));
    assert_refused!(fixture.fetch(NAME).await, Error::Mismatch { .. });
    fixture.assert_store_empty();
}

#[tokio::test]
async fn missing_and_failing_files_leave_the_store_unchanged() {
    let tree = Tree::new();
    let server = Server::start(tree.root());
    let fixture = Fixture::with_remote(&tree, &server.url).await;
    for (status, tries) in [(404, 1), (403, 1), (500, 2)] {
        let before = server.count("rootfs.tar.xz");
        server.fault("rootfs.tar.xz", Fault::Status(status));
        let error = fixture.fetch(NAME).await.unwrap_err().to_string();
        assert!(error.contains(&status.to_string()) && error.contains("rootfs.tar.xz"), "{error}");
        assert!(fixture.client.store().unwrap().list().unwrap().is_empty());
        assert_eq!(server.count("rootfs.tar.xz") - before, tries);
    }
    // A file shorter than stated.
    server.fault("rootfs.tar.xz", Fault::EndAfter(10));
    assert_refused!(fixture.fetch(NAME).await, Error::Network { .. });
    assert!(fixture.client.store().unwrap().list().unwrap().is_empty());
    server.heal();
    fixture.fetch(NAME).await.unwrap();
}

#[tokio::test]
async fn what_is_here_is_found_without_its_server() {
    let mut tree = Tree::new();
    let fixture = Fixture::with_remote(&tree, &tree.url()).await;
    fixture.fetch(NAME).await.unwrap();
    let newer = tree.add(crate::support::PRODUCT, "20260102_0000", 1000);
    tree.publish();
    fixture.fetch(NAME).await.unwrap();
    fs::remove_dir_all(tree.path("streams")).unwrap();
    assert!(fixture.fetch("debian/bookworm").await.is_err(), "the remote was asked for, and is gone");
    for name in ["local:debian/bookworm", "local:debian/bookworm/default/amd64", &newer.fingerprint.short()] {
        assert_eq!(fixture.fetch(name).await.unwrap().fingerprint, newer.fingerprint);
    }
    for name in ["local:debian/trixie", "local:debian/bookworm/arm64", "local:debian/bookworm/cloud"] {
        assert_refused!(fixture.fetch(name).await, Error::Image { .. });
    }
}

#[tokio::test]
async fn a_call_dropped_in_the_middle_harms_nothing() {
    let tree = Tree::new();
    let server = Server::start(tree.root());
    let fixture = Fixture::with_remote(&tree, &server.url).await;
    server.fault("rootfs.tar.xz", Fault::Silent);
    let short = std::time::Duration::from_millis(150);
    assert!(tokio::time::timeout(short, fixture.fetch(NAME)).await.is_err());
    server.heal();
    let stored = fixture.fetch(NAME).await.unwrap();
    assert_same(&tree, &only_image(&tree), &stored);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_clients_at_once_fetch_it_once() {
    let mut tree = Tree::empty();
    let image = tree.add(crate::support::PRODUCT, "20260101_0000", 3_000_000);
    tree.publish();
    let server = Server::start(tree.root());
    let one = Fixture::with_remote(&tree, &server.url).await;
    // Another client over the same directories, as another process has.
    let two = millstream_client::Client::new(crate::support::config(one.dir.path()));
    let name = NAME.parse().unwrap();
    let fetch = |client| {
        millstream_client::Client::fetch(
            client,
            &name,
            millstream_client::Keep::default(),
            &millstream_client::NoProgress,
        )
    };
    let (a, b) = tokio::join!(fetch(&one.client), fetch(&two));
    assert_same(&tree, &image, &a.unwrap());
    assert_same(&tree, &image, &b.unwrap());
    assert_eq!(server.count("rootfs.tar.xz"), 1);
    let store = one.dir.path().join("data/images");
    assert_eq!(files(&store.join(".staging")).len(), 0);
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config::with_cases(24))]
    /// Whatever an earlier process left as the beginning of a file, the file comes right.
    #[test]
    fn any_bytes_may_lie_in_a_part(
        keep in 0..5000_usize,
        noise in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..3000),
        at in 0..5000_usize,
    ) {
        let tree = Tree::empty();
        let whole = crate::support::noise("part", 5000);
        crate::support::write(&tree.path("file"), &whole);
        let server = Server::start(tree.root());
        let dir = tempfile::tempdir().unwrap();
        let mut left = whole[..keep].to_vec();
        left.splice(at.min(keep)..(at + noise.len() / 2).min(keep).max(at.min(keep)), noise);
        crate::support::write(&dir.path().join("file.part"), &left);
        let (url, dest) = (format!("{}file", server.url), dir.path().join("file"));
        let sha256 = millstream_image::Sha256Digest::of(&whole);
        let what = millstream_client::Download { url: &url, dest: &dest, size: 5000, sha256 };
        let client = millstream_client::HttpClient::new(&millstream_client::HttpOptions::default()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(client.download(&what, &millstream_client::NoProgress)).unwrap();
        proptest::prop_assert!(fs::read(&dest).unwrap() == whole);
        proptest::prop_assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
