//! The page beside an image: what it is, what is in it, what changed, how to get it.

use std::fs;
use std::path::{Path, PathBuf};

use millstream_builder::difference::Difference;
use millstream_image::manifest::Manifest;
use millstream_image::openpgp::KeyFingerprint;
use millstream_image::simplestreams::ProductEntry;
use millstream_image::{Product, Serial, atomic};
use serde::{Deserialize, Serialize};

use super::plot::Plot;
use super::{Commands, Pages, amount};
use crate::stream::catalogue::{Catalogue, Listing, combined, size_of};
use crate::stream::generation;
use crate::stream::layout::LOG;
use crate::stream::place::read_manifest;
use crate::stream::workers::{each, queue};
use crate::{Error, Result};

/// The page.
pub(in crate::stream) const PAGE: &str = "index.html";
/// The sizes of all images of the product so far, for the pages of later ones, which outlive them.
pub(in crate::stream) const HISTORY: &str = "history.json";

/// So many sizes are remembered at most: a year of daily images.
const REMEMBERED: usize = 366;
/// No list of that many sizes is larger, in bytes.
const LARGEST_HISTORY: u64 = 64 << 10;
/// From the image's directory to the root.
const BASE: &str = "../../../../../../";

/// The size of one image's root file system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Point {
    /// Which image.
    pub(super) serial: Serial,
    /// Bytes.
    pub(super) size: u64,
}

#[derive(Serialize)]
struct File {
    name: String,
    size: String,
    sha256: String,
}

/// Writes the page of an image, which lies complete in `dir`, and what later pages need of it.
pub(in crate::stream) fn write(
    dir: &Path,
    catalogue: &mut Catalogue,
    listing: &Listing,
    keys: &[KeyFingerprint],
) -> Result<()> {
    let manifest = &listing.manifest;
    let previous = previous(catalogue, &manifest.product, manifest.serial)?;
    let mut history = previous.as_deref().map(read_history).unwrap_or_default();
    history.retain(|point| point.serial < manifest.serial);
    history.push(Point { serial: manifest.serial, size: size_of(&listing.items) });
    history.drain(..history.len().saturating_sub(REMEMBERED));
    let json = serde_json::to_vec(&history).map_err(|e| Error::tree(dir.join(HISTORY), e.to_string()))?;
    // Of an image whose manifest cannot be read, verify tells; here it only means nothing to compare.
    let before = previous.and_then(|previous| read_manifest(&previous).ok());
    let page = render(dir, listing, before.as_ref(), &history, keys)?;
    let files = queue([(HISTORY, json), (PAGE, page)]);
    each(files, |(name, bytes)| generation::write(&dir.join(name), &bytes), || Ok(()))?;
    atomic::sync_dir(dir).map_err(Error::image(dir))
}

fn render(
    dir: &Path,
    listing: &Listing,
    before: Option<&Manifest>,
    history: &[Point],
    keys: &[KeyFingerprint],
) -> Result<Vec<u8>> {
    let manifest = &listing.manifest;
    let product = &manifest.product;
    let path = product.image_path(manifest.serial).display().to_string();
    let mut context = Commands::of(product, &path, &listing.items).context()?;
    context.insert("base", BASE);
    context.insert("product", &product.to_string());
    context.insert("os", &manifest.os);
    context.insert("description", &manifest.description);
    context.insert("release", product.release());
    context.insert("variant", product.variant());
    context.insert("arch", product.architecture().debian());
    context.insert("serial", &manifest.serial.to_string());
    context.insert("fingerprint", &combined(&listing.items).map(|f| f.to_string()).unwrap_or_default());
    context.insert("packages", &manifest.packages.len());
    context.insert("tested", &manifest.inputs.as_ref().is_some_and(|inputs| inputs.tested.is_some()));
    context.insert("log", &dir.join(LOG).exists());
    context.insert("files", &files(listing));
    context.insert("previous", &before.map(|before| before.serial.to_string()));
    context.insert("changes", &before.map(|before| Difference::between(before, manifest).packages));
    context.insert("plot", &Plot::of(history));
    Pages::new(keys)?.render("image.html", context)
}

/// What can be downloaded, with its digest.
fn files(listing: &Listing) -> Vec<File> {
    let file = |name: &str, size: u64, sha256: String| File { name: name.into(), size: amount(size), sha256 };
    let mut files: Vec<_> =
        listing.manifest.files.iter().map(|(name, f)| file(name, f.size, f.sha256.to_string())).collect();
    for item in listing.items.values() {
        let name = item.path.rsplit('/').next().unwrap_or(&item.path);
        if !files.iter().any(|file| file.name == name) {
            let sha256 = item.sha256.map(|digest| digest.to_string()).unwrap_or_default();
            files.push(file(name, item.size, sha256));
        }
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    files
}

/// The directory of the image before this one.
fn previous(catalogue: &mut Catalogue, product: &Product, serial: Serial) -> Result<Option<PathBuf>> {
    let root = catalogue.root().to_path_buf();
    let products = &catalogue.document(product.distribution())?.products.products;
    let serials = products.get(&product.to_string()).into_iter().flat_map(ProductEntry::serials);
    Ok(serials.filter(|other| *other < serial).max().map(|other| root.join(product.image_path(other))))
}

/// The sizes of the images up to this one; none when there is no such file or it is not ours.
fn read_history(dir: &Path) -> Vec<Point> {
    let path = dir.join(HISTORY);
    let small = fs::metadata(&path).is_ok_and(|meta| meta.len() <= LARGEST_HISTORY);
    let bytes = small.then(|| fs::read(&path).ok()).flatten().unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or_default()
}
