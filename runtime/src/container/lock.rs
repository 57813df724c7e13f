//! Locks on directories. They die with their holder, and a directory that was replaced or removed
//! meanwhile is noticed.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

use crate::{Error, Result};

/// How long a command waits for another one that holds the lock.
const PATIENCE: Duration = Duration::from_secs(5);

/// An exclusive or shared lock, released when dropped.
#[derive(Debug)]
pub struct DirLock {
    #[allow(dead_code, reason = "held for its lock")]
    directory: File,
}

impl DirLock {
    /// Locks the directory for this caller alone. `None` when it is not there (any more).
    ///
    /// # Errors
    /// [`Error::Busy`] when somebody else holds it for longer than a few seconds.
    pub fn exclusive(path: &Path) -> Result<Option<Self>> {
        Self::take(path, FlockOperation::NonBlockingLockExclusive, PATIENCE)
    }

    /// As [`DirLock::exclusive`], for work such as unpacking that others wait for to its end.
    pub fn exclusive_patient(path: &Path) -> Result<Option<Self>> {
        Self::take(path, FlockOperation::NonBlockingLockExclusive, Duration::from_hours(1))
    }

    /// Locks against [`DirLock::exclusive`] only.
    pub fn shared(path: &Path) -> Result<Option<Self>> {
        Self::take(path, FlockOperation::NonBlockingLockShared, PATIENCE)
    }

    /// Locks if nobody holds it.
    pub fn try_exclusive(path: &Path) -> Result<Option<Self>> {
        match Self::take(path, FlockOperation::NonBlockingLockExclusive, Duration::ZERO) {
            Err(Error::Busy { .. }) => Ok(None),
            other => other,
        }
    }

    fn take(path: &Path, operation: FlockOperation, patience: Duration) -> Result<Option<Self>> {
        let end = Instant::now() + patience;
        loop {
            let directory = match File::open(path) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
                other => other.map_err(Error::io(path))?,
            };
            match flock(&directory, operation) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) if Instant::now() < end => {
                    sleep(Duration::from_millis(10));
                    continue;
                }
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    let name = path.file_name().unwrap_or(path.as_os_str());
                    return Err(Error::Busy { name: name.to_string_lossy().into_owned() });
                }
                Err(error) => return Err(Error::io(path)(error.into())),
            }
            let held = directory.metadata().map_err(Error::io(path))?;
            match fs::symlink_metadata(path) {
                Ok(now) if (now.dev(), now.ino()) == (held.dev(), held.ino()) => {
                    return Ok(Some(Self { directory }));
                }
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(Error::io(path)(error)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c");
        assert!(DirLock::exclusive(&path).unwrap().is_none(), "not there");
        fs::create_dir(&path).unwrap();
        let lock = DirLock::try_exclusive(&path).unwrap().unwrap();
        assert!(DirLock::try_exclusive(&path).unwrap().is_none());
        drop(lock);
        let shared = DirLock::shared(&path).unwrap().unwrap();
        assert!(DirLock::shared(&path).unwrap().is_some());
        assert!(DirLock::try_exclusive(&path).unwrap().is_none());
        drop(shared);
        assert!(DirLock::try_exclusive(&path).unwrap().is_some());
    }

    #[test]
    fn a_directory_moved_away_while_waiting_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c");
        fs::create_dir(&path).unwrap();
        let lock = DirLock::exclusive(&path).unwrap().unwrap();
        let waiting = std::thread::spawn({
            let path = path.clone();
            move || DirLock::exclusive(&path).unwrap().is_none()
        });
        sleep(Duration::from_millis(50));
        fs::rename(&path, dir.path().join("gone")).unwrap();
        drop(lock);
        assert!(waiting.join().unwrap());
    }
}
