//! Finished images, kept so that unchanged inputs give the image at once.
//!
//! `CACHE/images/NAME/` holds the files of the newest image of a product by one recipe, as hard links
//! where the file system has them. What is there is believed by its manifest's hashes only.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use millstream_image::manifest::Manifest;
use millstream_image::{Product, Sha256Digest, atomic};
use rustix::fs::{FlockOperation, flock};

use crate::staging::{self, Staging};
use crate::{Error, Result};

const STAGING: &str = "keeping-";
pub(super) const MANIFEST: &str = "manifest.json";
const LOG: &str = "build.log";

/// An image that may be what a build would make.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) dir: PathBuf,
    pub(super) manifest: Manifest,
}

/// The directory of finished images.
pub(super) struct Finished {
    dir: PathBuf,
}

impl Finished {
    pub(super) fn open(cache: &Path) -> Result<Self> {
        let dir = cache.join("images");
        fs::create_dir_all(&dir).map_err(Error::io(&dir))?;
        Ok(Self { dir })
    }

    /// Images of a product, here and in `elsewhere`, the newest first.
    pub(super) fn of(&self, product: &Product, elsewhere: &[PathBuf]) -> Vec<Candidate> {
        let here = staging::items(&self.dir).into_iter().map(|(dir, _)| dir);
        let mut found: Vec<_> = elsewhere
            .iter()
            .cloned()
            .chain(here)
            .filter_map(|dir| {
                let manifest = Manifest::parse(&fs::read(dir.join(MANIFEST)).ok()?).ok()?;
                (manifest.product == *product).then_some(Candidate { dir, manifest })
            })
            .collect();
        found.sort_by_key(|candidate| std::cmp::Reverse(candidate.manifest.serial));
        found
    }

    /// Puts a finished image in place of the one of that name.
    pub(super) fn keep(&self, name: &str, image: &Path) -> Result<()> {
        let _lock = self.lock(FlockOperation::LockExclusive)?;
        let staging = Staging::new(&self.dir, STAGING)?;
        for item in fs::read_dir(image).map_err(Error::io(image))? {
            let item = item.map_err(Error::io(image))?;
            let to = staging.path().join(item.file_name());
            if item.file_type().is_ok_and(|kind| kind.is_file()) && fs::hard_link(item.path(), &to).is_err() {
                fs::copy(item.path(), &to).map_err(Error::io(&to))?;
            }
        }
        let target = self.dir.join(name);
        match fs::remove_dir_all(&target) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io(&target)(error));
            }
            _ => {}
        }
        atomic::rename(staging.path(), &target)?;
        let _moved = staging.keep();
        Ok(())
    }

    /// Copies a candidate's files into the directory `to`, each checked against its manifest; false,
    /// and nothing is left in `to`, when it is damaged.
    pub(super) fn take(&self, candidate: &Candidate, to: &Path) -> Result<bool> {
        let _lock = self.lock(FlockOperation::LockShared)?;
        let sound = candidate.manifest.files.iter().all(|(name, file)| {
            let from = candidate.dir.join(name);
            let Ok(opened) = File::open(&from) else { return false };
            name.split('/').count() == 1
                && Sha256Digest::of_reader(opened).is_ok_and(|(digest, _)| digest == file.sha256)
        });
        if !sound {
            return Ok(false);
        }
        let always = [MANIFEST, "SHA256SUMS"].map(str::to_owned);
        for name in candidate.manifest.files.keys().chain(&always) {
            let (from, to) = (candidate.dir.join(name), to.join(name));
            fs::copy(&from, &to).map_err(Error::io(&from))?;
        }
        let log = candidate.dir.join(LOG);
        if log.exists() {
            fs::copy(&log, to.join(LOG)).map_err(Error::io(&log))?;
        }
        if let Ok(used) = File::open(&candidate.dir) {
            let _ = used.set_modified(SystemTime::now());
        }
        Ok(true)
    }

    /// Removes those not used for longest until the rest has at most `limit` bytes.
    pub(super) fn prune(&self, limit: u64) -> Result<()> {
        let _lock = self.lock(FlockOperation::LockExclusive)?;
        staging::collect(&self.dir, STAGING)?;
        let size = |dir: &Path| -> u64 {
            staging::items(dir).iter().filter_map(|(path, _)| Some(path.metadata().ok()?.len())).sum()
        };
        let all = staging::items(&self.dir).into_iter().filter(|(path, _)| path.join(MANIFEST).exists());
        let mut images: Vec<_> = all.map(|(path, modified)| (modified, size(&path), path)).collect();
        images.sort();
        let mut total: u64 = images.iter().map(|(_, size, _)| size).sum();
        for (_, size, path) in images {
            if total <= limit {
                break;
            }
            fs::remove_dir_all(&path).map_err(Error::io(&path))?;
            total -= size;
        }
        Ok(())
    }

    fn lock(&self, operation: FlockOperation) -> Result<File> {
        let path = self.dir.join("lock");
        let file = File::create(&path).map_err(Error::io(&path))?;
        flock(&file, operation).map_err(|e| Error::io(&path)(e.into()))?;
        Ok(file)
    }
}
