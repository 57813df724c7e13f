//! Where a container's changes go: `upper` and `work` of its overlay, in a directory of their own. On
//! btrfs that is a subvolume, of which there is a snapshot in no time, also while the container runs.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::quota;
use super::sys::btrfs;
use crate::{Error, Result};

/// The magic number of btrfs, of the kernel's `uapi/linux/magic.h`.
const BTRFS: u32 = 0x9123_683E;

/// Those of the container with this directory.
pub fn of(directory: &Path) -> PathBuf {
    directory.join("changes")
}

/// What was changed: the overlay's upper directory.
pub fn upper(changes: &Path) -> PathBuf {
    changes.join("upper")
}

/// The overlay's scratch space, which a layer does not need.
pub fn work(changes: &Path) -> PathBuf {
    changes.join("work")
}

/// Makes an empty place instead of what is there.
pub fn make(changes: &Path) -> Result<()> {
    match fs::remove_dir_all(changes) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(Error::io(changes)(error)),
        _ => {}
    }
    let made = subvolume(changes, None, None).or_else(|_| fs::create_dir(changes));
    made.map_err(Error::io(changes))?;
    for dir in [upper(changes), work(changes)] {
        fs::create_dir(&dir).map_err(Error::io(&dir))?;
    }
    Ok(())
}

/// Copies the changes of a container that stands still, in no time, to where nothing is yet; false
/// where that cannot be. The copy counts as they do.
pub fn snapshot(changes: &Path, to: &Path, id: &str) -> bool {
    let copy = |from: File| subvolume(to, Some(&from), quota::group(changes, id));
    is_subvolume(changes) && File::open(changes).and_then(copy).is_ok()
}

/// Leaves of changes what a layer needs.
pub fn settle(layer: &Path) -> Result<()> {
    let work = work(layer);
    match fs::remove_dir_all(&work) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io(&work)(error)),
        _ => Ok(()),
    }
}

/// Whether a directory is the root of a subvolume of btrfs.
pub fn is_subvolume(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_dir() && found.ino() == btrfs::ROOT)
        && rustix::fs::statfs(path).is_ok_and(|found| found.f_type as u32 == BTRFS)
}

/// Never what a link leads to: a container may change what is below.
pub fn open(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    // Never waiting for the other end of something.
    options.read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC).open(path)
}

fn subvolume(path: &Path, source: Option<&File>, group: Option<u64>) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return Err(io::ErrorKind::InvalidFilename.into());
    };
    let parent = File::open(parent)?;
    btrfs::make_subvolume(parent.as_fd(), name, source.map(AsFd::as_fd), group)
}
