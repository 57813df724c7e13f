//! What a tree offers: the products of the last publication, read back from its own documents, so
//! that adding an image never reads another image.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::SystemTime;

use chrono::{DateTime, Utc};
use millstream_image::manifest::Manifest;
use millstream_image::openpgp::Keyring;
use millstream_image::simplestreams::{
    self, Freshness, IMAGES_PATH, INDEX_PATH, Index, Item, ProductEntry, Products, Version, signed_path,
};
use millstream_image::{Alias, Fingerprint, Product, Serial, Sha256Digest, lxc_index};

use super::layout::{CURRENT, METADATA, ROOTFS};
use crate::{Error, Result};

/// The last publication.
pub(super) struct Catalogue {
    /// Its products.
    pub(super) products: Products,
    /// `images.json` as published.
    pub(super) bytes: Vec<u8>,
    /// What the index says of itself; `None` before the first publication.
    pub(super) freshness: Option<Freshness>,
}

/// An image that is ready to be listed.
pub(super) struct Listing {
    /// How it came to be.
    pub(super) manifest: Manifest,
    /// Its files as documents list them.
    pub(super) items: BTreeMap<String, Item>,
}

impl Catalogue {
    /// Nothing yet.
    pub(super) fn empty() -> Self {
        Self { products: Products::empty(), bytes: Vec::new(), freshness: None }
    }

    /// Reads the present publication. What was changed behind the key's back is not built upon.
    pub(super) fn load(root: &Path, keyring: &Keyring, now: SystemTime) -> Result<Self> {
        let current = root.join(CURRENT);
        let read = |path: &str| {
            let file = current.join(path);
            fs::read(&file).map(|bytes| (bytes, file.clone())).map_err(Error::io(&file))
        };
        let (message, file) = read(&signed_path(INDEX_PATH))?;
        let (text, _) = keyring.verify_cleartext(&message, now).map_err(Error::image(&file))?;
        let index = Index::parse(&text).map_err(Error::image(&file))?;
        let (bytes, images) = read(IMAGES_PATH)?;
        let stated = index.index.get("images").and_then(|entry| entry.sha256);
        if stated != Some(Sha256Digest::of(&bytes)) {
            return Err(Error::tree(&images, "not what the signed index says; find out who changed it"));
        }
        let products = Products::parse(&bytes).map_err(Error::image(&images))?;
        let freshness = index.millstream.ok_or_else(|| Error::tree(&file, "it states no generation"))?;
        Ok(Self { products, bytes, freshness: Some(freshness) })
    }

    /// The present generation; 0 before the first.
    pub(super) fn generation(&self) -> u64 {
        self.freshness.as_ref().map_or(0, |f| f.generation)
    }

    /// One image of one product.
    pub(super) fn version(&self, product: &Product, serial: Serial) -> Option<&Version> {
        self.products.products.get(&product.to_string())?.versions.get(&serial.to_string())
    }

    /// All images, by product and serial.
    pub(super) fn images(&self) -> impl Iterator<Item = Image<'_>> {
        images(&self.products)
    }

    /// Lists an image and returns the aliases it took over from other products.
    ///
    /// # Errors
    /// With what is wrong when another image has the same fingerprint.
    pub(super) fn insert(&mut self, listing: Listing) -> Result<Vec<(Alias, String)>, String> {
        let Listing { manifest, items } = listing;
        let fingerprints: Vec<_> =
            METADATA.iter().filter_map(|name| items.get(*name)?.combined_sha256).collect();
        for (product, serial, _, version) in self.images() {
            let same = |item: &Item| item.combined_sha256.is_some_and(|f| fingerprints.contains(&f));
            if version.items.values().any(same) {
                return Err(format!(
                    "{product} {serial} has the same fingerprint; two images cannot share one"
                ));
            }
        }
        let name = manifest.product.to_string();
        let entry = self.products.products.entry(name.clone()).or_default();
        let newest = entry.serials().max();
        entry.versions.insert(manifest.serial.to_string(), Version { items });
        if newest.is_some_and(|newest| newest > manifest.serial) {
            return Ok(Vec::new()); // A late comer does not say what the product is called.
        }
        describe(entry, &manifest);
        Ok(self.take_over_aliases(&name, manifest.product.architecture().debian()))
    }

    /// Lists an image no more; a product without images leaves with its last one.
    pub(super) fn remove(&mut self, product: &Product, serial: Serial) {
        let name = product.to_string();
        if let Some(entry) = self.products.products.get_mut(&name) {
            entry.versions.remove(&serial.to_string());
            if entry.versions.is_empty() {
                self.products.products.remove(&name);
            }
        }
    }

    /// An alias leads to one product of an architecture: the one that claimed it last.
    fn take_over_aliases(&mut self, name: &str, arch: &str) -> Vec<(Alias, String)> {
        let claimed: Vec<Alias> =
            self.products.products[name].alias_list().filter_map(|alias| alias.parse().ok()).collect();
        let mut taken = Vec::new();
        for (other, entry) in &mut self.products.products {
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

    /// The document of products as it will be published at `created`.
    pub(super) fn render(&mut self, created: DateTime<Utc>) -> Result<(), millstream_image::Error> {
        self.products.updated = created.to_rfc2822();
        self.bytes = simplestreams::to_bytes(&self.products)?;
        Ok(())
    }
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

/// LXC's index: the newest image of every product.
pub(super) fn lxc_index(products: &Products) -> String {
    let newest = products
        .products
        .iter()
        .filter_map(|(name, entry)| Some(lxc_index::Entry::new(name.parse().ok()?, entry.serials().max()?)));
    lxc_index::to_text(&newest.collect::<Vec<_>>())
}

/// The fingerprint LXD and Incus know an image by.
pub(super) fn fingerprint(version: &Version) -> Option<Fingerprint> {
    METADATA.iter().find_map(|name| version.items.get(*name)?.combined_sha256).map(Fingerprint::new)
}

/// Bytes of an image's root file system as it is downloaded.
pub(super) fn size(version: &Version) -> u64 {
    version.items.values().find(|item| item.path.ends_with(ROOTFS)).map_or(0, |item| item.size)
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
