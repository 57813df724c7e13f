//! One writer at a time. The lock dies with its process.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::process::geteuid;

use super::layout::LOCK;
use crate::{Error, Result};

/// Held while a tree is changed.
pub(super) struct Lock(#[expect(dead_code, reason = "closing it is what unlocks")] File);

impl Lock {
    /// Waits for other writers, then keeps them out.
    pub(super) fn exclusive(root: &Path) -> Result<Self> {
        check_owner(root)?;
        let path = root.join(LOCK);
        let file = File::options().write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(|error| not_writable(root, error))?;
        take(file, FlockOperation::LockExclusive).map_err(Error::io(&path))
    }

    /// Waits for writers, then keeps them out; needs no right to write. `None` in a copy of a tree
    /// that came without its lock.
    pub(super) fn shared(root: &Path) -> Result<Option<Self>> {
        let path = root.join(LOCK);
        match File::open(&path) {
            Ok(file) => take(file, FlockOperation::LockShared).map(Some).map_err(Error::io(&path)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io(&path)(error)),
        }
    }
}

fn take(file: File, how: FlockOperation) -> io::Result<Lock> {
    rustix::io::retry_on_intr(|| flock(&file, how))?;
    Ok(Lock(file))
}

/// Files of two owners in one tree would lock one of them out later, so even root is refused.
pub(super) fn check_owner(root: &Path) -> Result<()> {
    let owner = fs::metadata(root).map_err(Error::io(root))?.uid();
    let user = geteuid().as_raw();
    if owner == user {
        return Ok(());
    }
    Err(Error::tree(root, format!("it belongs to user id {owner} and you are {user}; run this as its owner")))
}

/// One line for a directory that cannot be written, whatever the reason.
pub(super) fn not_writable(root: &Path, error: io::Error) -> Error {
    let reason = match error.kind() {
        io::ErrorKind::ReadOnlyFilesystem => {
            "it is on a read-only file system; publish where it is mounted writable"
        }
        io::ErrorKind::PermissionDenied => {
            "you may not write there; check the permissions of the directory and of those above it"
        }
        _ => return Error::io(root)(error),
    };
    Error::tree(root, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_that_users_can_mend_are_said_in_one_line() {
        for (kind, expected) in [
            (io::ErrorKind::ReadOnlyFilesystem, "read-only file system"),
            (io::ErrorKind::PermissionDenied, "may not write there"),
            (io::ErrorKind::StorageFull, "no storage space"),
        ] {
            let text = not_writable(Path::new("/srv/images"), kind.into()).to_string();
            assert!(text.starts_with("/srv/images: ") && text.contains(expected), "{text}");
            assert_eq!(text.lines().count(), 1);
        }
    }

    #[test]
    fn lock_is_had_by_one_and_freed_by_dropping_it() {
        let dir = tempfile::tempdir().unwrap();
        let first = Lock::exclusive(dir.path()).unwrap();
        let root = dir.path().to_path_buf();
        let (sender, receiver) = std::sync::mpsc::channel();
        let second = std::thread::spawn(move || {
            let lock = Lock::exclusive(&root).unwrap();
            sender.send(()).unwrap();
            drop(lock);
        });
        assert!(receiver.recv_timeout(std::time::Duration::from_millis(200)).is_err());
        drop(first);
        receiver.recv_timeout(std::time::Duration::from_secs(20)).unwrap();
        second.join().unwrap();
    }
}
