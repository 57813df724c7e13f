//! The images a served tree offers, as far as requests name images rather than files.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, Utc};
use millstream_image::simplestreams::{INDEX_PATH, Index, Item, MAX_SIZE, Products};
use millstream_image::{Architecture, Fingerprint, Product, Serial};

use super::site::Site;
use crate::stream::{COMBINED, images};

/// One image.
#[derive(Clone, Debug)]
pub(super) struct Offered {
    pub(super) product: Product,
    pub(super) serial: Serial,
    pub(super) os: String,
    /// Names that lead to it: none but for the newest of a product.
    pub(super) aliases: Vec<String>,
    /// By which LXD and Incus know it.
    pub(super) fingerprint: Fingerprint,
    /// `lxd.tar.xz`, or `incus.tar.xz`.
    pub(super) metadata: Item,
    /// `rootfs.tar.xz`.
    pub(super) rootfs: Item,
    /// Both in one archive, where there is one.
    pub(super) unified: Option<Item>,
}

impl Offered {
    pub(super) fn size(&self) -> u64 {
        self.metadata.size + self.rootfs.size
    }

    /// One line for lists.
    pub(super) fn description(&self) -> String {
        let product = &self.product;
        let (release, arch, variant) = (product.release(), product.architecture(), product.variant());
        format!("{} {release} {arch} ({variant}) ({})", self.os, self.serial)
    }

    /// What filters and lists know of it.
    pub(super) fn properties(&self) -> BTreeMap<String, String> {
        let product = &self.product;
        [
            ("architecture", product.architecture().to_string()),
            ("description", self.description()),
            ("os", self.os.clone()),
            ("release", product.release().to_owned()),
            ("serial", self.serial.to_string()),
            ("type", "tar.xz".to_owned()),
            ("variant", product.variant().to_owned()),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .into()
    }

    /// When it was made.
    pub(super) fn created(&self) -> DateTime<Utc> {
        self.serial.time()
    }
}

/// All images of one publication, by fingerprint.
#[derive(Debug, Default)]
pub(super) struct Offer {
    images: BTreeMap<Fingerprint, Offered>,
}

impl Offer {
    pub(super) fn images(&self) -> impl Iterator<Item = &Offered> {
        self.images.values()
    }

    /// Those images only that `may` lets pass, by their root file system's path.
    pub(super) fn only(&self, may: impl Fn(&str) -> bool) -> Self {
        let images = self.images.iter().filter(|(_, image)| may(&image.rootfs.path));
        Self { images: images.map(|(fingerprint, image)| (*fingerprint, image.clone())).collect() }
    }

    pub(super) fn image(&self, fingerprint: Fingerprint) -> Option<&Offered> {
        self.images.get(&fingerprint)
    }

    /// The image of an alias, with an architecture at its end or not; without, the first of
    /// `preferred` that there is, else any.
    pub(super) fn alias(&self, name: &str, preferred: &[Architecture]) -> Option<&Offered> {
        let (named, asked) = self.named(name);
        let of = |architecture| named.iter().copied().find(|i| i.product.architecture() == architecture);
        match asked {
            Some(architecture) => of(architecture),
            None => preferred.iter().find_map(|a| of(*a)).or_else(|| named.first().copied()),
        }
    }

    /// The images of an alias, and the architecture at its end, if one is there.
    pub(super) fn named(&self, name: &str) -> (Vec<&Offered>, Option<Architecture>) {
        let (alias, asked) = match name.rsplit_once('/').map(|(alias, last)| (alias, last.parse())) {
            Some((alias, Ok(architecture))) => (alias, Some(architecture)),
            _ => (name, None),
        };
        (self.images().filter(|image| image.aliases.iter().any(|a| a == alias)).collect(), asked)
    }

    /// Every alias: by itself for the image it leads to here, and with each architecture.
    pub(super) fn aliases(&self, preferred: &[Architecture]) -> BTreeMap<String, &Offered> {
        let rank = |image: &Offered| {
            let architecture = image.product.architecture();
            preferred.iter().position(|preferred| *preferred == architecture).unwrap_or(preferred.len())
        };
        let mut found: BTreeMap<String, &Offered> = BTreeMap::new();
        for image in self.images() {
            for alias in &image.aliases {
                found.insert(format!("{alias}/{}", image.product.architecture()), image);
                // As `alias` chooses, without looking through all images for each.
                let chosen = found.entry(alias.clone()).or_insert(image);
                if rank(image) < rank(chosen) {
                    *chosen = image;
                }
            }
        }
        found
    }

    fn read(site: &Site, index: &[u8]) -> io::Result<Self> {
        let bad = |error: millstream_image::Error| io::Error::other(error);
        let index = Index::parse(index).map_err(bad)?;
        let mut images = BTreeMap::new();
        for (_, entry) in index.image_entries() {
            let path = entry.by_hash.as_ref().unwrap_or(&entry.path);
            let products = Products::parse(&whole(site, path)?).map_err(bad)?;
            for image in offered(&products) {
                images.insert(image.fingerprint, image);
            }
        }
        Ok(Self { images })
    }
}

fn offered(products: &Products) -> Vec<Offered> {
    let mut found = Vec::new();
    for (product, serial, entry, version) in images(products) {
        let item = |name: &str| version.items.get(name).cloned();
        // What was mirrored from a server of Incus' may have that only; both clients read either.
        let metadata = item("lxd.tar.xz").or_else(|| item("incus.tar.xz"));
        let (Some(metadata), Some(rootfs)) = (metadata, item("root.tar.xz")) else { continue };
        let Some(fingerprint) = metadata.combined_sha256.map(Fingerprint::new) else { continue };
        let newest = entry.serials().max() == Some(serial);
        let aliases = entry.alias_list().filter(|_| newest).map(str::to_owned).collect();
        let (os, unified) = (entry.os.clone(), COMBINED.iter().find_map(|ftype| item(ftype)));
        found.push(Offered { product, serial, os, aliases, fingerprint, metadata, rootfs, unified });
    }
    found
}

fn whole(site: &Site, path: &str) -> io::Result<Vec<u8>> {
    let opened = site.open(path)?.ok_or_else(|| io::Error::other(format!("{path} is missing")))?;
    let mut bytes = Vec::new();
    opened.file.take(MAX_SIZE).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Reads the offer again only when another index was published.
#[derive(Default)]
pub(super) struct Offers(Mutex<Option<(String, Arc<Offer>)>>);

impl Offers {
    /// What the tree offers now. May block.
    pub(super) fn now(&self, site: &Site) -> io::Result<Arc<Offer>> {
        let opened = site.open(INDEX_PATH)?.ok_or_else(|| io::Error::other("the index is missing"))?;
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((etag, offer)) = slot.as_ref()
            && *etag == opened.validators.etag
        {
            return Ok(Arc::clone(offer));
        }
        let mut index = Vec::new();
        opened.file.take(MAX_SIZE).read_to_end(&mut index)?;
        let offer = Arc::new(Offer::read(site, &index)?);
        *slot = Some((opened.validators.etag, Arc::clone(&offer)));
        Ok(offer)
    }
}
