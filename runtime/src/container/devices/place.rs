//! Puts mounts into a container's own, and takes them away. Runs as the container's root in its mount
//! namespace, where every path ends within its root file system.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, umount2};
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, StatxAttributes, StatxFlags, mkdirat, openat,
    openat2, statat, statx,
};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, move_mount};
use serde::{Deserialize, Serialize};

/// Where a mount goes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Placement {
    /// The device's name.
    pub device: String,
    /// The path inside.
    pub path: PathBuf,
    /// Whether it is a directory, rather than a file or a node.
    pub directory: bool,
}

impl Placement {
    /// Mounts it there. What is missing of the path is made.
    pub fn attach(&self, tree: &OwnedFd) -> Result<(), String> {
        let failed = |reason: String| format!("device {}: {}: {reason}", self.device, self.path.display());
        let target = target(&self.path, self.directory).map_err(|e| {
            let hint = match e {
                Errno::NOTDIR => " (the container has a file on the way)",
                Errno::LOOP => " (the container has links there that lead nowhere)",
                _ => "",
            };
            failed(format!("{e}{hint}"))
        })?;
        let found = statat(&target, "", AtFlags::EMPTY_PATH).map_err(|e| failed(e.to_string()))?;
        if (FileType::from_raw_mode(found.st_mode) == FileType::Directory) != self.directory {
            let what = if self.directory {
                "no directory, the source is one"
            } else {
                "a directory, the source is none"
            };
            return Err(failed(format!("what the container has there is {what}")));
        }
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        move_mount(tree, "", &target, "", flags).map_err(|e| failed(e.to_string()))
    }
}

/// Opens what is at a path, or makes an empty directory or file there.
fn target(path: &Path, directory: bool) -> rustix::io::Result<OwnedFd> {
    match resolve(path) {
        Err(Errno::NOENT) => {}
        other => return other,
    }
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Err(Errno::INVAL) };
    let parent = target(parent, true)?;
    if directory {
        mkdirat(&parent, name, Mode::from(0o755))?;
    } else {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat(&parent, name, flags, Mode::from(0o644))?;
    }
    resolve(path)
}

/// Links are followed, within the container's root as that is this process's, but not those of `/proc`,
/// which lead to what processes have open.
fn resolve(path: &Path) -> rustix::io::Result<OwnedFd> {
    openat2(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::NO_MAGICLINKS)
}

/// Takes away what is mounted at a path: the file with this device and inode, if they are known, else a
/// device node.
pub fn detach(path: &Path, source: Option<(u64, u64)>) -> Result<(), String> {
    let failed = |error: Errno| format!("{}: {error}", path.display());
    let there = match resolve(path) {
        Err(Errno::NOENT) => return Ok(()),
        other => other.map_err(failed)?,
    };
    let found = statat(&there, "", AtFlags::EMPTY_PATH).map_err(failed)?;
    let about = statx(&there, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS).map_err(failed)?;
    let kind = FileType::from_raw_mode(found.st_mode);
    let node = matches!(kind, FileType::CharacterDevice | FileType::BlockDevice);
    let ours = source.map_or(node, |source| source == (found.st_dev, found.st_ino));
    drop(there);
    if !ours || !about.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
        return Err(format!("{}: the container has mounted or unmounted something there", path.display()));
    }
    umount2(path, MntFlags::MNT_DETACH).map_err(|e| format!("{}: {e}", path.display()))?;
    // The empty file that was made to mount a node on.
    if node
        && let Ok(left) = rustix::fs::lstat(path)
        && FileType::from_raw_mode(left.st_mode) == FileType::RegularFile
        && left.st_size == 0
    {
        let _ = rustix::fs::unlink(path);
    }
    Ok(())
}
