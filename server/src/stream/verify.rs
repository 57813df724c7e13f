//! Everything in a tree checked against its key: signatures, hashes, references, and that nothing
//! lies there which no document knows.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::SystemTime;

use chrono::{DateTime, Utc};
use millstream_image::manifest::Manifest;
use millstream_image::openpgp::Keyring;
use millstream_image::simplestreams::{IMAGES_PATH, INDEX_PATH, Index, Item, Products, Version, signed_path};
use millstream_image::sums::Sums;
use millstream_image::{Product, Serial, Sha256Digest, lxc_index};
use serde::Serialize;

use super::layout::{
    BY_HASH, DOCUMENTS, IMAGES, KEY, LINKS, LOCK, LOG, MANIFEST, METADATA, ROOTFS, SIGNED, SQUASHFS, STAGING,
    SUMS,
};
use super::lock::Lock;
use super::place::hash;
use super::{Stream, TEMPORARY};
use crate::{Error, Result};

/// What a check of a whole tree found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Images checked.
    pub images: usize,
    /// Files read.
    pub files: usize,
    /// Bytes hashed.
    pub bytes: u64,
    /// Everything that is wrong, by path.
    pub problems: Vec<Problem>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Problem {
    /// The file or directory, from the root of the tree.
    pub path: PathBuf,
    /// What is wrong with it.
    pub reason: String,
}

impl Stream {
    /// Checks everything at the time `now`. Publishers wait only while names are read, not while
    /// images are hashed.
    ///
    /// # Errors
    /// When the tree cannot be read at all; whatever is wrong with its contents is in the report.
    pub fn verify(&self, now: SystemTime) -> Result<Report> {
        let lock = Lock::shared(&self.root)?;
        let keyring = self.keyring()?;
        let check = Check::new(&self.root, &keyring, now);
        check.links();
        let products = check.documents();
        let images: Vec<_> = products.iter().flat_map(images_of).collect();
        check.strays(&images);
        drop(lock);
        check.images(&images);
        Ok(check.finish(images.len()))
    }
}

type Image<'a> = (Product, Serial, &'a Version);

fn images_of(products: &Products) -> impl Iterator<Item = Image<'_>> {
    products.products.iter().flat_map(|(name, entry)| {
        let product: Option<Product> = name.parse().ok();
        entry
            .versions
            .iter()
            .filter_map(move |(serial, version)| Some((product.clone()?, serial.parse().ok()?, version)))
    })
}

struct Check<'a> {
    root: &'a Path,
    keyring: &'a Keyring,
    now: SystemTime,
    report: Mutex<Report>,
}

impl<'a> Check<'a> {
    fn new(root: &'a Path, keyring: &'a Keyring, now: SystemTime) -> Self {
        Self { root, keyring, now, report: Mutex::default() }
    }

    fn finish(self, images: usize) -> Report {
        let mut report = self.report.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        report.images = images;
        report.problems.sort();
        report.problems.dedup();
        report
    }

    fn with_report(&self, change: impl FnOnce(&mut Report)) {
        change(&mut self.report.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
    }

    fn problem(&self, path: impl AsRef<Path>, reason: impl Into<String>) {
        let problem = Problem { path: path.as_ref().to_path_buf(), reason: reason.into() };
        self.with_report(|report| report.problems.push(problem));
    }

    /// The value, or a problem.
    fn or_problem<T>(&self, path: impl AsRef<Path>, result: Result<T, impl ToString>) -> Option<T> {
        result.map_err(|error| self.problem(path, error.to_string())).ok()
    }

    fn read(&self, path: &str) -> Option<Vec<u8>> {
        let bytes = self.or_problem(path, fs::read(self.root.join(path)))?;
        self.with_report(|report| {
            report.files += 1;
            report.bytes += bytes.len() as u64;
        });
        Some(bytes)
    }

    fn links(&self) {
        for (name, target) in LINKS {
            match fs::read_link(self.root.join(name)) {
                Ok(found) if found == Path::new(target) => {}
                Ok(found) => self.problem(name, format!("leads to {}, not to {target}", found.display())),
                Err(error) => self.problem(name, format!("not a link to {target}: {error}")),
            }
        }
    }

    /// Checks all documents; the products when they can be read.
    fn documents(&self) -> Option<Products> {
        let index_path = signed_path(INDEX_PATH);
        let plain = self.detached(INDEX_PATH, &format!("{INDEX_PATH}.gpg"));
        let signed = self.cleartext(&index_path);
        let products = self.detached(IMAGES_PATH, &format!("{IMAGES_PATH}.gpg"));
        if let (Some(text), Some(products)) = (self.cleartext(&signed_path(IMAGES_PATH)), &products)
            && text != *products
        {
            self.problem(signed_path(IMAGES_PATH), format!("its text is not that of {IMAGES_PATH}"));
        }
        let index = plain.and_then(|bytes| self.or_problem(INDEX_PATH, Index::parse(&bytes)));
        if let (Some(index), Some(text)) = (&index, signed)
            && let Some(signed) = self.or_problem(&index_path, Index::parse(&text))
            && signed != index.for_signed_readers()
        {
            self.problem(&index_path, format!("it says something else than {INDEX_PATH}"));
        }
        let products = products?;
        if let Some(index) = index {
            self.index(&index, &products);
        }
        let products = self.or_problem(IMAGES_PATH, Products::parse(&products))?;
        self.lxc(&products);
        Some(products)
    }

    fn index(&self, index: &Index, products: &[u8]) {
        match &index.millstream {
            None => self.problem(INDEX_PATH, "it states no generation and no expiry"),
            Some(freshness) if freshness.path != INDEX_PATH => {
                self.problem(INDEX_PATH, format!("it says it is {}", freshness.path));
            }
            Some(freshness) if freshness.expires <= DateTime::<Utc>::from(self.now) => {
                let reason =
                    format!("it expired at {}; run: millstream stream sign", freshness.expires.to_rfc3339());
                self.problem(INDEX_PATH, reason);
            }
            Some(_) => {}
        }
        let Some(entry) = index.index.get("images") else {
            return self.problem(INDEX_PATH, format!("it does not list {IMAGES_PATH}"));
        };
        let digest = Sha256Digest::of(products);
        if entry.sha256 != Some(digest) || entry.size != Some(products.len() as u64) {
            self.problem(IMAGES_PATH, "size or SHA-256 is not what the index says");
        }
        if entry.by_hash != Some(format!("{BY_HASH}/{digest}.json")) {
            self.problem(INDEX_PATH, format!("by_hash does not name {IMAGES_PATH} by its hash"));
        }
        self.by_hash(entry.by_hash.as_deref());
    }

    /// Every document named by its hash has that hash, and the present one is among them.
    fn by_hash(&self, present: Option<&str>) {
        let Some(listing) = self.or_problem(BY_HASH, fs::read_dir(self.root.join(BY_HASH))) else { return };
        let mut names = BTreeSet::new();
        for item in listing.flatten() {
            let name = format!("{BY_HASH}/{}", item.file_name().to_string_lossy());
            if let Some(bytes) = self.read(&name)
                && name != format!("{BY_HASH}/{}.json", Sha256Digest::of(&bytes))
            {
                self.problem(&name, "its name is not its hash");
            }
            names.insert(name);
        }
        if let Some(present) = present.filter(|present| !names.contains(*present)) {
            self.problem(present, "missing, and the index lists it");
        }
    }

    fn lxc(&self, products: &Products) {
        let newest = products.products.iter().filter_map(|(name, entry)| {
            Some(lxc_index::Entry::new(name.parse().ok()?, entry.serials().max()?))
        });
        let expected = lxc_index::to_text(&newest.collect::<Vec<_>>());
        for mode in ["system", "user"] {
            let levels = (1..=lxc_index::COMPAT_LEVEL).map(|level| format!(".{level}"));
            for suffix in std::iter::once(String::new()).chain(levels) {
                let path = format!("meta/1.0/index-{mode}{suffix}");
                let text = self.detached(&path, &format!("{path}.asc"));
                if text.is_some_and(|text| text != expected.as_bytes()) {
                    self.problem(&path, format!("it does not list the newest images of {IMAGES_PATH}"));
                }
            }
        }
    }

    fn detached(&self, path: &str, signature: &str) -> Option<Vec<u8>> {
        let (bytes, signature_bytes) = (self.read(path)?, self.read(signature)?);
        let verified = self.keyring.verify_detached(bytes.as_slice(), &signature_bytes, self.now);
        self.or_problem(signature, verified)?;
        Some(bytes)
    }

    fn cleartext(&self, path: &str) -> Option<Vec<u8>> {
        let verified = self.keyring.verify_cleartext(&self.read(path)?, self.now);
        self.or_problem(path, verified).map(|(text, _)| text)
    }

    /// Checks images on all processors, the next one to whoever is free.
    fn images(&self, images: &[Image<'_>]) {
        let next = AtomicUsize::new(0);
        let workers = thread::available_parallelism().map_or(1, NonZero::get).min(images.len());
        thread::scope(|scope| {
            for _ in 0..workers {
                scope.spawn(|| {
                    while let Some(image) = images.get(next.fetch_add(1, Ordering::Relaxed)) {
                        self.image(image);
                    }
                });
            }
        });
    }

    fn image(&self, (product, serial, version): &Image<'_>) {
        let dir = product.image_path(*serial);
        let prefixes: Vec<_> = METADATA.iter().map(|name| self.root.join(&dir).join(name)).collect();
        for item in version.items.values() {
            if Path::new(&item.path).parent() != Some(&dir) {
                self.problem(&item.path, format!("listed by {product} {serial}, and not in its directory"));
                continue;
            }
            self.item(item, version, &prefixes);
        }
        for name in [ROOTFS, METADATA[0], METADATA[1], MANIFEST] {
            let path = dir.join(name);
            if !version.items.values().any(|item| Path::new(&item.path) == path) {
                self.problem(path, format!("no item of {product} {serial} is this file"));
            }
        }
        self.beside(&dir, product, *serial, version);
        for name in SIGNED {
            let path = dir.join(name);
            let signature_path = dir.join(format!("{name}.asc"));
            let Some(file) = self.or_problem(&path, File::open(self.root.join(&path))) else { continue };
            let Some(signature) = self.or_problem(&signature_path, fs::read(self.root.join(&signature_path)))
            else {
                continue;
            };
            self.or_problem(&signature_path, self.keyring.verify_detached(file, &signature, self.now));
        }
    }

    fn item(&self, item: &Item, version: &Version, prefixes: &[PathBuf]) {
        let root = item.path.ends_with(ROOTFS) || item.path.ends_with(SQUASHFS);
        let hashed = hash(&self.root.join(&item.path), if root { prefixes } else { &[] });
        let (sha256, size, combined) = match hashed {
            Ok(hashed) => hashed,
            Err(Error::Io { path, source }) => {
                let path = path.strip_prefix(self.root).unwrap_or(&path).to_path_buf();
                return self.problem(path, source.to_string());
            }
            Err(error) => return self.problem(&item.path, error.to_string()),
        };
        self.with_report(|report| {
            report.files += 1;
            report.bytes += size;
        });
        if size != item.size {
            self.problem(&item.path, format!("{size} bytes, documents say {}", item.size));
        } else if Some(sha256) != item.sha256 {
            self.problem(&item.path, format!("SHA-256 is {sha256}, documents say something else"));
        }
        for (name, combined) in METADATA.iter().zip(combined) {
            let Some(metadata) = version.items.get(*name) else { continue };
            let stated = if item.path.ends_with(SQUASHFS) {
                [metadata.combined_squashfs_sha256; 2]
            } else {
                [metadata.combined_sha256, metadata.combined_rootxz_sha256]
            };
            if stated.iter().any(|stated| *stated != Some(combined)) {
                self.problem(
                    &metadata.path,
                    format!("its fingerprint with {} is {combined}, documents say something else", item.path),
                );
            }
        }
    }

    /// The manifest and `SHA256SUMS` say what the documents say.
    fn beside(&self, dir: &Path, product: &Product, serial: Serial, version: &Version) {
        let path = dir.join(MANIFEST);
        let manifest = self
            .or_problem(&path, fs::read(self.root.join(&path)))
            .and_then(|bytes| self.or_problem(&path, Manifest::parse(&bytes)));
        let Some(manifest) = manifest else { return };
        if (&manifest.product, manifest.serial) != (product, serial) {
            self.problem(&path, format!("it is the manifest of {} {}", manifest.product, manifest.serial));
        }
        for item in version.items.values().filter(|item| item.ftype != MANIFEST) {
            let name = item.path.rsplit('/').next().unwrap_or_default();
            if manifest.files.get(name).map(|file| file.sha256) != item.sha256 {
                self.problem(&path, format!("its digest of {name} is not that of the documents"));
            }
        }
        let path = dir.join(SUMS);
        let sums = self
            .or_problem(&path, fs::read_to_string(self.root.join(&path)))
            .and_then(|text| self.or_problem(&path, Sums::parse(&text)));
        let expected = Sums(manifest.files.iter().map(|(name, file)| (name.clone(), file.sha256)).collect());
        if sums.is_some_and(|sums| sums != expected) {
            self.problem(&path, "it contradicts manifest.json");
        }
        for (name, file) in &manifest.files {
            let path = dir.join(name);
            if version.items.values().any(|item| Path::new(&item.path) == path) {
                continue;
            }
            if let Some((sha256, size, _)) = self.or_problem(&path, hash(&self.root.join(&path), &[]))
                && (sha256, size) != (file.sha256, file.size)
            {
                self.problem(&path, "size or SHA-256 is not what manifest.json says");
            }
        }
    }

    /// Files and directories that no document knows.
    fn strays(&self, images: &[Image<'_>]) {
        let top = [DOCUMENTS, STAGING, LOCK, KEY, IMAGES];
        let links = LINKS.map(|(name, _)| name);
        for name in self.names(Path::new("")) {
            if !top.contains(&name.as_str())
                && !links.contains(&name.as_str())
                && !name.starts_with(TEMPORARY)
            {
                self.problem(name, "nothing knows this file");
            }
        }
        let listed: BTreeSet<_> =
            images.iter().map(|(product, serial, _)| product.image_path(*serial)).collect();
        self.stray_images(Path::new(IMAGES), &listed);
    }

    fn stray_images(&self, dir: &Path, listed: &BTreeSet<PathBuf>) {
        for name in self.names(dir) {
            let path = dir.join(&name);
            if listed.contains(&path) {
                self.stray_files(&path);
            } else if self.root.join(&path).is_dir() && path.components().count() < 6 {
                self.stray_images(&path, listed);
            } else {
                self.problem(path, "no document lists it");
            }
        }
    }

    fn stray_files(&self, image: &Path) {
        let manifest = fs::read(self.root.join(image).join(MANIFEST)).ok();
        let Some(manifest) = manifest.and_then(|bytes| Manifest::parse(&bytes).ok()) else {
            return; // Reported with the image.
        };
        for name in self.names(image) {
            let signed = name.strip_suffix(".asc").is_some_and(|name| SIGNED.contains(&name));
            let known = [MANIFEST, LOG, SUMS].contains(&name.as_str()) || manifest.files.contains_key(&name);
            if !signed && !known {
                self.problem(image.join(name), "its manifest does not list it");
            }
        }
    }

    fn names(&self, dir: &Path) -> Vec<String> {
        let listing = self.or_problem(dir, fs::read_dir(self.root.join(dir)));
        let names = listing.into_iter().flatten().flatten();
        names.map(|item| item.file_name().to_string_lossy().into_owned()).collect()
    }
}
