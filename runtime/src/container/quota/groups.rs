//! btrfs, once its quotas are enabled: subvolumes count for a group of the container's. One that is made
//! from another counts from the beginning, so that snapshots count as well.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use super::super::changes::open;
use super::super::sys::btrfs;
use super::number;

/// Groups of subvolumes are of level 0; those of level 1 have subvolumes as members.
const LEVEL: u64 = 1 << 48;

fn id_of(id: &str) -> u64 {
    LEVEL | u64::from(number(id))
}

/// The group for which a container's changes count, if they do.
pub fn of(changes: &Path, id: &str) -> Option<u64> {
    directory(changes, id).is_ok_and(|directory| directory.exists()).then(|| id_of(id))
}

/// Lets a container's changes count for it.
pub fn mark_all(changes: &Path, id: &str) -> io::Result<()> {
    let file = open(changes)?;
    let there = |done: io::Result<()>| match done {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    };
    there(btrfs::make_group(file.as_fd(), id_of(id)))?;
    there(btrfs::join_group(file.as_fd(), btrfs::subvolume(file.as_fd())?, id_of(id)))
}

/// Removes the group of a container that goes, if nothing else counts for it.
pub fn remove(changes: &Path, id: &str) -> io::Result<()> {
    let file = open(changes)?;
    btrfs::leave_group(file.as_fd(), btrfs::subvolume(file.as_fd())?, id_of(id))?;
    btrfs::remove_group(file.as_fd(), id_of(id))
}

/// Limits them to so many bytes, or not at all.
pub fn set_limit(changes: &Path, id: &str, bytes: Option<u64>) -> io::Result<()> {
    btrfs::limit_group(open(changes)?.as_fd(), id_of(id), bytes)
}

/// The bytes they may take, if they are limited.
pub fn limit(changes: &Path, id: &str) -> Option<u64> {
    let file = directory(changes, id).ok()?.join("max_referenced");
    let bytes = fs::read_to_string(file).ok()?.trim().parse().ok()?;
    Some(bytes).filter(|bytes| ![0, u64::MAX].contains(bytes))
}

/// What the kernel says of the group.
fn directory(changes: &Path, id: &str) -> io::Result<PathBuf> {
    let uuid = format!("{:032x}", u128::from_be_bytes(btrfs::file_system(open(changes)?.as_fd())?));
    let parts = [&uuid[..8], &uuid[8..12], &uuid[12..16], &uuid[16..20], &uuid[20..]];
    let group = format!("1_{}", number(id));
    Ok(Path::new("/sys/fs/btrfs").join(parts.join("-")).join("qgroups").join(group))
}
