//! Making files below one directory without ever leaving it.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, ResolveFlags, XattrFlags};
use rustix::io::Errno;

use super::Entry;

/// Open parents kept at a time.
const CACHE: usize = 256;

/// The target directory and its open parents.
pub(super) struct Tree {
    root: OwnedFd,
    parents: HashMap<Vec<u8>, OwnedFd>,
    /// How links on the way are met.
    links: ResolveFlags,
}

impl Tree {
    pub(super) fn open(target: &Path) -> io::Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let links = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        Ok(Self { root: fs::open(target, flags, Mode::empty())?, parents: HashMap::new(), links })
    }

    /// Follows links of the tree from now on, as if the target were the root of everything.
    pub(super) fn follow_links(mut self) -> Self {
        self.links = ResolveFlags::IN_ROOT;
        self
    }

    /// Forgets open parents, of which one has been removed.
    pub(super) fn forget(&mut self) {
        self.parents.clear();
    }

    pub(super) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// The open directory that holds `path`, and its last part. Directories an archive left out
    /// are made; a link on the way is an error.
    pub(super) fn parent<'p>(&mut self, path: &'p [u8]) -> io::Result<(BorrowedFd<'_>, &'p [u8])> {
        let Some(slash) = path.iter().rposition(|b| *b == b'/') else {
            return Ok((self.root.as_fd(), path));
        };
        let (directory, name) = (&path[..slash], &path[slash + 1..]);
        if !self.parents.contains_key(directory) {
            let opened = match self.open_directory(directory) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    let (parent, last) = self.parent(directory)?;
                    fs::mkdirat(parent, last, Mode::from(0o755))?;
                    self.open_directory(directory)?
                }
                other => other?,
            };
            if self.parents.len() >= CACHE {
                self.parents.clear();
            }
            self.parents.insert(directory.to_vec(), opened);
        }
        Ok((self.parents[directory].as_fd(), name))
    }

    pub(super) fn open_directory(&self, path: &[u8]) -> io::Result<OwnedFd> {
        let last =
            if self.links.contains(ResolveFlags::IN_ROOT) { OFlags::empty() } else { OFlags::NOFOLLOW };
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | last;
        let beneath = self.links | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
        Ok(fs::openat2(&self.root, path, flags, Mode::empty(), beneath)?)
    }
}

/// What `name` in `directory` is, links not followed.
pub(super) fn kind_of(directory: BorrowedFd<'_>, name: &[u8]) -> io::Result<FileType> {
    let stat = fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(FileType::from_raw_mode(stat.st_mode))
}

/// Owner, mode, attributes, times of an open file or directory, in the order that keeps setuid
/// bits and capabilities.
pub(super) fn finish_open(file: BorrowedFd<'_>, entry: &Entry, owner: Option<(u32, u32)>) -> io::Result<()> {
    if let Some((uid, gid)) = owner {
        fs::fchown(file, Some(id(uid)), Some(fs::Gid::from_raw(gid)))?;
    }
    fs::fchmod(file, Mode::from(entry.mode))?;
    for (name, value) in &entry.xattrs {
        ignore_unsupported(fs::fsetxattr(file, name.as_str(), value, XattrFlags::empty()))?;
    }
    fs::futimens(file, &times(entry))?;
    Ok(())
}

/// The same for what cannot be opened: links, devices, pipes.
pub(super) fn finish_at(
    directory: BorrowedFd<'_>,
    name: &[u8],
    entry: &Entry,
    owner: Option<(u32, u32)>,
    symlink: bool,
) -> io::Result<()> {
    if let Some((uid, gid)) = owner {
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        fs::chownat(directory, name, Some(id(uid)), Some(fs::Gid::from_raw(gid)), flags)?;
    }
    if !symlink {
        fs::chmodat(directory, name, Mode::from(entry.mode), AtFlags::empty())?;
    }
    for (key, value) in &entry.xattrs {
        let path = [format!("/proc/self/fd/{}/", directory.as_raw_fd()).as_bytes(), name].concat();
        ignore_unsupported(fs::lsetxattr(path, key.as_str(), value, XattrFlags::empty()))?;
    }
    fs::utimensat(directory, name, &times(entry), AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(())
}

fn id(uid: u32) -> fs::Uid {
    fs::Uid::from_raw(uid)
}

/// File capabilities must survive; a file system without user attributes or ACLs may drop those.
fn ignore_unsupported(result: rustix::io::Result<()>) -> io::Result<()> {
    match result {
        Err(Errno::OPNOTSUPP) => Ok(()),
        other => Ok(other?),
    }
}

fn times(entry: &Entry) -> fs::Timestamps {
    let time = fs::Timespec { tv_sec: entry.mtime, tv_nsec: entry.mtime_nanos.into() };
    fs::Timestamps { last_access: time, last_modification: time }
}
