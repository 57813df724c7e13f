//! Subvolumes of btrfs and the groups by which it counts what they take, as in the kernel's
//! `uapi/linux/btrfs.h`.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::ioctl::{Getter, Opcode, Setter, Updater, ioctl, opcode};

const MAGIC: u8 = 0x94;
/// The root directory of every subvolume has this number, and no other directory of btrfs.
pub const ROOT: u64 = 256;
/// Longest name that fits beside the rest, with its end.
const NAME: usize = 4040;

/// `btrfs_ioctl_vol_args_v2`
#[repr(C)]
struct Volume {
    source: i64,
    transaction: u64,
    flags: u64,
    inherit_size: u64,
    inherit: *const Inherit,
    unused: [u64; 2],
    name: [u8; NAME],
}

/// `btrfs_qgroup_inherit` with one group.
#[repr(C)]
struct Inherit {
    flags: u64,
    groups: u64,
    copies: [u64; 2],
    limit: [u64; 5],
    group: u64,
}

/// `btrfs_ioctl_ino_lookup_args`
#[repr(C)]
struct Lookup {
    tree: u64,
    object: u64,
    name: [u8; 4080],
}

/// `btrfs_ioctl_fs_info_args`
#[repr(C)]
struct FileSystem {
    devices: [u64; 2],
    id: [u8; 16],
    more: [u8; 992],
}

/// `btrfs_ioctl_qgroup_create_args`
#[repr(C)]
struct Create {
    create: u64,
    group: u64,
}

/// `btrfs_ioctl_qgroup_assign_args`
#[repr(C)]
struct Assign {
    add: u64,
    member: u64,
    group: u64,
}

/// `btrfs_ioctl_qgroup_limit_args`
#[repr(C)]
struct Limit {
    group: u64,
    flags: u64,
    referenced: u64,
    more: [u64; 3],
}

const SNAPSHOT: Opcode = opcode::write::<Volume>(MAGIC, 23);
const SUBVOLUME: Opcode = opcode::write::<Volume>(MAGIC, 24);
const LOOKUP: Opcode = opcode::read_write::<Lookup>(MAGIC, 18);
const FILE_SYSTEM: Opcode = opcode::read::<FileSystem>(MAGIC, 31);
const ASSIGN: Opcode = opcode::write::<Assign>(MAGIC, 41);
const CREATE: Opcode = opcode::write::<Create>(MAGIC, 42);
/// Its number says that it is read, though it is written.
const LIMIT: Opcode = opcode::read::<Limit>(MAGIC, 43);

const INHERIT: u64 = 1 << 2;
const LIMIT_REFERENCED: u64 = 1;

/// Makes the subvolume `name` in a directory; as a snapshot of `source` if there is one, whose own data
/// is brought to the disk first. It counts for `group`, which must be there.
pub fn make_subvolume(
    parent: BorrowedFd<'_>,
    name: &str,
    source: Option<BorrowedFd<'_>>,
    group: Option<u64>,
) -> io::Result<()> {
    let inherit = Inherit { flags: 0, groups: 1, copies: [0; 2], limit: [0; 5], group: group.unwrap_or(0) };
    let mut volume = Volume {
        source: source.map_or(0, |source| i64::from(source.as_raw_fd())),
        transaction: 0,
        flags: group.map_or(0, |_| INHERIT),
        inherit_size: group.map_or(0, |_| size_of::<Inherit>() as u64),
        inherit: &raw const inherit,
        unused: [0; 2],
        name: [0; NAME],
    };
    let place = volume.name.get_mut(..name.len()).filter(|place| place.len() < NAME);
    place.ok_or(io::ErrorKind::InvalidFilename)?.copy_from_slice(name.as_bytes());
    // SAFETY: the operations read the structure, whose size is part of their numbers; the group it
    // points to and the source it names outlive the call.
    unsafe {
        match source {
            Some(_) => ioctl(parent, Setter::<SNAPSHOT, Volume>::new(volume)),
            None => ioctl(parent, Setter::<SUBVOLUME, Volume>::new(volume)),
        }
    }
    .map_err(Into::into)
}

/// The number of the subvolume a file is in, which is that of the lowest group it counts for.
pub fn subvolume(file: BorrowedFd<'_>) -> io::Result<u64> {
    let mut found = Lookup { tree: 0, object: ROOT, name: [0; 4080] };
    // SAFETY: the operation reads and fills in the structure, whose size is part of its number.
    unsafe { ioctl(file, Updater::<LOOKUP, Lookup>::new(&mut found)) }?;
    Ok(found.tree)
}

/// The id of the file system of a file.
pub fn file_system(file: BorrowedFd<'_>) -> io::Result<[u8; 16]> {
    // SAFETY: the operation fills in the structure, whose size is part of its number.
    let found = unsafe { ioctl(file, Getter::<FILE_SYSTEM, FileSystem>::new()) }?;
    Ok(found.id)
}

/// Makes a group.
pub fn make_group(file: BorrowedFd<'_>, group: u64) -> io::Result<()> {
    set_group(file, Create { create: 1, group })
}

/// Removes a group that nothing counts for.
pub fn remove_group(file: BorrowedFd<'_>, group: u64) -> io::Result<()> {
    set_group(file, Create { create: 0, group })
}

fn set_group(file: BorrowedFd<'_>, wanted: Create) -> io::Result<()> {
    // SAFETY: the operation reads the structure, whose size is part of its number.
    unsafe { ioctl(file, Setter::<CREATE, Create>::new(wanted)) }.map_err(Into::into)
}

/// Lets a subvolume count for a group as well.
pub fn join_group(file: BorrowedFd<'_>, subvolume: u64, group: u64) -> io::Result<()> {
    set_member(file, Assign { add: 1, member: subvolume, group })
}

/// Lets a subvolume count for a group no more.
pub fn leave_group(file: BorrowedFd<'_>, subvolume: u64, group: u64) -> io::Result<()> {
    set_member(file, Assign { add: 0, member: subvolume, group })
}

fn set_member(file: BorrowedFd<'_>, wanted: Assign) -> io::Result<()> {
    // SAFETY: the operation reads the structure, whose size is part of its number.
    unsafe { ioctl(file, Setter::<ASSIGN, Assign>::new(wanted)) }.map_err(Into::into)
}

/// Limits what a group may refer to, in bytes, or not at all.
pub fn limit_group(file: BorrowedFd<'_>, group: u64, bytes: Option<u64>) -> io::Result<()> {
    // As many as there are stand for no limit.
    let referenced = bytes.unwrap_or(u64::MAX);
    let wanted = Limit { group, flags: LIMIT_REFERENCED, referenced, more: [0; 3] };
    // SAFETY: the operation reads the structure, whose size is part of its number.
    unsafe { ioctl(file, Setter::<LIMIT, Limit>::new(wanted)) }.map_err(Into::into)
}
