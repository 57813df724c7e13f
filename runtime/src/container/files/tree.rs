//! Files and directories as a stream: read from one side, written on the other. Neither side follows a
//! link below where it begins, or trusts what the other sends.

use std::ffi::{CString, OsStr, OsString};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, RawMode, ResolveFlags, Stat, chownat, fchmod, fchown, fstat, mkdirat,
    openat, openat2, readlinkat, renameat, statat, symlinkat, unlinkat,
};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};
use serde::{Deserialize, Serialize};

use super::Message;
use crate::container::visit::{receive, send};

/// Directories within directories.
const DEEPEST: usize = 200;
/// Bytes at a time.
const CHUNK: usize = 64 << 10;

/// What a path is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kind {
    Directory,
    File,
    Link,
}

/// A file, directory or link of a stream. The data of a file follows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// Relative; the first part is the name of the whole.
    pub path: Vec<u8>,
    pub kind: Kind,
    /// Permission bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Where a link leads.
    pub link: Vec<u8>,
}

type Step<T> = Result<T, String>;

/// Sends what `name` in `directory` is, with everything below if that is a directory and `recursive`.
/// Does not go into other file systems.
pub(super) fn read(
    directory: BorrowedFd<'_>,
    name: &OsStr,
    shown_as: &Path,
    recursive: bool,
    out: &mut impl Write,
) -> Step<()> {
    let failed = failed(shown_as);
    let stat = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).map_err(&failed)?;
    let device = stat.st_dev;
    Reader { recursive, device, out }.entry(directory, name, &stat, shown_as, 0)
}

struct Reader<'a, W: Write> {
    recursive: bool,
    device: u64,
    out: &'a mut W,
}

impl<W: Write> Reader<'_, W> {
    fn entry(
        &mut self,
        directory: BorrowedFd<'_>,
        name: &OsStr,
        stat: &Stat,
        path: &Path,
        depth: usize,
    ) -> Step<()> {
        let failed = failed(path);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {
                let file = openat(directory, name, flags, Mode::empty()).map_err(&failed)?;
                let stat = fstat(&file).map_err(&failed)?;
                if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
                    return Err(format!("{}: it has just been replaced", path.display()));
                }
                self.header(path, Kind::File, &stat, Vec::new())?;
                copy(&mut std::fs::File::from(file), self.out).map_err(|e| format!("{}: {e}", path.display()))
            }
            FileType::Directory if !self.recursive => {
                Err(format!("{} is a directory; use --recursive", path.display()))
            }
            FileType::Directory => {
                if depth >= DEEPEST {
                    return Err(format!("{}: more than {DEEPEST} directories deep", path.display()));
                }
                let directory = openat(directory, name, flags | OFlags::DIRECTORY, Mode::empty());
                let directory = directory.map_err(&failed)?;
                self.header(path, Kind::Directory, stat, Vec::new())?;
                for name in names(&directory).map_err(&failed)? {
                    let stat = statat(&directory, &name, AtFlags::SYMLINK_NOFOLLOW);
                    match stat {
                        Ok(stat) if stat.st_dev == self.device => {
                            self.entry(directory.as_fd(), &name, &stat, &path.join(&name), depth + 1)?;
                        }
                        // Mounted there, or gone since.
                        Ok(_) | Err(Errno::NOENT) => {}
                        Err(error) => return Err(failed(error)),
                    }
                }
                Ok(())
            }
            FileType::Symlink => {
                let link = readlinkat(directory, name, Vec::new()).map_err(&failed)?;
                self.header(path, Kind::Link, stat, link.into_bytes())
            }
            // Devices, sockets and pipes mean nothing elsewhere.
            _ if depth > 0 => Ok(()),
            _ => Err(format!("{} is no file, directory or link", path.display())),
        }
    }

    fn header(&mut self, path: &Path, kind: Kind, stat: &Stat, link: Vec<u8>) -> Step<()> {
        let path = path.as_os_str().as_bytes().to_vec();
        let mode = stat.st_mode & 0o7777;
        let entry = Entry { path, kind, mode, uid: stat.st_uid, gid: stat.st_gid, link };
        send(self.out, &Message::Entry(entry)).map_err(|e| e.to_string())
    }
}

/// Sends data of unknown length.
pub(super) fn copy(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        let count = match from.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other?,
        };
        send(to, &Message::Data(count as u32))?;
        to.write_all(&buffer[..count])?;
        if count == 0 {
            return Ok(());
        }
    }
}

/// Receives it.
pub(super) fn paste(from: &mut (impl Read + ?Sized), to: &mut impl Write) -> Step<()> {
    loop {
        match receive(from).map_err(|e| e.to_string())? {
            Message::Data(0) => return Ok(()),
            Message::Data(count) => {
                let copied = io::copy(&mut (&mut *from).take(count.into()), to).map_err(|e| e.to_string())?;
                if copied != u64::from(count) {
                    return Err("the other side ended early".into());
                }
            }
            Message::Failed(reason) => return Err(reason),
            _ => return Err("the other side sent what it should not".into()),
        }
    }
}

fn names(directory: &OwnedFd) -> rustix::io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(directory)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(OsString::from_vec(name));
        }
    }
    names.sort();
    Ok(names)
}

/// Writes entries below a directory.
pub(super) struct Writer {
    pub directory: OwnedFd,
    /// Replaces the first part of each path.
    pub name: OsString,
    /// Whose the files become; none: the writer's.
    pub owner: Option<(u32, u32)>,
    /// Permission bits that are kept.
    pub mask: u32,
}

impl Writer {
    /// Writes one entry, a file's data from `data`. A link that stands in the way is replaced, and none
    /// is followed.
    pub fn put(&self, entry: &Entry, data: &mut (impl Read + ?Sized)) -> Step<()> {
        let path = self.place(entry)?;
        let failed = failed(&path);
        let name = path.file_name().unwrap_or_default().to_owned();
        let parent = self.parent(&path).map_err(&failed)?;
        let mode = Mode::from_raw_mode((entry.mode & self.mask) as RawMode);
        if entry.kind == Kind::Directory {
            match mkdirat(&parent, &name, Mode::RWXU) {
                Err(Errno::EXIST) => {}
                other => other.map_err(&failed)?,
            }
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let made = openat(&parent, &name, flags, Mode::empty()).map_err(&failed)?;
            self.own(&made).map_err(&failed)?;
            // Its contents are still to come.
            let mode = if self.owner.is_some() { mode } else { mode | Mode::RWXU };
            return fchmod(&made, mode).map_err(&failed);
        }
        let temp = CString::new(format!(".millstream-{}", std::process::id())).unwrap_or_default();
        let _ = unlinkat(&parent, &temp, AtFlags::empty());
        let made = if entry.kind == Kind::Link {
            symlinkat(OsStr::from_bytes(&entry.link), &parent, &temp).map_err(&failed).and_then(|()| {
                let (uid, gid) = ids(self.owner);
                chownat(&parent, &temp, uid, gid, AtFlags::SYMLINK_NOFOLLOW).map_err(&failed)
            })
        } else {
            self.file(&parent, &temp, mode, &path, data)
        };
        let made = made.and_then(|()| renameat(&parent, &temp, &parent, &name).map_err(&failed));
        if made.is_err() {
            let _ = unlinkat(&parent, &temp, AtFlags::empty());
        }
        made
    }

    fn file(
        &self,
        parent: &OwnedFd,
        temp: &CString,
        mode: Mode,
        path: &Path,
        data: &mut (impl Read + ?Sized),
    ) -> Step<()> {
        let failed = failed(path);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(parent, temp, flags, Mode::RUSR | Mode::WUSR).map_err(&failed)?;
        let mut file = std::fs::File::from(file);
        paste(data, &mut file).map_err(|reason| format!("{}: {reason}", path.display()))?;
        // In this order: a change of owner takes set-user-ID away.
        self.own(&file).map_err(&failed)?;
        fchmod(&file, mode).map_err(&failed)
    }

    fn own(&self, file: impl AsFd) -> rustix::io::Result<()> {
        let (uid, gid) = ids(self.owner);
        fchown(file, uid, gid)
    }

    /// Where an entry goes, relative to our directory.
    fn place(&self, entry: &Entry) -> Step<PathBuf> {
        let path = Path::new(OsStr::from_bytes(&entry.path));
        let refused = || format!("the other side sent the path {}", path.display());
        let mut parts = path.components();
        parts.next().ok_or_else(refused)?;
        let mut place = PathBuf::from(&self.name);
        for part in parts {
            let Component::Normal(part) = part else { return Err(refused()) };
            place.push(part);
        }
        Ok(place)
    }

    fn parent(&self, path: &Path) -> rustix::io::Result<OwnedFd> {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        openat2(&self.directory, parent, flags, Mode::empty(), resolve)
    }
}

fn ids(owner: Option<(u32, u32)>) -> (Option<Uid>, Option<Gid>) {
    (owner.map(|(uid, _)| Uid::from_raw(uid)), owner.map(|(_, gid)| Gid::from_raw(gid)))
}

/// An error that names a path.
pub(super) fn failed(path: &Path) -> impl Fn(Errno) -> String {
    let path = path.display().to_string();
    move |error| format!("{path}: {error}")
}
