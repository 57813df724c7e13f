//! A directory in which an image is gathered.

use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use millstream_image::Fingerprint;
use tempfile::TempDir;

use super::{Record, STAGING, Store, put_record};
use crate::{Error, Result};

const LOCK_POLL: Duration = Duration::from_millis(50);

/// An image on its way in. The lock on its directory keeps others away until this is dropped;
/// what was gathered stays for the next try unless [`Staging::discard`] is called.
#[derive(Debug)]
pub struct Staging {
    dir: PathBuf,
    _lock: File,
}

impl Staging {
    /// Where its files go.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Throws away what was gathered.
    pub fn discard(self) {
        drop(fs::remove_dir_all(&self.dir));
    }

    /// Removes what is no part of the image: temporary files of a try that was killed, say.
    pub(super) fn keep_only(&self, names: &[&str]) -> Result<()> {
        for entry in fs::read_dir(&self.dir).map_err(Error::io(&self.dir))? {
            let entry = entry.map_err(Error::io(&self.dir))?;
            if !names.iter().any(|name| entry.file_name() == *name) {
                fs::remove_file(entry.path()).map_err(Error::io(entry.path()))?;
            }
        }
        Ok(())
    }

    pub(super) fn put_record(&self, record: &Record) -> Result<()> {
        put_record(&self.dir, record)
    }
}

pub(super) async fn begin(store: &Store, fingerprint: Fingerprint) -> Result<Option<Staging>> {
    let dir = store.dir.join(STAGING).join(fingerprint.to_string());
    let arrived = store.path(fingerprint);
    loop {
        // A directory without a row: its process is about to write one, or was killed before.
        if arrived.exists() {
            store.adopt(fingerprint)?;
        }
        if store.get(fingerprint)?.is_some() {
            return Ok(None);
        }
        match fs::create_dir(&dir) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(Error::io(&dir)(error)),
            _ => {}
        }
        match try_lock(&dir) {
            // Who had the lock before may have finished since the questions above.
            Ok(Some(lock)) if arrived.exists() => Staging { dir: dir.clone(), _lock: lock }.discard(),
            Ok(Some(lock)) => return Ok(Some(Staging { dir, _lock: lock })),
            Ok(None) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io(&dir)(error)),
        }
        tokio::time::sleep(LOCK_POLL).await;
    }
}

/// A new directory, locked: one that is not has nobody any more.
#[derive(Debug)]
pub struct Locked {
    dir: TempDir,
    _lock: File,
}

impl Locked {
    pub(super) fn new_in(parent: &Path, prefix: &str) -> Result<Self> {
        loop {
            let dir =
                tempfile::Builder::new().prefix(prefix).tempdir_in(parent).map_err(Error::io(parent))?;
            match try_lock(dir.path()) {
                Ok(Some(lock)) => return Ok(Self { dir, _lock: lock }),
                // Somebody took it for one that was left.
                Ok(None) => {}
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(Error::io(dir.path())(error)),
            }
        }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }
}

/// Locks a directory; `None` when another process has it, or it is no longer at its path.
pub(super) fn try_lock(dir: &Path) -> std::io::Result<Option<File>> {
    let file = File::open(dir)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    let (open, named) = (file.metadata()?, fs::symlink_metadata(dir)?);
    Ok((open.ino() == named.ino() && open.dev() == named.dev()).then_some(file))
}
