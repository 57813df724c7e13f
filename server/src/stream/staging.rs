//! Directories of `.staging`, each of one publisher, which prepares its image there before it takes
//! the tree's lock, so that others need not wait. A lock on the directory says that it lives.

use std::fs::File;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use super::layout::STAGING;
use super::lock::not_writable;
use crate::{Error, Result};

/// A directory of ours; removed with everything in it unless it is kept.
pub(super) struct Claim {
    dir: tempfile::TempDir,
    /// Closed after the directory is gone.
    _lock: File,
}

impl Claim {
    /// Makes a directory. The caller holds the tree's lock, or another could take the directory for
    /// one left behind before it is locked.
    pub(super) fn new(root: &Path) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("add-").tempdir_in(root.join(STAGING));
        let dir = dir.map_err(|error| not_writable(root, error))?;
        let lock = File::open(dir.path()).map_err(Error::io(dir.path()))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|e| Error::io(dir.path())(e.into()))?;
        Ok(Self { dir, _lock: lock })
    }

    pub(super) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The directory has another place now.
    pub(super) fn moved(self) {
        let _gone = self.dir.keep();
    }
}

/// Whether a living publisher works in this directory of staging.
pub(super) fn is_claimed(path: &Path) -> bool {
    let lock = |file: File| flock(&file, FlockOperation::NonBlockingLockExclusive);
    path.is_dir() && File::open(path).map(lock).is_ok_and(|result| result.is_err())
}
