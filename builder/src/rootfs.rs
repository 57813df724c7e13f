//! Writing into a root file system without ever leaving it: links in it are resolved below it.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::{Error, Result};

/// A root file system being built.
pub(crate) struct Rootfs {
    path: PathBuf,
    root: OwnedFd,
}

/// Owner and permission bits of a file that is written.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Attributes {
    pub(crate) mode: Option<u32>,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
}

impl Rootfs {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = fs::open(path, flags, Mode::empty()).map_err(|e| Error::io(path)(e.into()))?;
        Ok(Self { path: path.to_path_buf(), root })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a file, making its directories; an existing one keeps owner and mode unless told.
    pub(crate) fn write(&self, path: &str, data: &[u8], attributes: Attributes) -> Result<()> {
        self.write_from(path, data, attributes)
    }

    /// The same, from what a reader has.
    pub(crate) fn write_from(&self, path: &str, mut data: impl Read, attributes: Attributes) -> Result<()> {
        let failed = |e: Errno| Error::io(path)(e.into());
        if let Some((parent, _)) = path.trim_end_matches('/').rsplit_once('/') {
            self.make_directories(parent)?;
        }
        self.check_regular(path)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC;
        let mut file = File::from(self.resolve(path, flags, Mode::from(0o644)).map_err(failed)?);
        io::copy(&mut data, &mut file).map_err(Error::io(path))?;
        if attributes.uid.is_some() || attributes.gid.is_some() {
            let (uid, gid) = (attributes.uid.map(fs::Uid::from_raw), attributes.gid.map(fs::Gid::from_raw));
            fs::fchown(file.as_fd(), uid, gid).map_err(failed)?;
        }
        if let Some(mode) = attributes.mode {
            fs::fchmod(file.as_fd(), Mode::from(mode)).map_err(failed)?;
        }
        Ok(())
    }

    /// Reads a file of at most 64 MiB; `None` when it is not there.
    pub(crate) fn read(&self, path: &str) -> Result<Option<Vec<u8>>> {
        let Some(file) = self.open_file(path)? else { return Ok(None) };
        let mut data = Vec::new();
        file.take(64 << 20).read_to_end(&mut data).map_err(Error::io(path))?;
        Ok(Some(data))
    }

    /// Opens a file for reading; `None` when it is not there.
    pub(crate) fn open_file(&self, path: &str) -> Result<Option<File>> {
        self.check_regular(path)?;
        match self.resolve(path, OFlags::RDONLY, Mode::empty()) {
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(error) => Err(Error::io(path)(error.into())),
            Ok(file) => Ok(Some(File::from(file))),
        }
    }

    /// Names in a directory, sorted; none when it is not there.
    pub(crate) fn list(&self, path: &str) -> Result<Vec<String>> {
        let failed = |e: Errno| Error::io(path)(e.into());
        match self.resolve(path, OFlags::DIRECTORY | OFlags::RDONLY, Mode::empty()) {
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(Vec::new()),
            Err(error) => Err(failed(error)),
            Ok(directory) => {
                let names = names(&directory).map_err(failed)?;
                let mut names: Vec<_> =
                    names.into_iter().filter_map(|name| String::from_utf8(name).ok()).collect();
                names.sort();
                Ok(names)
            }
        }
    }

    /// Makes a link, in the place of whatever file was there.
    pub(crate) fn symlink(&self, path: &str, target: &Path) -> Result<()> {
        if let Some((parent, _)) = path.trim_end_matches('/').rsplit_once('/') {
            self.make_directories(parent)?;
        }
        let failed = |e: Errno| Error::io(path)(e.into());
        let Some((directory, name)) = self.parent(path)? else { return Err(failed(Errno::NOENT)) };
        match fs::unlinkat(&directory, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(failed(error)),
        }
        fs::symlinkat(target, directory, name).map_err(failed)
    }

    /// A device in a root file system is the host's device, and a pipe would be waited for.
    fn check_regular(&self, path: &str) -> Result<()> {
        let Ok(found) = self.resolve(path, OFlags::PATH, Mode::empty()) else { return Ok(()) };
        let stat = fs::fstat(found).map_err(|e| Error::io(path)(e.into()))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile | FileType::Directory => Ok(()),
            _ => {
                Err(Error::Refused(format!("{path} is a device, a pipe or a socket in the root file system")))
            }
        }
    }

    /// Whether something has this name, be it a link that leads nowhere.
    pub(crate) fn exists(&self, path: &str) -> Result<bool> {
        Ok(self.kind(path)?.is_some())
    }

    /// Whether it is a link.
    pub(crate) fn is_link(&self, path: &str) -> Result<bool> {
        Ok(self.kind(path)? == Some(FileType::Symlink))
    }

    fn kind(&self, path: &str) -> Result<Option<FileType>> {
        let Some((directory, name)) = self.parent(path)? else { return Ok(None) };
        match fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(Error::io(path)(error.into())),
            Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
        }
    }

    /// Makes a directory and all above it.
    pub(crate) fn make_directories(&self, path: &str) -> Result<()> {
        let mut so_far = String::new();
        for part in path.split('/').filter(|part| !part.is_empty()) {
            let parent = so_far.clone();
            so_far.push('/');
            so_far.push_str(part);
            let flags = OFlags::DIRECTORY | OFlags::RDONLY;
            if self.resolve(&so_far, flags, Mode::empty()).is_ok() {
                continue;
            }
            let failed = |e: Errno| Error::io(&so_far)(e.into());
            let parent = self.resolve(&parent, flags, Mode::empty()).map_err(failed)?;
            fs::mkdirat(parent, part, Mode::from(0o755)).map_err(failed)?;
        }
        Ok(())
    }

    /// Removes a file, a link or a whole directory; what is not there is no error.
    pub(crate) fn remove(&self, path: &str) -> Result<()> {
        let Some((directory, name)) = self.parent(path)? else { return Ok(()) };
        remove_at(&directory, name.as_bytes()).map_err(|e| Error::io(path)(e.into()))
    }

    /// Empties a directory, when there is one.
    pub(crate) fn empty(&self, path: &str) -> Result<()> {
        let failed = |e: Errno| Error::io(path)(e.into());
        match self.resolve(path, OFlags::DIRECTORY | OFlags::RDONLY, Mode::empty()) {
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(()),
            Err(error) => Err(failed(error)),
            Ok(directory) => empty_at(&directory).map_err(failed),
        }
    }

    /// The files in a directory that `wanted` names.
    pub(crate) fn remove_matching(&self, path: &str, wanted: impl Fn(&str) -> bool) -> Result<()> {
        let failed = |e: Errno| Error::io(path)(e.into());
        let directory = match self.resolve(path, OFlags::DIRECTORY | OFlags::RDONLY, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(()),
            other => other.map_err(failed)?,
        };
        for name in names(&directory).map_err(failed)? {
            if wanted(&String::from_utf8_lossy(&name)) {
                remove_at(&directory, &name).map_err(failed)?;
            }
        }
        Ok(())
    }

    fn parent<'p>(&self, path: &'p str) -> Result<Option<(OwnedFd, &'p str)>> {
        let (directory, name) = path.trim_end_matches('/').rsplit_once('/').unwrap_or(("", path));
        match self.resolve(directory, OFlags::DIRECTORY | OFlags::RDONLY, Mode::empty()) {
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(error) => Err(Error::io(path)(error.into())),
            Ok(directory) => Ok(Some((directory, name))),
        }
    }

    fn resolve(&self, path: &str, flags: OFlags, mode: Mode) -> rustix::io::Result<OwnedFd> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
        let path = if path.is_empty() { "/" } else { path };
        fs::openat2(&self.root, path, flags | OFlags::CLOEXEC, mode, resolve)
    }
}

fn names(directory: &OwnedFd) -> rustix::io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in fs::Dir::read_from(directory)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(name);
        }
    }
    Ok(names)
}

fn empty_at(directory: &OwnedFd) -> rustix::io::Result<()> {
    names(directory)?.iter().try_for_each(|name| remove_at(directory, name))
}

fn remove_at(directory: &OwnedFd, name: &[u8]) -> rustix::io::Result<()> {
    let stat = match fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(()),
        other => other?,
    };
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        return fs::unlinkat(directory, name, AtFlags::empty());
    }
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    empty_at(&fs::openat(directory, name, flags, Mode::empty())?)?;
    fs::unlinkat(directory, name, AtFlags::REMOVEDIR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_lead_nowhere_else() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir_all(root.join("etc")).unwrap();
        std::fs::write(dir.path().join("outside"), "safe").unwrap();
        std::os::unix::fs::symlink("../../outside", root.join("etc/evil")).unwrap();
        std::os::unix::fs::symlink(dir.path(), root.join("up")).unwrap();
        let rootfs = Rootfs::open(&root).unwrap();
        let _ = rootfs.write("/etc/evil", b"changed", Attributes::default());
        let _ = rootfs.write("/up/outside", b"changed", Attributes::default());
        let _ = rootfs.write("/../outside", b"changed", Attributes::default());
        rootfs.remove("/up/outside").unwrap();
        assert_eq!(std::fs::read_to_string(dir.path().join("outside")).unwrap(), "safe");
        assert!(
            rootfs.symlink("/up/outside", Path::new("x")).is_err() || dir.path().join("outside").is_file()
        );
        rootfs.write("/a/b/c", b"x", Attributes { mode: Some(0o600), ..Attributes::default() }).unwrap();
        assert_eq!(rootfs.read("/a/b/c").unwrap().unwrap(), b"x");
        rootfs.remove("/a").unwrap();
        assert!(rootfs.read("/a/b/c").unwrap().is_none());
    }

    #[test]
    fn devices_and_pipes_are_neither_read_nor_written() {
        let dir = tempfile::tempdir().unwrap();
        let rootfs = Rootfs::open(dir.path()).unwrap();
        let mode = Mode::from(0o600);
        fs::mknodat(fs::CWD, dir.path().join("pipe"), FileType::Fifo, mode, 0).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("socket")).unwrap();
        std::os::unix::fs::symlink("pipe", dir.path().join("link")).unwrap();
        for path in ["/pipe", "/socket", "/link"] {
            let text = rootfs.write(path, b"x", Attributes::default()).unwrap_err().to_string();
            assert!(text.contains("is a device, a pipe or a socket"), "{text}");
            assert!(rootfs.read(path).is_err());
        }
        assert!(rootfs.list("/nothing").unwrap().is_empty());
        rootfs.symlink("/a/link", Path::new("/etc/passwd")).unwrap();
        rootfs.symlink("/a/link", Path::new("b")).unwrap();
        assert_eq!(std::fs::read_link(dir.path().join("a/link")).unwrap(), Path::new("b"));
    }
}
