//! What a tree offers: the products of the last publication, read back from its own documents, so
//! that adding an image never reads another image.
//!
//! Each distribution has a product document of its own. One is read when it is asked for, so that
//! adding an image costs work for its distribution, not for the whole tree.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};
use std::time::SystemTime;

use chrono::{DateTime, Utc};
use millstream_image::manifest::Manifest;
use millstream_image::openpgp::Keyring;
use millstream_image::simplestreams::{
    Freshness, INDEX_PATH, Index, IndexEntry, Item, ProductEntry, Products, Version, signed_path,
};
use millstream_image::{Alias, Fingerprint, Product, Serial, Sha256Digest, lxc_index};

use super::layout::{COMBINED, CURRENT, META, METADATA, ROOTFS, SQUASHFS};
use crate::{Error, Result};

/// The last publication, and what the next one changes.
pub(super) struct Catalogue {
    root: PathBuf,
    /// What the index says of itself; `None` before the first publication.
    pub(super) freshness: Option<Freshness>,
    /// The entries of the index, by distribution.
    pub(super) entries: BTreeMap<String, IndexEntry>,
    /// Product documents as far as they were asked for, by distribution.
    documents: BTreeMap<String, Document>,
    /// LXC's index as it is published, if it was read.
    pub(super) lxc: Option<String>,
}

/// A product document that is being read while nobody knows yet whether it is the right one.
pub(super) struct Ahead(JoinHandle<Option<(Sha256Digest, Products)>>);

impl Ahead {
    /// Begins to read what is published of a distribution.
    pub(super) fn read(root: &Path, distribution: &str) -> Self {
        let file = root.join(CURRENT).join(document_path(distribution));
        Self(thread::spawn(move || {
            let bytes = fs::read(file).ok()?;
            Some((Sha256Digest::of(&bytes), Products::parse(&bytes).ok()?))
        }))
    }
}

/// A product document.
pub(super) struct Document {
    pub(super) products: Products,
    /// Whether it is not as published.
    pub(super) changed: bool,
    /// Whether nothing that follows from it is taken from what is published.
    pub(super) renewed: bool,
}

impl Document {
    fn new(products: Products, changed: bool) -> Self {
        Self { products, changed, renewed: false }
    }
}

/// An image that is ready to be listed.
pub(super) struct Listing {
    /// How it came to be.
    pub(super) manifest: Manifest,
    /// Its files as documents list them.
    pub(super) items: BTreeMap<String, Item>,
}

/// The name of a distribution's document in the index.
pub(super) fn content_id(distribution: &str) -> String {
    format!("images:{distribution}")
}

/// Where a distribution's document stands in the tree.
pub(super) fn document_path(distribution: &str) -> String {
    format!("streams/v1/images-{distribution}.json")
}

impl Catalogue {
    /// Nothing yet.
    pub(super) fn empty(root: &Path) -> Self {
        let (entries, documents) = (BTreeMap::new(), BTreeMap::new());
        Self { root: root.to_path_buf(), freshness: None, entries, documents, lxc: None }
    }

    /// Reads the present index. What was changed behind the key's back is not built upon.
    pub(super) fn load(root: &Path, keyring: &Keyring, now: SystemTime) -> Result<Self> {
        let file = root.join(CURRENT).join(signed_path(INDEX_PATH));
        let message = fs::read(&file).map_err(Error::io(&file))?;
        let (text, _) = keyring.verify_cleartext(&message, now).map_err(Error::image(&file))?;
        let index = Index::parse(&text).map_err(Error::image(&file))?;
        let freshness = index.millstream.ok_or_else(|| Error::tree(&file, "it states no generation"))?;
        let mut catalogue = Self { freshness: Some(freshness), ..Self::empty(root) };
        for (name, mut entry) in index.index {
            let Some(distribution) = name.strip_prefix("images:") else {
                return Err(Error::tree(&file, format!("it lists {name:?}, which is not ours")));
            };
            entry.path = document_path(distribution);
            catalogue.entries.insert(distribution.to_owned(), entry);
        }
        Ok(catalogue)
    }

    /// The present generation; 0 before the first.
    pub(super) fn generation(&self) -> u64 {
        self.freshness.as_ref().map_or(0, |f| f.generation)
    }

    /// Reads the document of a distribution; one that there is none of is empty.
    pub(super) fn document(&mut self, distribution: &str) -> Result<&mut Document> {
        if !self.documents.contains_key(distribution) {
            let products = match self.entries.get(distribution) {
                Some(entry) => self.read(entry)?,
                None => Products::empty(content_id(distribution)),
            };
            self.documents.insert(distribution.to_owned(), Document::new(products, false));
        }
        self.documents
            .get_mut(distribution)
            .ok_or_else(|| Error::tree(&self.root, format!("no document of {distribution}")))
    }

    /// Reads the document of a distribution, or takes the one read ahead if it is what the index says.
    pub(super) fn take(&mut self, distribution: &str, ahead: Ahead) -> Result<()> {
        let expected = self.entries.get(distribution).and_then(|entry| entry.sha256);
        // What could not be read says why when it is read again.
        if let Some((found, products)) = ahead.0.join().ok().flatten()
            && Some(found) == expected
        {
            let document = || Document::new(products, false);
            self.documents.entry(distribution.to_owned()).or_insert_with(document);
        }
        self.document(distribution).map(drop)
    }

    fn read(&self, entry: &IndexEntry) -> Result<Products> {
        let file = self.root.join(CURRENT).join(&entry.path);
        let bytes = fs::read(&file).map_err(Error::io(&file))?;
        if entry.sha256 != Some(Sha256Digest::of(&bytes)) {
            return Err(Error::tree(&file, "not what the signed index says; find out who changed it"));
        }
        Products::parse(&bytes).map_err(Error::image(&file))
    }

    /// Reads every document.
    pub(super) fn read_all(&mut self) -> Result<()> {
        let distributions: Vec<_> = self.entries.keys().cloned().collect();
        distributions.iter().try_for_each(|distribution| self.document(distribution).map(drop))
    }

    /// Has every document written and signed anew.
    pub(super) fn renew_all(&mut self) -> Result<()> {
        self.read_all()?;
        for document in self.documents.values_mut() {
            (document.changed, document.renewed) = (true, true);
        }
        Ok(())
    }

    /// The tree's root directory.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// How many products the next publication has, by distribution.
    pub(super) fn distributions(&self) -> BTreeMap<&str, usize> {
        let published = self.entries.iter().map(|(name, entry)| (name.as_str(), entry.products.len()));
        let read = self.documents.iter().map(|(name, read)| (name.as_str(), read.products.products.len()));
        let mut counts: BTreeMap<_, _> = published.chain(read).collect();
        counts.retain(|_, count| *count > 0);
        counts
    }

    /// Forgets the documents that were read; who asks again gets what is published then.
    pub(super) fn forget(&mut self) {
        self.documents.clear();
    }

    /// Documents that were read, by distribution.
    pub(super) fn documents(&self) -> &BTreeMap<String, Document> {
        &self.documents
    }

    /// Whether documents list the image in this directory, a path from the root.
    pub(super) fn lists(&mut self, path: &Path) -> Result<bool> {
        let Some(distribution) = path.iter().nth(1).and_then(|name| name.to_str()) else { return Ok(false) };
        let document = self.document(distribution)?;
        let mut images = images(&document.products);
        Ok(images.any(|(product, serial, ..)| product.image_path(serial) == path))
    }

    /// One image of one product.
    pub(super) fn version(&mut self, product: &Product, serial: Serial) -> Result<Option<&Version>> {
        let products = &self.document(product.distribution())?.products.products;
        Ok(products.get(&product.to_string()).and_then(|entry| entry.versions.get(&serial.to_string())))
    }

    /// All images of the documents that were read, by product and serial.
    pub(super) fn images(&self) -> impl Iterator<Item = Image<'_>> {
        self.documents.values().flat_map(|document| images(&document.products))
    }

    /// Lists an image and returns the aliases it took over from other products.
    ///
    /// # Errors
    /// With what is wrong when another image of the distribution has the same fingerprint.
    pub(super) fn insert(&mut self, listing: Listing) -> Result<Result<Vec<(Alias, String)>, String>> {
        let document = self.document(listing.manifest.product.distribution())?;
        let inserted = insert(&mut document.products, listing);
        document.changed |= inserted.is_ok();
        Ok(inserted)
    }

    /// Lists an image no more; a product without images leaves with its last one.
    pub(super) fn remove(&mut self, product: &Product, serial: Serial) -> Result<()> {
        let document = self.document(product.distribution())?;
        let name = product.to_string();
        if let Some(entry) = document.products.products.get_mut(&name) {
            document.changed |= entry.versions.remove(&serial.to_string()).is_some();
            if entry.versions.is_empty() {
                document.products.products.remove(&name);
            }
        }
        Ok(())
    }

    /// Lists these products and no others; whether that changes anything.
    pub(super) fn replace(&mut self, mut offered: BTreeMap<String, Products>) -> Result<bool> {
        self.read_all()?;
        let known = self.documents.keys().filter(|name| !offered.contains_key(*name)).cloned();
        let gone: Vec<_> = known.map(|name| (name.clone(), Products::empty(content_id(&name)))).collect();
        offered.extend(gone);
        let mut any = false;
        for (distribution, products) in offered {
            let document = self.document(&distribution)?;
            if document.products.products != products.products {
                *document = Document::new(products, true);
                any = true;
            }
        }
        Ok(any)
    }

    /// Dates what changed: it is published at `created`.
    pub(super) fn date(&mut self, created: DateTime<Utc>) {
        for document in self.documents.values_mut().filter(|document| document.changed) {
            document.products.updated = created.to_rfc2822();
        }
    }
}

fn insert(products: &mut Products, listing: Listing) -> Result<Vec<(Alias, String)>, String> {
    let Listing { manifest, items } = listing;
    let fingerprints: Vec<_> = items.values().filter_map(identity).collect();
    for (product, entry) in &products.products {
        let same = |item: &Item| identity(item).is_some_and(|f| fingerprints.contains(&f));
        let mut versions = entry.versions.iter();
        if let Some((serial, _)) = versions.find(|(_, version)| version.items.values().any(same)) {
            return Err(format!("{product} {serial} has the same fingerprint; two images cannot share one"));
        }
    }
    let name = manifest.product.to_string();
    let entry = products.products.entry(name.clone()).or_default();
    let newest = entry.serials().max();
    entry.versions.insert(manifest.serial.to_string(), Version { items });
    if newest.is_some_and(|newest| newest > manifest.serial) {
        return Ok(Vec::new()); // A late comer does not say what the product is called.
    }
    describe(entry, &manifest);
    Ok(take_over_aliases(products, &name, manifest.product.architecture().debian()))
}

/// An alias leads to one product of an architecture: the one that claimed it last.
fn take_over_aliases(products: &mut Products, name: &str, arch: &str) -> Vec<(Alias, String)> {
    let claimed: Vec<Alias> =
        products.products[name].alias_list().filter_map(|alias| alias.parse().ok()).collect();
    let mut taken = Vec::new();
    for (other, entry) in &mut products.products {
        if other == name || entry.arch != arch {
            continue;
        }
        let (lost, kept): (Vec<_>, Vec<_>) =
            entry.alias_list().partition(|alias| claimed.iter().any(|claim| claim.as_str() == *alias));
        if !lost.is_empty() {
            taken.extend(lost.iter().filter_map(|a| Some((a.parse().ok()?, other.clone()))));
            entry.aliases = kept.join(",");
        }
    }
    taken
}

/// An image with what documents say of its product and of itself.
pub(crate) type Image<'a> = (Product, Serial, &'a ProductEntry, &'a Version);

/// All images of a document.
pub(crate) fn images(products: &Products) -> impl Iterator<Item = Image<'_>> {
    products.products.iter().flat_map(|(name, entry)| {
        let product: Option<Product> = name.parse().ok();
        entry.versions.iter().filter_map(move |(serial, version)| {
            Some((product.clone()?, serial.parse().ok()?, entry, version))
        })
    })
}

/// LXC's index: the newest image of every product, if it has what LXC needs, or that is `promised`. What was
/// `published` had it, so that only what is new is looked at.
pub(super) fn lxc_index(
    root: &Path,
    products: &Products,
    promised: &BTreeSet<String>,
    published: &str,
) -> String {
    let published: BTreeSet<_> = published.lines().collect();
    let newest = products.products.iter().filter_map(|(name, entry)| {
        let (product, serial): (Product, _) = (name.parse().ok()?, entry.serials().max()?);
        let archive = entry.versions.get(&serial.to_string())?.items.contains_key("root.tar.xz");
        let dir = product.image_path(serial);
        let line = lxc_index::Entry::new(product, serial);
        let meta = || {
            published.contains(line.to_line().as_str())
                || promised.contains(&*dir.to_string_lossy())
                || root.join(&dir).join(META).exists()
        };
        (archive && meta()).then_some(line)
    });
    lxc_index::to_text(&newest.collect::<Vec<_>>())
}

/// The fingerprint LXD and Incus know an image by.
pub(super) fn fingerprint(version: &Version) -> Option<Fingerprint> {
    combined(&version.items)
}

/// The same, of its files.
pub(super) fn combined(items: &BTreeMap<String, Item>) -> Option<Fingerprint> {
    METADATA.iter().find_map(|name| identity(items.get(*name)?)).map(Fingerprint::new)
}

/// What a metadata item and its root file system make together, of two the archive first; or what holds
/// both.
fn identity(item: &Item) -> Option<Sha256Digest> {
    let unified = item.sha256.filter(|_| COMBINED.contains(&item.ftype.as_str()));
    item.combined_sha256.or(item.combined_squashfs_sha256).or(unified)
}

/// Bytes of an image's root file system as it is downloaded.
pub(super) fn size(version: &Version) -> u64 {
    size_of(&version.items)
}

/// The same, of its files.
pub(super) fn size_of(items: &BTreeMap<String, Item>) -> u64 {
    let root = |name| items.values().find(|item| item.path.ends_with(name));
    root(ROOTFS).or_else(|| root(SQUASHFS)).map_or(0, |item| item.size)
}

fn describe(entry: &mut ProductEntry, manifest: &Manifest) {
    let product = &manifest.product;
    let aliases = product.aliases(manifest.release_aliases.iter().map(String::as_str));
    entry.aliases = aliases.iter().map(Alias::as_str).collect::<Vec<_>>().join(",");
    product.architecture().debian().clone_into(&mut entry.arch);
    manifest.os.clone_into(&mut entry.os);
    product.release().clone_into(&mut entry.release);
    product.release().clone_into(&mut entry.release_title);
    entry.release_codename = None;
    product.variant().clone_into(&mut entry.variant);
    entry.requirements = manifest.requirements.clone();
}
