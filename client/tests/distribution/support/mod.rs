//! A signed tree made in the test, a server that misbehaves on demand, and a client with
//! directories of its own.

pub mod server;
pub mod tls;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use chrono::{DateTime, Utc};
use millstream_client::http::{Pace, Retry};
use millstream_client::{
    Client, ClientConfig, Keep, NoProgress, Remote, Resolved, Result, StoredImage, Trust,
};
use millstream_image::archive::{Member, PackOptions, pack_members};
use millstream_image::metadata::Metadata;
use millstream_image::openpgp::{Algorithm, SigningKey};
use millstream_image::simplestreams::{
    Freshness, Index, IndexEntry, Item, ProductEntry, Products, Version, signed_path, to_bytes,
};
use millstream_image::{Fingerprint, Product, Sha256Digest};
use tempfile::TempDir;

pub use server::{Fault, Server};

pub const PRODUCT: &str = "debian:bookworm:amd64:default";
pub const NAME: &str = "r:debian/bookworm";
pub const INDEX: &str = "streams/v1/index.sjson";
pub const DAY: Duration = Duration::from_hours(24);

pub fn key() -> SigningKey {
    SigningKey::generate("Test <t@example.org>", Algorithm::Ed25519, SystemTime::now() - DAY, None).unwrap()
}

/// An image in the tree.
#[derive(Clone, Debug)]
pub struct Image {
    pub fingerprint: Fingerprint,
    /// Directory of its files, relative to the tree.
    pub dir: String,
}

/// A stream tree as the server writes it, but for its sizes.
pub struct Tree {
    dir: TempDir,
    pub key: SigningKey,
    pub generation: u64,
    pub products: Products,
}

impl Tree {
    /// A tree with one image of [`PRODUCT`], published.
    pub fn new() -> Self {
        let mut tree = Self::empty();
        tree.add(PRODUCT, "20260101_0000", 300_000);
        tree.publish();
        tree
    }

    pub fn empty() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { dir, key: key(), generation: 0, products: Products::empty("images".into()) }
    }

    pub fn root(&self) -> &Path {
        self.dir.path()
    }

    pub fn path(&self, path: &str) -> PathBuf {
        self.root().join(path)
    }

    pub fn url(&self) -> String {
        self.root().display().to_string()
    }

    /// Adds an image with a root file system of so many (pseudo-random) bytes.
    pub fn add(&mut self, product: &str, serial: &str, size: usize) -> Image {
        let arch = product.parse::<Product>().unwrap().architecture().kernel();
        self.add_with_metadata(product, serial, size, &metadata_archive(arch))
    }

    pub fn add_with_metadata(&mut self, product: &str, serial: &str, size: usize, metadata: &[u8]) -> Image {
        let path = product.parse::<Product>().unwrap().image_path(serial.parse().unwrap());
        let rootfs = noise(&path.display().to_string(), size);
        self.add_files(product, serial, metadata, &rootfs)
    }

    /// Adds an image of these two files.
    pub fn add_files(&mut self, product: &str, serial: &str, metadata: &[u8], rootfs: &[u8]) -> Image {
        let product: Product = product.parse().unwrap();
        let dir = product.image_path(serial.parse().unwrap()).display().to_string();
        let fingerprint = Fingerprint::of_split(metadata, rootfs).unwrap();
        let item = |ftype: &str, name: &str, bytes: &[u8]| {
            write(&self.path(&format!("{dir}/{name}")), bytes);
            Item {
                ftype: ftype.into(),
                path: format!("{dir}/{name}"),
                size: bytes.len() as u64,
                sha256: Some(Sha256Digest::of(bytes)),
                ..Item::default()
            }
        };
        let mut items =
            BTreeMap::from([("root.tar.xz".to_owned(), item("root.tar.xz", "rootfs.tar.xz", rootfs))]);
        for name in ["lxd.tar.xz", "incus.tar.xz"] {
            let combined = Some(fingerprint.digest());
            let item = Item {
                combined_sha256: combined,
                combined_rootxz_sha256: combined,
                ..item(name, name, metadata)
            };
            items.insert(name.into(), item);
        }
        let aliases: Vec<_> = product.aliases([]).iter().map(ToString::to_string).collect();
        let entry = self.products.products.entry(product.to_string()).or_insert_with(|| ProductEntry {
            aliases: aliases.join(","),
            arch: product.architecture().debian().into(),
            os: "Debian".into(),
            release: product.release().into(),
            release_title: product.release().into(),
            variant: product.variant().into(),
            ..ProductEntry::default()
        });
        entry.versions.insert(serial.into(), Version { items });
        Image { fingerprint, dir }
    }

    /// Writes and signs all documents as the next generation.
    pub fn publish(&mut self) {
        self.publish_with(|_| {});
    }

    /// As [`Tree::publish`], with a hand on the index before it is signed.
    pub fn publish_with(&mut self, change: impl FnOnce(&mut Index)) {
        self.generation += 1;
        let products = to_bytes(&self.products).unwrap();
        let sha256 = Sha256Digest::of(&products);
        let by_hash = format!("streams/v1/by-hash/{sha256}.json");
        let now: DateTime<Utc> = SystemTime::now().into();
        let entry = IndexEntry {
            datatype: "image-downloads".into(),
            path: "streams/v1/images.json".into(),
            format: "products:1.0".into(),
            products: self.products.products.keys().cloned().collect(),
            sha256: Some(sha256),
            size: Some(products.len() as u64),
            by_hash: Some(by_hash.clone()),
            ..IndexEntry::default()
        };
        let freshness = Freshness {
            path: "streams/v1/index.json".into(),
            created: now,
            expires: now + DAY,
            generation: self.generation,
            keys: Vec::new(),
        };
        let index = Index {
            format: "index:1.0".into(),
            index: BTreeMap::from([("images".to_owned(), entry)]),
            updated: now.to_rfc2822(),
            millstream: Some(freshness),
        };
        let mut signed = index.clone().for_signed_readers();
        change(&mut signed);
        write(&self.path(&by_hash), &products);
        write(&self.path("streams/v1/images.json"), &products);
        self.sign("streams/v1/images.json", &products);
        write(&self.path("streams/v1/index.json"), &to_bytes(&index).unwrap());
        self.sign("streams/v1/index.json", &to_bytes(&signed).unwrap());
        write(&self.path("key.asc"), self.key.keyring().to_armored().unwrap().as_bytes());
    }

    /// Writes the signed form of a document.
    pub fn sign(&self, path: &str, bytes: &[u8]) {
        let text = std::str::from_utf8(bytes).unwrap();
        let signed = self.key.sign_cleartext(text, SystemTime::now()).unwrap();
        write(&self.path(&signed_path(path)), signed.as_bytes());
    }

    /// All documents, to be put back later: what a frozen or rewound server shows.
    pub fn snapshot(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        files(&self.path("streams"))
    }
}

/// Puts documents back that [`Tree::snapshot`] took.
pub fn restore(snapshot: &BTreeMap<PathBuf, Vec<u8>>) {
    for (path, bytes) in snapshot {
        write(path, bytes);
    }
}

/// `lxd.tar.xz` for an architecture, by the kernel's name.
pub fn metadata_archive(arch: &str) -> Vec<u8> {
    let metadata = Metadata { architecture: arch.into(), creation_date: 1, ..Metadata::default() };
    let yaml = metadata.to_yaml().unwrap();
    let members = BTreeMap::from([(PathBuf::from("metadata.yaml"), Member::file(yaml))]);
    pack_members(&members, Vec::new(), &PackOptions::default()).unwrap().0
}

/// Bytes that look random and are the same for the same seed.
pub fn noise(seed: &str, size: usize) -> Vec<u8> {
    let mut state = Sha256Digest::of(seed.as_bytes());
    let mut bytes = Vec::with_capacity(size + 32);
    while bytes.len() < size {
        bytes.extend_from_slice(state.as_bytes());
        state = Sha256Digest::of(state.as_bytes());
    }
    bytes.truncate(size);
    bytes
}

pub fn write(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// Every file below a directory, with its bytes.
pub fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else {
                found.insert(path.clone(), fs::read(path).unwrap());
            }
        }
    }
    found
}

/// Flips a bit in the middle of a file.
pub fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}

/// A client whose directories live as long as it does.
pub struct Fixture {
    pub dir: TempDir,
    pub client: Client,
}

impl Fixture {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let client = Client::new(config(dir.path()));
        Self { dir, client }
    }

    /// A client whose remote `r` is this tree, at this URL.
    pub async fn with_remote(tree: &Tree, url: &str) -> Self {
        let fixture = Self::new();
        fixture.add(tree, url).await.unwrap();
        fixture
    }

    pub async fn add(&self, tree: &Tree, url: &str) -> Result<()> {
        let remote = Remote::new(url, Trust::pin(&tree.key.keyring())?, None)?;
        self.client.add_remote(&"r".parse()?, remote).await.map(drop)
    }

    pub async fn fetch(&self, name: &str) -> Result<StoredImage> {
        self.client.fetch(&name.parse()?, Keep::default(), &NoProgress).await
    }

    pub async fn resolve(&self, name: &str) -> Result<Fingerprint> {
        Ok(match self.client.resolve(&name.parse()?).await? {
            Resolved::Local(image) => image.fingerprint,
            Resolved::Remote(_, image) => image.fingerprint,
        })
    }

    /// Nothing of a refused image may stay: no row, no directory, nothing staged but what an
    /// interrupted transfer may resume.
    pub fn assert_store_empty(&self) {
        assert!(self.client.store().unwrap().list().unwrap().is_empty());
        let left: Vec<_> = files(&self.dir.path().join("data/images"))
            .into_keys()
            .filter(|path| {
                let name = path.file_name().unwrap().to_str().unwrap();
                !name.starts_with("images.db") && name != ".lock"
            })
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

pub fn config(dir: &Path) -> ClientConfig {
    let mut config = ClientConfig::new(&dir.join("config"), &dir.join("data"), &dir.join("cache"));
    config.architecture = "amd64".parse().unwrap();
    config.http.pace = Pace { window: Duration::from_millis(500), bytes: 1024 };
    config.http.retry = Retry { tries: 2, pause: Duration::from_millis(10) };
    config
}

/// The stored image really is the tree's.
pub fn assert_same(tree: &Tree, image: &Image, stored: &StoredImage) {
    assert_eq!(stored.fingerprint, image.fingerprint);
    let rootfs = fs::read(tree.path(&format!("{}/rootfs.tar.xz", image.dir))).unwrap();
    assert!(fs::read(&stored.rootfs).unwrap() == rootfs, "{} is not the tree's", stored.rootfs.display());
}

/// The image of a tree made by [`Tree::new`].
pub fn only_image(tree: &Tree) -> Image {
    let (serial, version) = tree.products.products[PRODUCT].versions.first_key_value().unwrap();
    let fingerprint = version.items["lxd.tar.xz"].combined_sha256.unwrap();
    let dir = PRODUCT.parse::<Product>().unwrap().image_path(serial.parse().unwrap());
    Image { fingerprint: Fingerprint::new(fingerprint), dir: dir.display().to_string() }
}

/// Fails unless the error is of the kind expected.
macro_rules! assert_refused {
    ($result:expr, $pattern:pat) => {
        match $result {
            Err($pattern) => {}
            other => panic!("expected {}, got {:?}", stringify!($pattern), other.map(|_| ())),
        }
    };
}
pub(crate) use assert_refused;
