//! What the mounts of builds and of containers have in common.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, open};

/// A directory to mount or to make a layer of; no link is followed at its end.
pub(crate) fn directory(path: &Path) -> Result<OwnedFd, String> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    open(path, flags, Mode::empty()).map_err(|e| format!("{}: {e}", path.display()))
}

/// What the kernel noted about a failed mount.
pub(crate) fn log(context: BorrowedFd<'_>) -> String {
    let mut text = String::new();
    let mut line = [0; 1024];
    while let Ok(count @ 1..) = rustix::io::read(context, &mut line) {
        text += "; ";
        text += String::from_utf8_lossy(&line[..count]).trim();
    }
    text
}
