//! Images that another server has: documents list them before their files are here.

use std::collections::BTreeMap;
use std::path::Path;

use millstream_client::catalogue::RootKind;
use millstream_client::{CatalogueImage, RemoteFile};
use millstream_image::simplestreams::{Item, ProductEntry, Products};
use millstream_image::{Alias, Serial};

use super::catalogue::content_id;
use super::layout::METADATA;
use super::{Signing, Stream};
use crate::Result;

impl Stream {
    /// Publishes documents that list these images and no others, when that is not what they say
    /// already, or their time is half over. Whether it did.
    pub(crate) fn offer(&self, images: &[(Serial, CatalogueImage)], signing: &Signing<'_>) -> Result<bool> {
        let due = self.is_due(signing.now)?;
        let (_lock, mut catalogue) = self.write(signing)?;
        let changed = catalogue.replace(documents(images))?;
        if changed || due {
            self.publish_next(&mut catalogue, signing)?;
        }
        Ok(changed || due)
    }
}

/// The files of an image that documents list: their item types and paths in a tree of ours, and where
/// upstream has them.
pub(crate) fn offered_files(
    serial: Serial,
    image: &CatalogueImage,
) -> Vec<(&'static str, String, &RemoteFile)> {
    let dir = image.product.image_path(serial);
    let path = |name: &str| dir.join(Path::new(name)).display().to_string();
    // The one pair whose fingerprint upstream was read for; the same metadata may have both names.
    let same =
        |(name, file): &(&str, &RemoteFile)| METADATA.contains(name) && file.sha256 == image.metadata.sha256;
    let metadata = image.files().filter(same).map(|(name, file)| (name, path(name), file));
    let root = (image.root_kind.item_type(), path(image.root_kind.file_name()), &image.rootfs);
    let manifest = image.manifest.iter().map(|file| ("manifest.json", path("manifest.json"), file));
    metadata.chain([root]).chain(manifest).collect()
}

fn documents(images: &[(Serial, CatalogueImage)]) -> BTreeMap<String, Products> {
    let mut documents: BTreeMap<String, Products> = BTreeMap::new();
    for (serial, image) in images {
        let distribution = image.product.distribution();
        let products =
            documents.entry(distribution.into()).or_insert_with(|| Products::empty(content_id(distribution)));
        let entry = products.products.entry(image.product.to_string()).or_insert_with(|| entry(image));
        let version = entry.versions.entry(serial.to_string()).or_default();
        for (ftype, path, file) in offered_files(*serial, image) {
            version.items.insert(ftype.to_owned(), item(image, ftype, path, file));
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

fn item(image: &CatalogueImage, ftype: &str, path: String, file: &RemoteFile) -> Item {
    let mut item = Item {
        ftype: ftype.into(),
        path,
        size: file.size,
        sha256: Some(file.sha256),
        sha256_uncompressed: image.uncompressed.filter(|_| ftype == "root.tar.xz"),
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
