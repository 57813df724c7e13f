//! Images of servers that are no streams of ours: what documents say of them becomes a manifest.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::Path;

use millstream_client::{CatalogueImage, Lot, Offer};
use millstream_image::manifest::{self, Manifest, Source};
use millstream_image::{Serial, Sha256Digest};

use crate::{Error, Result};

/// A version's name as one of our serials: `YYYYMMDD_HHMM` and `YYYYMMDD_HH:MM` to the minute, of
/// `YYYYMMDD` and `YYYYMMDD.N` the day, with N for the minutes, so that their order stays.
pub(crate) fn serial(name: &str) -> Option<Serial> {
    let plain = name.replace(':', "");
    if let Ok(serial) = plain.parse() {
        return Some(serial);
    }
    let (day, count) = name.split_once('.').unwrap_or((name, "0"));
    let count: u32 = count.parse().ok().filter(|count| *count < 24 * 60)?;
    format!("{day}_{:02}{:02}", count / 60, count % 60).parse().ok()
}

/// The manifest of an image whose files lie in `dir`. What upstream does not tell stays empty.
pub(super) fn manifest(
    offer: &Offer,
    serial: Serial,
    (url, dir): (&str, &Path),
    names: &[String],
) -> Result<Manifest> {
    let mut files = BTreeMap::new();
    for name in names {
        let path = dir.join(name);
        let (sha256, size) = File::open(&path).and_then(Sha256Digest::of_reader).map_err(Error::io(&path))?;
        let file = manifest::File { size, sha256, sha256_uncompressed: None, size_uncompressed: None };
        files.insert(name.clone(), file);
    }
    let product = offer.product.clone();
    let root = files.iter().find(|(name, _)| name.starts_with("rootfs."));
    let sources = root.map(|(_, file)| Source {
        url: url.to_owned(),
        name: format!("{product} {}", offer.serial),
        sha256: file.sha256,
    });
    let (os, release_aliases, requirements) = match &offer.lot {
        Lot::Stated(image) => {
            let releases: BTreeSet<_> =
                image.aliases().iter().filter_map(|alias| alias.as_str().split('/').nth(1)).collect();
            let others = releases.into_iter().filter(|release| *release != product.release());
            let others = others.map(str::to_owned).collect();
            (image.details.os.clone(), others, image.details.requirements.clone())
        }
        Lot::Unstated(_) => (product.distribution().to_owned(), Vec::new(), BTreeMap::new()),
    };
    Ok(Manifest {
        version: 1,
        description: format!("{os} {} {}", product.release(), product.architecture()),
        serial,
        os,
        release_aliases,
        requirements,
        source_date_epoch: serial.time().timestamp(),
        recipe: String::new(),
        sources: sources.into_iter().collect(),
        packages: Vec::new(),
        files,
        durations: Vec::new(),
        inputs: None,
        product,
    })
}

/// Lists the unified archive that upstream made of an image's files, if it is among `names`: here it came
/// with the image.
pub(super) fn list_unified(manifest: &mut Manifest, image: &CatalogueImage, names: &[String]) {
    if let Some((name, file)) = image.unified.as_deref().filter(|(name, _)| names.iter().any(|n| n == name)) {
        let (size, sha256) = (file.size, file.sha256);
        let listed = manifest::File { size, sha256, sha256_uncompressed: None, size_uncompressed: None };
        manifest.files.entry((*name).to_owned()).or_insert(listed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_names_become_serials_in_their_order() {
        for (name, expected) in [
            ("20260101_0512", "20260101_0512"),
            ("20260101_05:12", "20260101_0512"),
            ("20260101", "20260101_0000"),
            ("20260101.1", "20260101_0001"),
            ("20260101.61", "20260101_0101"),
        ] {
            assert_eq!(serial(name).unwrap().to_string(), expected, "{name}");
        }
        for bad in ["", "2026", "20261301", "20260101.x", "20260101.9999", "current"] {
            assert_eq!(serial(bad), None, "{bad}");
        }
    }
}
