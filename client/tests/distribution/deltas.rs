//! Newer images out of older ones: fewer bytes, the very same image, and the whole file when a delta
//! is damaged, hostile, or of another image.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Seek;
use std::path::PathBuf;

use crate::support::{
    Fault, Fixture, Image, NAME, PRODUCT, Server, Tree, assert_same, metadata_archive, noise,
};
use millstream_client::{Keep, NoProgress, StoredImage};
use millstream_image::Sha256Digest;
use millstream_image::archive::{Compression, Member, PackOptions, Watch, XzOptions, pack_members};
use millstream_image::delta::{self, Limits, MakeOptions};
use millstream_image::simplestreams::Item;

fn serial(day: u32) -> String {
    format!("202601{day:02}_0000")
}

/// A root file system of which a little changes every day.
fn rootfs(day: u32) -> Vec<u8> {
    let mut files: BTreeMap<_, _> = (0..6)
        .map(|n| (PathBuf::from(format!("file{n}")), Member::file(noise(&format!("{n}"), 40_000))))
        .collect();
    files.insert("day".into(), Member::file(noise(&serial(day), 500)));
    let xz = XzOptions { level: 1, bcj: None, threads: 1, block_size: 64 << 10 };
    let options = PackOptions { compression: Compression::Xz, xz, ..PackOptions::default() };
    pack_members(&files, Vec::new(), &options).unwrap().0
}

/// A tree with images of some days, without deltas.
struct Days {
    tree: Tree,
    images: BTreeMap<u32, Image>,
}

impl Days {
    fn new(first: u32) -> Self {
        let mut days = Self { tree: Tree::empty(), images: BTreeMap::new() };
        days.add(first);
        days
    }

    fn add(&mut self, day: u32) -> Image {
        let image = self.tree.add_files(PRODUCT, &serial(day), &metadata_archive("x86_64"), &rootfs(day));
        let file = File::open(self.tree.path(&format!("{}/rootfs.tar.xz", image.dir))).unwrap();
        let tar = delta::unpack(&file, self.tree.root(), &Limits::default(), &Watch::default());
        let mut tar = tar.unwrap();
        tar.rewind().unwrap();
        let product = self.tree.products.products.get_mut(PRODUCT).unwrap();
        let items = &mut product.versions.get_mut(&serial(day)).unwrap().items;
        items.get_mut("root.tar.xz").unwrap().sha256_uncompressed =
            Some(Sha256Digest::of_reader(tar).unwrap().0);
        self.images.insert(day, image.clone());
        self.tree.publish();
        image
    }

    /// Lists a delta between two days; `change` has a hand on its bytes first.
    fn list(&mut self, base: u32, day: u32, from: u32, change: impl FnOnce(&mut Vec<u8>)) -> String {
        let path = |tree: &Tree, image: &Image| tree.path(&format!("{}/rootfs.tar.xz", image.dir));
        let (old, new) = (path(&self.tree, &self.images[&from]), path(&self.tree, &self.images[&day]));
        let mut out = tempfile::NamedTempFile::new().unwrap();
        let options =
            MakeOptions { threads: 1, limits: Limits::default(), most: u64::MAX, watch: Watch::default() };
        delta::make(&old, &new, out.as_file_mut(), self.tree.root(), &options).unwrap();
        let mut bytes = fs::read(out.path()).unwrap();
        change(&mut bytes);
        let name = format!("rootfs.{}.delta", serial(base));
        let path = format!("{}/{name}", self.images[&day].dir);
        crate::support::write(&self.tree.path(&path), &bytes);
        let item = Item {
            ftype: "root.tar.xz.delta".into(),
            path,
            size: bytes.len() as u64,
            sha256: Some(Sha256Digest::of(&bytes)),
            delta_base: Some(serial(base)),
            ..Item::default()
        };
        let product = self.tree.products.products.get_mut(PRODUCT).unwrap();
        product.versions.get_mut(&serial(day)).unwrap().items.insert(name.clone(), item);
        self.tree.publish();
        name
    }
}

/// Only what the delta saved is missing: the image proves right, and comes out bit-exact.
fn assert_by_delta(days: &Days, fixture: &Fixture, day: u32, stored: &StoredImage) {
    let store = fixture.client.store().unwrap();
    let image = &days.images[&day];
    assert_eq!(stored.fingerprint, image.fingerprint);
    assert!(stored.uncompressed.is_some() && stored.rootfs.ends_with("rootfs.tar"));
    store.verify(stored).unwrap();
    let out = tempfile::tempdir().unwrap();
    let files = store.export(stored, out.path()).unwrap();
    let original = fs::read(days.tree.path(&format!("{}/rootfs.tar.xz", image.dir))).unwrap();
    assert!(fs::read(&files[1]).unwrap() == original);
    let whole = store.get(stored.fingerprint).unwrap().unwrap();
    assert_same(&days.tree, image, &whole);
    store.verify(&whole).unwrap();
    let left = fs::read_dir(whole.rootfs.parent().unwrap()).unwrap().count();
    assert_eq!(left, 3, "record, metadata and root file system");
}

#[tokio::test]
async fn a_newer_image_comes_as_a_delta_and_is_the_same() {
    let mut days = Days::new(1);
    let server = Server::start(days.tree.root());
    let fixture = Fixture::with_remote(&days.tree, &server.url).await;
    fixture.fetch(NAME).await.unwrap();
    days.add(2);
    days.list(1, 2, 1, |_| {});
    let before = server.count("rootfs.tar.xz");
    let stored = fixture.fetch(NAME).await.unwrap();
    assert_eq!(server.count("rootfs.tar.xz"), before, "the whole was not asked for");
    assert_by_delta(&days, &fixture, 2, &stored);
}

#[tokio::test]
async fn refreshing_goes_by_deltas_day_by_day() {
    let mut days = Days::new(1);
    let server = Server::start(days.tree.root());
    let fixture = Fixture::with_remote(&days.tree, &server.url).await;
    let keep = Keep { cached: false, auto_update: true };
    fixture.client.fetch(&NAME.parse().unwrap(), keep, &NoProgress).await.unwrap();
    let store = fixture.client.store().unwrap();
    let refresh = async || {
        let images = store.list().unwrap();
        let mut done = fixture.client.refresh(images, &BTreeSet::new(), &NoProgress).await.unwrap();
        assert_eq!(done.len(), 1);
        done.remove(0).newer.unwrap()
    };
    for day in 2..=4 {
        days.add(day);
        days.list(day - 1, day, day - 1, |_| {});
        let newer = refresh().await.unwrap();
        assert_eq!(newer.fingerprint, days.images[&day].fingerprint);
        assert!(newer.uncompressed.is_some());
        store.verify(&newer).unwrap();
    }
    assert_eq!(server.count("rootfs.tar.xz"), 1, "only the first came whole");
    // With nothing new, what was put off is done.
    assert!(refresh().await.is_none());
    let last = store.list().unwrap().remove(0);
    assert_same(&days.tree, &days.images[&4], &last);
}

#[tokio::test]
async fn deltas_that_cannot_be_used_give_way_to_the_whole_file() {
    let mut days = Days::new(1);
    days.add(2);
    let server = Server::start(days.tree.root());
    let fixture = Fixture::with_remote(&days.tree, &server.url).await;
    let store = fixture.client.store().unwrap();
    let base = days.images[&1].fingerprint;
    fixture.fetch(&format!("r:{base}")).await.unwrap();
    let whole = async |days: &Days, what: &str| {
        let stored = fixture.fetch(NAME).await.unwrap();
        assert!(stored.uncompressed.is_none(), "{what}");
        assert_same(&days.tree, &days.images[&2], &stored);
        store.verify(&stored).unwrap();
        store.delete(stored.fingerprint).unwrap();
        assert_eq!(store.list().unwrap().len(), 1);
    };
    // Signed as they are, and damaged anywhere.
    for at in [0, 20, 60, 110, 150, 200, 400, 700] {
        days.list(1, 2, 1, |bytes| {
            let at = at.min(bytes.len() - 1);
            bytes[at] ^= 0x10;
        });
        whole(&days, &format!("a bit changed at {at}")).await;
    }
    days.list(1, 2, 1, |bytes| bytes.truncate(bytes.len() / 2));
    whole(&days, "cut off").await;
    days.list(1, 2, 1, |bytes| *bytes = b"no delta at all".to_vec());
    whole(&days, "no delta").await;
    // From an image that is not the one it claims.
    days.add(3);
    days.images.insert(9, days.images[&3].clone());
    days.list(1, 3, 2, |_| {});
    let stored = fixture.fetch(NAME).await.unwrap();
    assert_same(&days.tree, &days.images[&3], &stored);
    store.delete(stored.fingerprint).unwrap();
    // Right, but the server does not have it, sends other bytes, or breaks off.
    let name = days.list(1, 3, 1, |_| {});
    for fault in [Fault::Status(404), Fault::Replace(vec![0; 900]), Fault::EndAfter(100)] {
        server.fault(&name, fault);
        let stored = fixture.fetch(NAME).await.unwrap();
        assert_same(&days.tree, &days.images[&3], &stored);
        store.delete(stored.fingerprint).unwrap();
    }
    server.heal();
    let stored = fixture.fetch(NAME).await.unwrap();
    assert_by_delta(&days, &fixture, 3, &stored);
}

#[tokio::test]
async fn damage_to_what_a_delta_made_is_noticed() {
    let mut days = Days::new(1);
    let fixture = Fixture::with_remote(&days.tree, &days.tree.url()).await;
    fixture.fetch(NAME).await.unwrap();
    days.add(2);
    days.list(1, 2, 1, |_| {});
    let stored = fixture.fetch(NAME).await.unwrap();
    // In the file of the day, which no block of the base holds.
    let mut bytes = fs::read(&stored.rootfs).unwrap();
    bytes[600] ^= 1;
    fs::write(&stored.rootfs, bytes).unwrap();
    let store = fixture.client.store().unwrap();
    assert!(store.verify(&stored).is_err());
    let out = tempfile::tempdir().unwrap();
    assert!(store.export(&stored, out.path()).is_err());
    assert_eq!(fs::read_dir(out.path()).unwrap().count(), 0);
}
