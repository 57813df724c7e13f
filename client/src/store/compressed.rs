//! The compressed archive of an image that came as a delta, made when somebody asks for it.
//!
//! Such an image holds `rootfs.tar`, and what its `rootfs.tar.xz` is made of: the delta, which says how,
//! and the base's file, as a second name of that. All of these go when it is made.

use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Write};
use std::path::Path;

use millstream_image::delta::{Limits, rebuild};
use millstream_image::{Fingerprint, Sha256Digest, atomic};
use tempfile::NamedTempFile;

use super::{Store, StoredImage, absent};
use crate::{Error, Result};

/// The root file system, uncompressed.
pub(crate) const UNCOMPRESSED: &str = "rootfs.tar";
/// The delta that made it.
pub(crate) const DELTA: &str = "rootfs.delta";
/// The compressed root file system that the delta starts from.
pub(crate) const BASE: &str = "base.tar.xz";
/// What [`Store::complete`] makes.
const ROOTFS: &str = "rootfs.tar.xz";
/// All that is there only until then.
const PARTS: [&str; 3] = [UNCOMPRESSED, DELTA, BASE];

impl Store {
    /// Makes the compressed root file system of an image that came as a delta, bit-exact; does nothing
    /// for any other. Takes seconds, on all processors. Blocks.
    ///
    /// # Errors
    /// When this machine's compressor makes other bytes, or files are damaged. The image stays as it is
    /// and can be started, but not exported.
    pub fn complete(&self, image: &StoredImage) -> Result<StoredImage> {
        let now = || self.get(image.fingerprint)?.ok_or_else(|| absent(image.fingerprint));
        if let Some(image) = Some(now()?).filter(|image| image.uncompressed.is_none()) {
            return Ok(image);
        }
        // Another process may be at it, and be done when the lock is ours.
        let _lock = self.lock(image.fingerprint)?;
        let image = now()?;
        if image.uncompressed.is_some() {
            self.compress(&image, &self.path(image.fingerprint))?;
        }
        now()
    }

    fn compress(&self, image: &StoredImage, dir: &Path) -> Result<()> {
        let open = |name: &str| File::open(dir.join(name)).map_err(Error::io(dir.join(name)));
        let (base, delta, tar) = (open(BASE)?, BufReader::new(open(DELTA)?), open(UNCOMPRESSED)?);
        let temp = NamedTempFile::new_in(dir).map_err(Error::io(dir))?;
        let out = BufWriter::new(temp.reopen().map_err(Error::io(dir))?);
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let mut out = rebuild(&base, delta, &tar, out, threads, &Limits::default())?;
        out.flush().map_err(Error::io(dir))?;
        let made = File::open(temp.path()).map_err(Error::io(dir))?;
        let metadata = File::open(&image.metadata).map_err(Error::io(&image.metadata))?;
        let found = Fingerprint::of_split(metadata, made).map_err(Error::io(dir))?;
        if found != image.fingerprint {
            return Err(self.damaged_image(image, found));
        }
        temp.as_file().sync_all().map_err(Error::io(dir))?;
        let path = dir.join(ROOTFS);
        let readable = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        temp.as_file().set_permissions(readable).map_err(Error::io(dir))?;
        temp.persist(&path).map_err(|e| Error::io(&path)(e.error))?;
        atomic::sync_dir(dir)?;
        self.change_record(image.fingerprint, |record| {
            ROOTFS.clone_into(&mut record.rootfs);
            record.uncompressed = None;
            Ok(())
        })?;
        remove_parts(dir);
        Ok(())
    }

    /// Hashes an uncompressed root file system again.
    pub(super) fn verify_uncompressed(&self, image: &StoredImage, expected: Sha256Digest) -> Result<()> {
        let file = File::open(&image.rootfs).map_err(Error::io(&image.rootfs))?;
        let (found, _) = Sha256Digest::of_reader(file).map_err(Error::io(&image.rootfs))?;
        if found == expected {
            return Ok(());
        }
        let reason = format!("its root file system hashes to {found}; delete the image and fetch it again");
        Err(Error::Store { path: self.path(image.fingerprint), reason })
    }
}

/// Removes what an image needs no more; what a killed process left as well.
pub(super) fn remove_parts(dir: &Path) {
    for name in PARTS {
        drop(fs::remove_file(dir.join(name)));
    }
}
