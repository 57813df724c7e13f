//! Images that another server has: documents list them before their files are here.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use millstream_client::catalogue::RootKind;
use millstream_client::{CatalogueImage, RemoteFile};
use millstream_image::simplestreams::{Item, ProductEntry, Products};
use millstream_image::{Alias, Serial, atomic};

use super::catalogue::content_id;
use super::deltas::delta_name;
use super::layout::{COMBINED, DELTA, MANIFEST, METADATA, MIRROR, PROMISED};
use super::{Signing, Stream};
use crate::mirror::foreign;
use crate::{Error, Result};

impl Stream {
    /// Publishes documents that list these images and no others, and LXC's index of those whose directory
    /// is among `lxc`, when that is not what they say already, or their time is half over. Whether it did.
    pub(crate) fn offer(
        &self,
        images: &[(Serial, CatalogueImage)],
        lxc: &BTreeSet<String>,
        signing: &Signing<'_>,
    ) -> Result<bool> {
        let due = self.is_due(signing.now)?;
        let (_lock, mut catalogue) = self.write(signing)?;
        let mut changed = catalogue.replace(documents(images))?;
        if *lxc != promised(self.root())? {
            promise(self.root(), lxc)?;
            catalogue.renew_all()?;
            changed = true;
        }
        if changed || due {
            self.publish_next(&mut catalogue, signing)?;
        }
        Ok(changed || due)
    }
}

/// Directories of the images whose metadata for LXC comes when it is asked for.
pub(super) fn promised(root: &Path) -> Result<BTreeSet<String>> {
    let path = root.join(PROMISED);
    match fs::read_to_string(&path) {
        Ok(text) => Ok(text.lines().map(str::to_owned).collect()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(BTreeSet::new()),
        Err(error) => Err(Error::io(&path)(error)),
    }
}

fn promise(root: &Path, dirs: &BTreeSet<String>) -> Result<()> {
    let path = root.join(PROMISED);
    let dir = root.join(MIRROR);
    fs::create_dir_all(&dir).map_err(Error::io(&dir))?;
    let text: String = dirs.iter().flat_map(|dir| [dir.as_str(), "\n"]).collect();
    atomic::write(&path, text.as_bytes()).map_err(Error::image(&path))
}

/// A file of an image that documents list.
pub(crate) struct OfferedFile<'a> {
    /// Item type.
    ftype: &'static str,
    /// Path in a tree of ours.
    pub(crate) path: String,
    /// Where upstream has it.
    pub(crate) remote: &'a RemoteFile,
    /// Of a delta, the serial it starts from.
    base: Option<Serial>,
}

/// The files of an image that documents list.
pub(crate) fn offered_files(serial: Serial, image: &CatalogueImage) -> Vec<OfferedFile<'_>> {
    let dir = image.product.image_path(serial);
    let path = |name: &str| dir.join(Path::new(name)).display().to_string();
    let file = |ftype, name: &str, remote| OfferedFile { ftype, path: path(name), remote, base: None };
    // The one pair whose fingerprint upstream was read for; the same metadata may have both names.
    let same =
        |(name, file): &(&str, &RemoteFile)| METADATA.contains(name) && file.sha256 == image.metadata.sha256;
    let metadata = image.files().filter(same).map(|(name, remote)| file(name, name, remote));
    let root = file(image.root_kind.item_type(), image.root_kind.file_name(), &image.rootfs);
    let manifest = image.manifest.iter().map(|remote| file(MANIFEST, MANIFEST, remote));
    let unified = image.unified.as_deref().into_iter();
    let unified =
        unified.flat_map(|(name, remote)| COMBINED.into_iter().map(move |ftype| file(ftype, name, remote)));
    let deltas = image.deltas.iter().filter_map(|delta| {
        let base = foreign::serial(&delta.base)?;
        Some(OfferedFile { base: Some(base), ..file(DELTA, &delta_name(base), &delta.file) })
    });
    metadata.chain([root]).chain(manifest).chain(unified).chain(deltas).collect()
}

fn documents(images: &[(Serial, CatalogueImage)]) -> BTreeMap<String, Products> {
    let mut documents: BTreeMap<String, Products> = BTreeMap::new();
    for (serial, image) in images {
        let distribution = image.product.distribution();
        let products =
            documents.entry(distribution.into()).or_insert_with(|| Products::empty(content_id(distribution)));
        let entry = products.products.entry(image.product.to_string()).or_insert_with(|| entry(image));
        let version = entry.versions.entry(serial.to_string()).or_default();
        for file in offered_files(*serial, image) {
            // There may be many deltas, and one of everything else.
            let name = file.base.map_or_else(|| file.ftype.to_owned(), delta_name);
            version.items.insert(name, item(image, file));
        }
    }
    documents
}

fn entry(image: &CatalogueImage) -> ProductEntry {
    let (product, details) = (&image.product, &image.details);
    ProductEntry {
        aliases: details.aliases.iter().map(Alias::as_str).collect::<Vec<_>>().join(","),
        arch: product.architecture().debian().into(),
        os: details.os.clone(),
        release: product.release().into(),
        release_title: details.release_title.clone(),
        support_eol: details.support_eol.clone(),
        variant: product.variant().into(),
        requirements: details.requirements.clone(),
        ..ProductEntry::default()
    }
}

fn item(image: &CatalogueImage, file: OfferedFile<'_>) -> Item {
    let OfferedFile { ftype, path, remote, base } = file;
    let mut item = Item {
        ftype: ftype.into(),
        path,
        size: remote.size,
        sha256: Some(remote.sha256),
        sha256_uncompressed: image.uncompressed.filter(|_| ftype == "root.tar.xz"),
        delta_base: base.map(|base| base.to_string()),
        ..Item::default()
    };
    if METADATA.contains(&ftype) {
        let combined = Some(image.fingerprint.digest());
        if image.root_kind == RootKind::Squashfs {
            item.combined_squashfs_sha256 = combined;
        } else {
            (item.combined_sha256, item.combined_rootxz_sha256) = (combined, combined);
        }
    }
    item
}
