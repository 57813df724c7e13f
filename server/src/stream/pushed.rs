//! Images that builders elsewhere push: who brought them may do less than the stream's owner.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use millstream_image::manifest::Manifest;
use millstream_image::{Fingerprint, Product, Serial, spdx};

use super::catalogue::{self, Catalogue};
use super::layout::{LOG, MANIFEST, META, METADATA, ROOTFS, SQUASHFS, SUMS};
use super::place::{self, Artefacts, Terms};
use super::{Added, Deltas, Signing, Stream, unsigned};
use crate::{Error, Result};

/// Files beside an image that its manifest does not list.
pub(crate) const BESIDE: [&str; 3] = [MANIFEST, SUMS, LOG];

/// Whether an image that somebody pushes may have a file of this name: one that builds make. Any other
/// would be served under a name of its bringer's choice.
pub(crate) fn is_artefact(name: &str) -> bool {
    let fixed = [ROOTFS, SQUASHFS, META, spdx::FILE, "oci.tar"];
    let archive = |stem| {
        let rest = name.strip_prefix(stem);
        rest.is_some_and(|end| ["", ".gz", ".zst", ".xz"].contains(&end))
    };
    fixed.contains(&name)
        || METADATA.contains(&name)
        || BESIDE.contains(&name)
        || archive("rootfs.tar")
        || archive("unified.tar")
}

/// The manifest of a finished build, and the names of all files that make the image.
pub(crate) fn artefacts(dir: &Path) -> Result<(Manifest, Vec<String>)> {
    let manifest = place::read_manifest(dir)?;
    let mut names = place::files(dir, &manifest, Artefacts::All)?;
    if dir.join(SUMS).exists() {
        names.push(SUMS.to_owned());
    }
    Ok((manifest, names))
}

impl Stream {
    /// What documents list as this image: its manifest and fingerprint.
    pub(crate) fn published(
        &self,
        product: &Product,
        serial: Serial,
        now: SystemTime,
    ) -> Result<Option<(Manifest, Option<Fingerprint>)>> {
        let mut catalogue = Catalogue::load(self.root(), &self.keyring()?, now)?;
        let Some(version) = catalogue.version(product, serial)? else { return Ok(None) };
        let fingerprint = catalogue::fingerprint(version);
        let manifest = place::read_manifest(&self.root().join(product.image_path(serial)))?;
        Ok(Some((manifest, fingerprint)))
    }

    /// The manifest of an image that waits for its signatures.
    pub(crate) fn waiting(&self, product: &Product, serial: Serial) -> Result<Option<Manifest>> {
        let path: PathBuf = self.root().join(unsigned::waiting_place(&product.image_path(serial)));
        match path.try_exists() {
            Ok(true) => place::read_manifest(&path).map(Some),
            Ok(false) => Ok(None),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io(&path)(error)),
        }
    }

    /// Adds an image as [`Stream::add_with`]; aliases it takes only from products that `may_take` names.
    pub(crate) fn add_pushed(
        &self,
        dir: &Path,
        signing: &Signing<'_>,
        deltas: &Deltas,
        may_take: &dyn Fn(&Product) -> bool,
    ) -> Result<Added> {
        self.add_as(&Terms { artefacts: Artefacts::All, may_take }, dir, signing, deltas)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn artefacts_are_what_builds_make() {
        for name in ["rootfs.tar.xz", "incus.tar.xz", "unified.tar", "manifest.json", "sbom.spdx.json"] {
            assert!(is_artefact(name), "{name}");
        }
        for name in ["", ".", "..", "index.html", "evil.js", "rootfs.tar.xz.asc", "rootfs.tar.html", "a/b"] {
            assert!(!is_artefact(name), "{name}");
        }
    }
}
