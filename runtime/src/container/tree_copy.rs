//! A copy of a directory that differs in nothing an overlay or a container could notice: owners, modes,
//! times, extended attributes, links between files, holes, special files. Nobody changes the original
//! meanwhile.

use std::collections::HashMap;
use std::fs::{self, File, Metadata};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, SeekFrom, Timespec, Timestamps, XattrFlags, ioctl_ficlone, lgetxattr,
    llistxattr, lsetxattr, mknodat, seek, syncfs, utimensat,
};
use rustix::io::Errno;

use crate::{Error, Result};

/// Largest value of an extended attribute, and largest list of names.
const ATTRIBUTE: usize = 64 << 10;

/// Copies the directory `from` to `to`, which is not there yet.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    Copy { links: HashMap::new() }.entry(from, to)
}

/// Writes what was copied to the disk.
pub fn flush(directory: &Path) -> Result<()> {
    let open = File::open(directory).map_err(Error::io(directory))?;
    syncfs(&open).map_err(|e| Error::io(directory)(e.into()))
}

struct Copy {
    /// Where the first name of a file with several ended up, by its device and number.
    links: HashMap<(u64, u64), PathBuf>,
}

impl Copy {
    fn entry(&mut self, from: &Path, to: &Path) -> Result<()> {
        let found = fs::symlink_metadata(from).map_err(Error::io(from))?;
        if found.nlink() > 1 && !found.is_dir() {
            if let Some(first) = self.links.get(&(found.dev(), found.ino())) {
                return fs::hard_link(first, to).map_err(Error::io(to));
            }
            self.links.insert((found.dev(), found.ino()), to.to_path_buf());
        }
        make(from, to, &found).map_err(Error::io(from))?;
        if found.is_dir() {
            for entry in fs::read_dir(from).map_err(Error::io(from))? {
                let name = entry.map_err(Error::io(from))?.file_name();
                self.entry(&from.join(&name), &to.join(&name))?;
            }
        }
        describe(from, to, &found).map_err(Error::io(from))
    }
}

/// The file without what describes it; a directory empty.
fn make(from: &Path, to: &Path, found: &Metadata) -> io::Result<()> {
    let kind = found.file_type();
    if kind.is_dir() {
        return fs::create_dir(to);
    }
    if kind.is_symlink() {
        return symlink(fs::read_link(from)?, to);
    }
    if kind.is_file() {
        return contents(&mut File::open(from)?, &mut File::create_new(to)?, found.len());
    }
    let special = match kind {
        kind if kind.is_fifo() => FileType::Fifo,
        kind if kind.is_socket() => FileType::Socket,
        kind if kind.is_block_device() => FileType::BlockDevice,
        _ => FileType::CharacterDevice,
    };
    Ok(mknodat(CWD, to, special, Mode::RUSR | Mode::WUSR, found.rdev())?)
}

/// Shares the blocks where the file system can, else copies what is not a hole.
fn contents(from: &mut File, to: &mut File, size: u64) -> io::Result<()> {
    if ioctl_ficlone(&mut *to, &*from).is_ok() {
        return Ok(());
    }
    to.set_len(size)?;
    let mut at = 0;
    while at < size {
        let begin = match seek(&*from, SeekFrom::Data(at)) {
            Err(Errno::NXIO) => break,
            other => other?,
        };
        let end = seek(&*from, SeekFrom::Hole(begin))?;
        from.seek(io::SeekFrom::Start(begin))?;
        to.seek(io::SeekFrom::Start(begin))?;
        io::copy(&mut Read::by_ref(from).take(end - begin), to)?;
        at = end;
    }
    to.flush()
}

/// Owner first, as a change of it takes capabilities away; times last.
fn describe(from: &Path, to: &Path, found: &Metadata) -> io::Result<()> {
    lchown(to, Some(found.uid()), Some(found.gid()))?;
    if !found.is_symlink() {
        fs::set_permissions(to, fs::Permissions::from_mode(found.mode() & 0o7777))?;
    }
    attributes(from, to)?;
    let time = |tv_sec, nanoseconds: i64| Timespec { tv_sec, tv_nsec: nanoseconds as _ };
    let times = Timestamps {
        last_access: time(found.atime(), found.atime_nsec()),
        last_modification: time(found.mtime(), found.mtime_nsec()),
    };
    Ok(utimensat(CWD, to, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

fn attributes(from: &Path, to: &Path) -> io::Result<()> {
    let mut names = vec![0_u8; ATTRIBUTE];
    let length = match llistxattr(from, &mut names) {
        Err(Errno::NOTSUP) => return Ok(()),
        other => other?,
    };
    let mut value = vec![0_u8; ATTRIBUTE];
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let length = match lgetxattr(from, name, &mut value) {
            // Listed, but not for us.
            Err(Errno::NODATA | Errno::NOTSUP) => continue,
            other => other?,
        };
        lsetxattr(to, name, &value[..length], XattrFlags::empty())?;
    }
    Ok(())
}
