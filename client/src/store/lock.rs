//! The lock on the store as a whole: whoever has it open shares it, so that its index is replaced only
//! while nobody else reads or writes the old one.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use super::LOCK;
use crate::{Error, Result};

/// How long others are waited for.
const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LockKind {
    WithOthers,
    Alone,
}

/// Takes the lock; it dies with its process.
pub(super) fn lock_store(dir: &Path, kind: LockKind) -> Result<File> {
    let path = dir.join(LOCK);
    // Closed to other users, who could hold it for ever.
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).write(true).mode(0o600);
    let file = options.open(&path).map_err(Error::io(&path))?;
    let end = Instant::now() + PATIENCE;
    loop {
        let taken = match kind {
            LockKind::WithOthers => file.try_lock_shared(),
            LockKind::Alone => file.try_lock(),
        };
        match taken {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < end => std::thread::sleep(POLL),
            Err(TryLockError::WouldBlock) => {
                let reason = match kind {
                    LockKind::WithOthers => "its index is being made anew; try again later",
                    LockKind::Alone => "other commands use it; let them end, and try again",
                };
                return Err(Error::Store { path: dir.to_owned(), reason: reason.into() });
            }
            Err(TryLockError::Error(error)) => return Err(Error::io(&path)(error)),
        }
    }
}
