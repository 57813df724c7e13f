//! Unified archives: what LXD and Incus import from an address. A build may bring one; otherwise it is
//! made in staging of metadata and root file system, before anybody can see the image.

use std::fs::File;
use std::path::Path;

use millstream_image::archive::{Limits, PackOptions, Reader, decoder, read_small, unify};
use millstream_image::simplestreams::Item;
use millstream_image::{atomic, metadata};

use super::catalogue::Listing;
use super::layout::{COMBINED, METADATA, ROOTFS, UNIFIED};
use super::readable;
use crate::{Error, Result};

/// Makes the archive for the image in `dir` and lists it with it, unless one is listed, or the image lacks
/// what it takes.
///
/// # Errors
/// When staging cannot be written, or the image's archives cannot be read.
pub(super) fn make(dir: &Path, listing: &mut Listing) -> Result<()> {
    let has = |name: &str| listing.manifest.files.contains_key(name);
    let (Some(metadata), true) = (METADATA.iter().find(|name| has(name)), has(ROOTFS)) else { return Ok(()) };
    if COMBINED.iter().any(|ftype| listing.items.contains_key(*ftype)) {
        return Ok(());
    }
    let open = |name: &str| File::open(dir.join(name)).map_err(Error::io(dir.join(name)));
    let metadata = read_small(open(metadata)?).map_err(Error::image(dir.join(metadata)))?;
    let name = UNIFIED[0];
    let path = dir.join(name);
    let out = File::create_new(&path).map_err(Error::io(&path))?;
    let options = PackOptions { epoch: listing.manifest.source_date_epoch, ..PackOptions::default() };
    let made = unify(&metadata, open(ROOTFS)?, out, (&Limits::default(), &options));
    let (out, packed) = made.map_err(Error::image(dir.join(ROOTFS)))?;
    readable(&path, 0o644)?;
    out.sync_all().map_err(Error::io(&path))?;
    atomic::sync_dir(dir).map_err(Error::image(dir))?;
    let base = listing.manifest.product.image_path(listing.manifest.serial);
    for ftype in COMBINED {
        let item = Item {
            ftype: ftype.into(),
            path: base.join(name).display().to_string(),
            size: packed.size,
            sha256: Some(packed.sha256),
            ..Item::default()
        };
        listing.items.insert(ftype.into(), item);
    }
    Ok(())
}

/// `metadata.yaml` of a unified archive, which is read no further than that; `None` when there is none.
pub(super) fn yaml(path: &Path) -> millstream_image::Result<Option<Vec<u8>>> {
    let file = File::open(path).map_err(millstream_image::Error::io(path))?;
    let limits = Limits::default();
    let mut archive = Reader::new(decoder(file, &limits)?, &limits);
    while let Some(entry) = archive.next_entry()? {
        if entry.path == b"metadata.yaml" {
            // Of one that is too long, enough is read for the parser to say so.
            let mut text = vec![0; entry.size.min(metadata::MAX_SIZE as u64 + 1) as usize];
            let mut at = 0;
            while at < text.len() {
                at += match archive.data(&mut text[at..])? {
                    0 => break,
                    count => count,
                };
            }
            return Ok(Some(text));
        }
    }
    Ok(None)
}
