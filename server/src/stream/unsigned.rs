//! Images from a machine that has no key. They wait in `.unsigned`, whole and checked, where no document
//! and no reader knows them; who has the key checks them again, signs and publishes them.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::layout::UNSIGNED;
use super::lock::Lock;
use super::place::{self, Artefacts, Staged};
use super::staging::Claim;
use super::{Added, Deltas, Signing, Stream, generation, lock, make_directories, prepare, remove_temporary};
use crate::{Error, Result};

/// Where the image of this directory waits, both from the root.
pub(super) fn waiting_place(image: &Path) -> PathBuf {
    Path::new(UNSIGNED).join(image.display().to_string().replace('/', "+"))
}

impl Stream {
    /// Takes the image in `dir` into the tree `root`, which needs not be a stream yet, for
    /// [`Stream::publish_unsigned`]. Returns where it waits, and whether it is new there.
    ///
    /// # Errors
    /// [`Error::Refused`] as [`Stream::add`] does.
    pub fn add_unsigned(root: &Path, dir: &Path) -> Result<(PathBuf, bool)> {
        prepare(root)?;
        let manifest = place::read_manifest(dir)?;
        let (files, image) = (manifest.files.clone(), manifest.product.image_path(manifest.serial));
        let target = waiting_place(&image);
        let known = || -> Result<Option<PathBuf>> {
            let found = [&image, &target].map(|path| root.join(path));
            let Some(path) = found.into_iter().find(|path| path.exists()) else { return Ok(None) };
            if place::read_manifest(&path)?.files == files {
                return Ok(Some(path));
            }
            let reason =
                "the stream has another image of this product and serial; build it with another --serial";
            Err(place::refused(dir, reason))
        };
        let claim = {
            let _lock = Lock::exclusive(root)?;
            make_directories(root)?;
            place::clear_staging(root)?;
            if let Some(path) = known()? {
                return Ok((path, false));
            }
            Claim::new(root)?
        };
        let (staged, _) = Staged::take(claim, dir, (manifest, Artefacts::All), None)?;
        let _lock = Lock::exclusive(root)?;
        remove_temporary(root)?;
        if let Some(path) = known()? {
            return Ok((path, false));
        }
        staged.queue(root, &target)?;
        Ok((root.join(target), true))
    }

    /// Images that wait for signatures, the oldest first.
    pub fn unsigned(&self) -> Result<Vec<PathBuf>> {
        let dir = self.root().join(UNSIGNED);
        let mut found = match fs::read_dir(&dir) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            items => items.map_err(Error::io(&dir))?.flatten().map(|item| item.path()).collect::<Vec<_>>(),
        };
        found.sort_by_key(|path| path.to_string_lossy().rsplit('+').next().map(str::to_owned));
        Ok(found)
    }

    /// Publishes an image of [`Stream::unsigned`]: checked anew, signed, listed, and then gone from there.
    ///
    /// # Errors
    /// As [`Stream::add`]; the image goes on waiting.
    pub fn publish_unsigned(&self, waiting: &Path, signing: &Signing<'_>, deltas: &Deltas) -> Result<Added> {
        lock::check_owner(self.root())?;
        let added = self.add_with(waiting, signing, deltas)?;
        generation::remove(waiting)?;
        Ok(added)
    }
}
