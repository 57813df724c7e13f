//! A directory in which an image is gathered.

use std::fs::{self, File, TryLockError};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use millstream_image::{Fingerprint, atomic};

use super::{RECORD, Record, STAGING, Store};
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

    pub(super) fn put_record(&self, record: &Record) -> Result<()> {
        let text = serde_json::to_vec_pretty(record).map_err(|e| Error::document(RECORD, e))?;
        Ok(atomic::write(&self.dir.join(RECORD), &text)?)
    }
}

pub(super) async fn begin(store: &Store, fingerprint: Fingerprint) -> Result<Option<Staging>> {
    let dir = store.dir.join(STAGING).join(fingerprint.to_string());
    loop {
        if store.get(fingerprint)?.is_some() {
            return Ok(None);
        }
        match fs::create_dir(&dir) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(Error::io(&dir)(error));
            }
            _ => {}
        }
        match try_lock(&dir) {
            Ok(Some(lock)) => {
                // Who had it before may have finished between the question above and the lock.
                if store.get(fingerprint)?.is_none() {
                    return Ok(Some(Staging { dir, _lock: lock }));
                }
                Staging { dir: dir.clone(), _lock: lock }.discard();
            }
            Ok(None) => tokio::time::sleep(LOCK_POLL).await,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io(&dir)(error)),
        }
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
