//! The images a remote offers, out of documents already believed.
//!
//! A publisher's signature says who speaks, not that every entry is sound: here names are bound to
//! what they name. A product whose fields contradict its name, or that claims another product's
//! alias, is refused, and whoever asks for it learns why.

mod image;
mod part;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use millstream_image::simplestreams::{Item, ProductEntry, Products, Version};
use millstream_image::{Alias, Architecture, Fingerprint, Product};

pub use self::image::{CatalogueImage, Delta, Details, RemoteFile, RootKind};
use self::part::Listed;
pub(crate) use self::part::Part;
use crate::query::{ImageRef, names_product};
use crate::suggest;
use crate::{Error, Result};

const METADATA: [&str; 2] = ["lxd.tar.xz", "incus.tar.xz"];
const MANIFEST: &str = "manifest.json";
const DELTA: &str = "root.tar.xz.delta";
/// Item types of an archive that holds both; its name, not its type, says how it is compressed.
const COMBINED: [&str; 2] = ["lxd_combined.tar.gz", "incus_combined.tar.gz"];

/// A product that is not offered, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Its name in the document.
    pub product: String,
    /// What it claims to be called.
    pub aliases: String,
    /// What is wrong.
    pub reason: String,
}

/// Everything a remote offers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Catalogue {
    /// Images by product, newest first.
    pub images: Vec<CatalogueImage>,
    /// Products that contradict themselves.
    pub refused: Vec<Refused>,
}

impl Catalogue {
    /// Builds the catalogue of verified documents.
    pub fn new(documents: Vec<Products>) -> Self {
        Self::of_parts(documents.into_iter().map(Part::new).collect())
    }

    /// As [`Catalogue::new`], of documents that were reduced to what counts.
    pub(crate) fn of_parts(parts: Vec<Part>) -> Self {
        let listed = || parts.iter().flat_map(|part| part.entries.values());
        let releases: BTreeSet<_> = listed().map(|entry| &entry.release).collect();
        let releases = releases.into_iter().cloned().collect();
        let (mut products, mut refused) = (Vec::new(), Vec::new());
        for (name, Listed { aliases, images, .. }) in parts.into_iter().flat_map(|part| part.entries) {
            let fits =
                |images: &Vec<CatalogueImage>| images.first().map_or(Ok(()), |i| of_release(i, &releases));
            match images.and_then(|images| fits(&images).map(|()| images)) {
                Ok(images) => products.push(images),
                Err(reason) => refused.push(Refused { product: name, aliases, reason }),
            }
        }
        Self { images: in_order(products), refused }
    }

    /// The image a name means: an alias or product for `host` or the architecture the name ends
    /// in, always the newest; or the one whose fingerprint begins so.
    pub fn resolve(&self, name: &ImageRef, host: Architecture) -> Result<&CatalogueImage> {
        for (text, arch) in name.readings(host) {
            let mut found: Vec<_> = self.newest().filter(|image| answers(image, text, arch)).collect();
            // A name that was given goes before one that follows from properties.
            let named = |image: &&CatalogueImage| image.aliases().iter().any(|alias| alias.as_str() == text);
            if found.iter().any(named) {
                found.retain(named);
            }
            match found[..] {
                [] => {}
                [image] => return Ok(image),
                _ => return Err(ambiguous(name, found.iter().map(|image| distinct(image, &found)))),
            }
        }
        if let Some(prefix) = name.fingerprint_prefix() {
            let begins = |image: &&CatalogueImage| image.fingerprint.to_string().starts_with(prefix);
            let found: BTreeMap<_, _> =
                self.images.iter().filter(begins).map(|image| (image.fingerprint, image)).collect();
            match found.len() {
                0 => {}
                1 => return found.into_values().next().ok_or_else(|| self.unknown(name, host)),
                _ => return Err(ambiguous(name, found.keys().map(ToString::to_string))),
            }
        }
        Err(self.unknown(name, host))
    }

    /// The newest image of each product.
    pub fn newest(&self) -> impl Iterator<Item = &CatalogueImage> {
        self.images.iter().filter(|image| image.newest)
    }

    fn unknown(&self, name: &ImageRef, host: Architecture) -> Error {
        let text = name.as_str();
        let claims = |refused: &&Refused| {
            refused.aliases.split(',').any(|alias| alias.trim() == text)
                || refused.product.replace(':', "/").starts_with(text)
        };
        if let Some(refused) = self.refused.iter().find(claims) {
            let reason =
                format!("the remote offers it as {}, which was refused: {}", refused.product, refused.reason);
            return Error::image(name, reason);
        }
        let elsewhere: BTreeSet<_> = self
            .newest()
            .filter(|image| answers(image, text, image.product.architecture()))
            .map(|image| image.product.architecture().debian())
            .collect();
        if let Some(first) = elsewhere.first() {
            let known: Vec<_> = elsewhere.iter().copied().collect();
            let reason =
                format!("there is none for {host}, only for {}; type: {name}/{first}", known.join(", "));
            return Error::image(name, reason);
        }
        let aliases = self.newest().flat_map(|image| image.aliases().iter().map(Alias::as_str));
        Error::image(name, format!("the remote has none of that name{}", suggest::hint(text, aliases)))
    }
}

/// All images by product, newest first, as those of each product are.
fn in_order(mut products: Vec<Vec<CatalogueImage>>) -> Vec<CatalogueImage> {
    fn product(images: &[CatalogueImage]) -> Option<&Product> {
        images.first().map(|image| &image.product)
    }
    products.retain(|images| !images.is_empty());
    products.sort_by(|a, b| product(a).cmp(&product(b)));
    let several = products.windows(2).any(|two| product(&two[0]) == product(&two[1]));
    let mut images = Vec::with_capacity(products.iter().map(Vec::len).sum());
    images.extend(products.into_iter().flatten());
    if several {
        // Two documents may tell of one product.
        images.sort_by(|a, b| a.product.cmp(&b.product).then(b.serial.cmp(&a.serial)));
    }
    images
}

fn ambiguous(name: &ImageRef, candidates: impl Iterator<Item = String>) -> Error {
    let candidates: Vec<_> = candidates.take(5).collect();
    Error::image(name, format!("it can mean {}", candidates.join(" or ")))
}

/// What tells an image from others that share its product, as those of LXD's API may.
fn distinct(image: &CatalogueImage, others: &[&CatalogueImage]) -> String {
    let same = others.iter().filter(|other| other.product == image.product).count() > 1;
    if same { image.fingerprint.short() } else { image.product.to_string() }
}

fn answers(image: &CatalogueImage, name: &str, arch: Architecture) -> bool {
    let product = &image.product;
    let releases = [product.release(), &image.details.release_title];
    product.architecture() == arch
        && (image.aliases().iter().any(|alias| alias.as_str() == name)
            || names_product(name, product.distribution(), &releases, product.variant()))
}

/// No alias may say another release that there is.
fn of_release(image: &CatalogueImage, releases: &BTreeSet<(String, String)>) -> Result<(), String> {
    let product = &image.product;
    for alias in image.aliases() {
        let Some(release) = alias.as_str().split('/').nth(1) else { continue };
        if release != product.release()
            && releases.contains(&(product.distribution().to_owned(), release.to_owned()))
        {
            return Err(format!("it calls itself {alias}, its fields say {product}"));
        }
    }
    Ok(())
}

/// Binds a product's name and aliases to its fields.
fn bind(name: &str, entry: &ProductEntry) -> Result<(Product, Vec<Alias>), String> {
    let product = entry.product().map_err(|e| e.to_string())?;
    match name.parse::<Product>() {
        Ok(named) if named != product => return Err(format!("its fields say {product}")),
        Ok(_) => {}
        // Foreign names have other shapes, but an architecture in them must be the right one.
        Err(_) => {
            let named = name.split(':').find(|part| Architecture::all().any(|arch| arch.debian() == *part));
            if let Some(arch) = named.filter(|arch| *arch != product.architecture().debian()) {
                return Err(format!("its name says {arch}, its fields {}", product.architecture()));
            }
        }
    }
    let aliases: Vec<Alias> = entry.alias_list().filter_map(|alias| alias.parse().ok()).collect();
    for alias in &aliases {
        let parts: Vec<_> = alias.as_str().split('/').collect();
        let [dist, _, ref rest @ ..] = parts[..] else { continue };
        let variant = rest.first().copied().unwrap_or("default");
        if !dist.eq_ignore_ascii_case(product.distribution()) || variant != product.variant() {
            return Err(format!("it calls itself {alias}, its fields say {product}"));
        }
    }
    Ok((product, aliases))
}

/// The container images of a product. One malformed version refuses them all: falling back to an
/// older one would let a damaged entry choose the image.
fn images(
    product: &Product,
    aliases: Vec<Alias>,
    entry: &ProductEntry,
) -> Result<Vec<CatalogueImage>, String> {
    let details = Arc::new(details(product, aliases, entry));
    let mut images = Vec::with_capacity(entry.versions.len());
    for (serial, version) in entry.versions.iter().rev() {
        if !is_serial(serial) {
            continue; // Readers of the field skip these as well.
        }
        let image = image(product, &details, serial, version);
        if let Some(mut image) = image.map_err(|e| format!("version {serial}: {e}"))? {
            image.newest = images.is_empty();
            images.push(image);
        }
    }
    Ok(images)
}

/// Begins with a date; the rest cannot lead anywhere.
pub(crate) fn is_serial(text: &str) -> bool {
    text.len() <= 32
        && text.len() >= 8
        && text.bytes().take(8).all(|b| b.is_ascii_digit())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._:-".contains(&b))
}

/// One version; `None` when it holds no split container image (virtual machines only, say).
fn image(
    product: &Product,
    details: &Arc<Details>,
    serial: &str,
    version: &Version,
) -> Result<Option<CatalogueImage>, String> {
    let of_type = |ftype: &str| version.items.values().find(|item| item.ftype == ftype);
    let of_kind = |kind: RootKind| of_type(kind.item_type()).map(|item| (item, kind));
    let named = |name: &'static str| of_type(name).map(|item| (item, name));
    let Some((metadata, metadata_name)) = METADATA.into_iter().find_map(named) else { return Ok(None) };
    let root = of_kind(RootKind::TarXz).or_else(|| of_kind(RootKind::Squashfs));
    let Some((root, root_kind)) = root else { return Ok(None) };
    let combined = match root_kind {
        RootKind::Squashfs => metadata.combined_squashfs_sha256,
        RootKind::TarXz | RootKind::Exported => {
            match (metadata.combined_rootxz_sha256, metadata.combined_sha256) {
                (Some(new), Some(old)) if new != old => return Err("it states two fingerprints".into()),
                (new, old) => new.or(old),
            }
        }
    };
    let fingerprint = Fingerprint::new(combined.ok_or("it states no fingerprint")?);
    Ok(Some(CatalogueImage {
        fingerprint,
        product: product.clone(),
        serial: serial.to_owned(),
        details: details.clone(),
        metadata: file(metadata)?,
        metadata_name,
        rootfs: file(root)?,
        root_kind,
        uncompressed: root.sha256_uncompressed,
        deltas: deltas(version),
        unified: COMBINED.iter().find_map(|ftype| of_type(ftype)).and_then(unified).map(Box::new),
        manifest: of_type(MANIFEST).map(file).transpose()?,
        others: others(version, [metadata_name, root_kind.file_name()])?,
        newest: false,
    }))
}

/// Deltas never decide what an image is, so one that is listed wrongly is only passed over.
fn deltas(version: &Version) -> Vec<Delta> {
    let delta = |item: &Item| {
        let base = item.delta_base.clone().filter(|base| is_serial(base))?;
        Some(Delta { base, file: file(item).ok()? })
    };
    version.items.values().filter(|item| item.ftype == DELTA).filter_map(delta).collect()
}

/// An image can do without, so that one that is listed wrongly is passed over, too.
fn unified(item: &Item) -> Option<(&'static str, RemoteFile)> {
    let names = ["unified.tar.xz", "unified.tar.zst", "unified.tar.gz", "unified.tar"];
    let suffix = |name: &&str| item.path.ends_with(name.trim_start_matches("unified"));
    Some((names.into_iter().find(suffix)?, file(item).ok()?))
}

/// Files beside the two that were chosen, by name in a tree of ours.
fn others(version: &Version, chosen: [&str; 2]) -> Result<Vec<(&'static str, RemoteFile)>, String> {
    let roots = [RootKind::TarXz, RootKind::Squashfs].map(|kind| (kind.item_type(), kind.file_name()));
    let known = METADATA.map(|name| (name, name)).into_iter().chain(roots);
    let found = known.filter(|(_, name)| !chosen.contains(name)).filter_map(|(ftype, name)| {
        let item = version.items.values().find(|item| item.ftype == ftype)?;
        Some(file(item).map(|file| (name, file)))
    });
    found.collect()
}

fn file(item: &Item) -> Result<RemoteFile, String> {
    let path = item.path.parse().map_err(|e: Error| e.to_string())?;
    if item.size == 0 {
        return Err(format!("{path} has no size"));
    }
    let sha256 = item.sha256.ok_or_else(|| format!("{path} has no SHA-256"))?;
    Ok(RemoteFile { path, size: item.size, sha256 })
}

fn details(product: &Product, aliases: Vec<Alias>, entry: &ProductEntry) -> Details {
    let or = |text: &str, other: &str| if text.is_empty() { other } else { text }.to_owned();
    Details {
        aliases,
        os: or(&entry.os, product.distribution()),
        release_title: or(&entry.release_title, product.release()),
        support_eol: entry.support_eol.clone(),
        requirements: entry.requirements.clone(),
        own: None,
    }
}

#[cfg(test)]
mod tests;
