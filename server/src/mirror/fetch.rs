//! One image from upstream into a directory that [`Stream`] adds.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use millstream_client::{CatalogueImage, Lot, Offer, Progress, Upstream};
use millstream_image::{Fingerprint, Serial, Sha256Digest, atomic};

use super::{Filter, foreign};
use crate::stream::MIRROR;
use crate::{Error, Result};

const MANIFEST: &str = "manifest.json";

/// Where an image gathers until it is complete; what a failed attempt left is used again.
pub(super) fn directory(root: &Path, offer: &Offer, serial: Serial) -> PathBuf {
    root.join(MIRROR).join(format!("{}-{serial}", offer.product.to_string().replace(':', "-")))
}

/// What it takes to bring images.
pub(super) struct Fetcher<'a> {
    pub(super) upstream: &'a Upstream,
    pub(super) filter: &'a Filter,
    /// Files the tree has already.
    pub(super) have: BTreeMap<Sha256Digest, PathBuf>,
    pub(super) progress: &'a dyn Progress,
}

impl Fetcher<'_> {
    /// Brings an image into `dir`, every file as it was stated, with a manifest.
    pub(super) async fn bring(&self, offer: &Offer, serial: Serial, dir: &Path) -> Result<()> {
        DirBuilder::new().recursive(true).mode(0o755).create(dir).map_err(Error::io(dir))?;
        let url = self.upstream.url();
        let manifest = match &offer.lot {
            Lot::Unstated(entry) => {
                self.upstream.fetch_build(entry, dir, self.progress).await?;
                let names = ["meta.tar.xz", "rootfs.tar.xz"].map(str::to_owned);
                foreign::manifest(offer, serial, (&url, dir), &names)?
            }
            Lot::Stated(image) => {
                let stated = self.upstream.manifest(image).await?;
                let mut files = Upstream::files(image, stated.as_ref())?;
                files.retain(|(name, _)| self.filter.takes_file(name));
                for (name, file) in &files {
                    let dest = dir.join(name);
                    if !self.here(file.sha256, &dest) {
                        self.upstream.fetch(file, &dest, self.progress).await?;
                    }
                }
                tokio::task::block_in_place(|| check(image, dir))?;
                let names: Vec<_> = files.into_iter().map(|(name, _)| name).collect();
                match stated {
                    Some(mut stated) => {
                        stated.files.retain(|name, _| names.contains(name));
                        foreign::list_unified(&mut stated, image, &names);
                        stated
                    }
                    None => foreign::manifest(offer, serial, (&url, dir), &names)?,
                }
            }
        };
        for name in manifest.files.keys() {
            let path = dir.join(name);
            fs::set_permissions(&path, Permissions::from_mode(0o644)).map_err(Error::io(&path))?;
        }
        let path = dir.join(MANIFEST);
        let bytes = manifest.to_bytes().map_err(Error::image(&path))?;
        atomic::write(&path, &bytes).map_err(Error::image(&path))
    }

    /// Takes a file that the tree has as a second name for it. Adding hashes it once more.
    fn here(&self, sha256: Sha256Digest, dest: &Path) -> bool {
        let Some(path) = self.have.get(&sha256) else { return false };
        let good = File::open(path).and_then(Sha256Digest::of_reader).is_ok_and(|(found, _)| found == sha256);
        if !good {
            return false;
        }
        matches!(fs::remove_file(dest), Ok(()) | Err(_)) && fs::hard_link(path, dest).is_ok()
    }
}

/// Only metadata and root file system together prove that they belong to each other.
fn check(image: &CatalogueImage, dir: &Path) -> Result<()> {
    let rootfs = dir.join(image.root_kind.file_name());
    let root = match File::open(&rootfs) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()), // Not among the types taken.
        root => root.map_err(Error::io(&rootfs))?,
    };
    let path = dir.join(image.metadata_name);
    let metadata = File::open(&path).map_err(Error::io(&path))?;
    let found = Fingerprint::of_split(metadata, root).map_err(Error::io(&rootfs))?;
    if found == image.fingerprint {
        return Ok(());
    }
    let reason = format!("its fingerprint is {found}, upstream states {}", image.fingerprint);
    Err(Error::Refused { dir: dir.to_path_buf(), reason })
}
