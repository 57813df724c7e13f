//! Unpacks a `.deb` (deb(5)): an `ar` archive of control and data tarballs.
//!
//! Other rules than for images: a package is verified by hash, and its paths follow links inside
//! the root (`/bin` → `usr/bin`), though never out of it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use millstream_image::archive::{Entry, Kind, Limits, Reader, decoder};
use millstream_image::manifest;
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::{Error, Result};

/// How an `ar` archive begins.
const MAGIC: &[u8; 8] = b"!<arch>\n";

/// What dpkg needs to know of an unpacked package.
#[derive(Debug, Default)]
pub(super) struct Unpacked {
    /// Every path, as `dpkg -L` shows it.
    pub(super) list: Vec<String>,
    /// The directories among them, which packages share.
    pub(super) directories: Vec<Directory>,
    /// Files of the control archive: `control`, `postinst`, `md5sums`, …
    pub(super) control: BTreeMap<String, (u32, Vec<u8>)>,
}

/// A directory as its package describes it.
#[derive(Debug)]
pub(super) struct Directory {
    pub(super) path: Vec<u8>,
    mode: u32,
    owner: (u32, u32),
    times: fs::Timestamps,
}

impl Unpacked {
    /// Paths that belong to this package alone.
    pub(super) fn files(&self) -> impl Iterator<Item = &str> {
        let directories: HashSet<_> = self.directories.iter().map(|d| d.path.as_slice()).collect();
        self.list
            .iter()
            .map(String::as_str)
            .filter(move |path| *path != "/." && !directories.contains(&path.as_bytes()[1..]))
    }

    /// Paths of the package's configuration files.
    pub(super) fn conffiles(&self) -> impl Iterator<Item = &str> {
        let text = self.control.get("conffiles").and_then(|(_, data)| std::str::from_utf8(data).ok());
        text.unwrap_or_default().lines().filter(|line| line.starts_with('/'))
    }
}

/// The text of a package's control file.
pub(super) fn control(deb: &Path) -> Result<String> {
    let bad = |reason: &str| Error::Package { file: deb.into(), reason: reason.into() };
    let mut file = File::open(deb).map_err(Error::io(deb))?;
    let mut magic = [0; 8];
    file.read_exact(&mut magic).map_err(Error::io(deb))?;
    if &magic != MAGIC {
        return Err(bad("not a Debian package"));
    }
    while let Some((name, size)) = member(&mut file).map_err(Error::io(deb))? {
        let mut data = (&mut file).take(size + size % 2);
        if name.starts_with("control.tar") {
            let control = read_control(&mut data.take(size))?;
            let (_, text) = control.get("control").ok_or_else(|| bad("it has no control file"))?;
            return Ok(String::from_utf8_lossy(text).into_owned());
        }
        io::copy(&mut data, &mut io::sink()).map_err(Error::io(deb))?;
    }
    Err(bad("it has no control archive"))
}

/// When the newest of packages was made, seconds since 1970, as their files in `cache` say: Debian
/// dates them by their changelogs. 0 when none does.
pub(crate) fn newest_time<'p>(packages: impl Iterator<Item = &'p manifest::Package>, cache: &Path) -> i64 {
    let files = packages.filter_map(|package| Some(cache.join(package.sha256?.to_string())));
    files.filter_map(|file| time(&file).ok().flatten()).max().unwrap_or_default()
}

/// The date in the header of the archive's first member (ar(5)).
fn time(deb: &Path) -> io::Result<Option<i64>> {
    let mut start = [0; 8 + 28];
    File::open(deb)?.read_exact(&mut start)?;
    let digits = std::str::from_utf8(&start[8 + 16..]).ok();
    Ok(digits.filter(|_| start.starts_with(MAGIC)).and_then(|text| text.trim().parse().ok()))
}

/// Unpacks `deb` into `root`. Configuration files get dpkg's suffix `.dpkg-new`, as dpkg itself
/// leaves them until the package is configured.
pub(super) fn unpack(deb: &Path, root: &Path) -> Result<Unpacked> {
    let bad = |reason: String| Error::Package { file: deb.into(), reason };
    let mut file = File::open(deb).map_err(Error::io(deb))?;
    let mut unpacked = Unpacked::default();
    let mut magic = [0; 8];
    file.read_exact(&mut magic).map_err(Error::io(deb))?;
    if &magic != MAGIC {
        return Err(bad("not a Debian package".into()));
    }
    while let Some((name, size)) = member(&mut file).map_err(Error::io(deb))? {
        let mut data = (&mut file).take(size);
        if name.starts_with("control.tar") {
            unpacked.control = read_control(&mut data)?;
        } else if name.starts_with("data.tar") {
            let conffiles = unpacked.conffiles().map(str::to_owned).collect();
            let mut tree = Tree::open(root, conffiles).map_err(Error::io(root))?;
            tree.fill(&mut data, &mut unpacked).map_err(|e| bad(e.to_string()))?;
        }
        io::copy(&mut data, &mut io::sink()).map_err(Error::io(deb))?;
        if size % 2 == 1 {
            let _ = file.read(&mut [0; 1]).map_err(Error::io(deb))?;
        }
    }
    if unpacked.list.is_empty() || !unpacked.control.contains_key("control") {
        return Err(bad("it lacks its control or data archive".into()));
    }
    Ok(unpacked)
}

/// The next member's name and size.
fn member(file: &mut File) -> io::Result<Option<(String, u64)>> {
    let mut header = [0; 60];
    match file.read(&mut header)? {
        0 => return Ok(None),
        count => file.read_exact(&mut header[count..])?,
    }
    let text = |range: std::ops::Range<usize>| String::from_utf8_lossy(&header[range]).trim().to_owned();
    let size = text(48..58).parse().ok().filter(|_| &header[58..] == b"`\n");
    let size = size.ok_or_else(|| io::Error::other("broken ar header"))?;
    Ok(Some((text(0..16).trim_end_matches('/').to_owned(), size)))
}

fn read_control(data: &mut (impl Read + Send)) -> Result<BTreeMap<String, (u32, Vec<u8>)>> {
    let members = millstream_image::archive::read_small(data)?;
    Ok(members.into_iter().map(|(path, m)| (path.to_string_lossy().into_owned(), (m.mode, m.data))).collect())
}

struct Tree {
    root: OwnedFd,
    parents: HashMap<Vec<u8>, OwnedFd>,
    conffiles: HashSet<String>,
}

impl Tree {
    fn open(root: &Path, conffiles: HashSet<String>) -> io::Result<Self> {
        let root = fs::open(root, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self { root, parents: HashMap::new(), conffiles })
    }

    fn fill(&mut self, data: &mut (impl Read + Send), unpacked: &mut Unpacked) -> Result<()> {
        let limits = Limits::default();
        let mut archive = Reader::new(decoder(data, &limits)?, &limits);
        while let Some(entry) = archive.next_entry()? {
            let path = String::from_utf8_lossy(&entry.path).into_owned();
            let shown = if path.is_empty() { "/.".to_owned() } else { format!("/{path}") };
            if !path.is_empty() {
                self.place(&entry, &path, &mut archive).map_err(Error::io(&shown))?;
            }
            unpacked.list.push(shown);
            if matches!(entry.kind, Kind::Directory) {
                let owner = (entry.uid, entry.gid);
                let (mode, times) = (entry.mode, times(&entry));
                unpacked.directories.push(Directory { path: entry.path, mode, owner, times });
            }
        }
        Ok(())
    }

    fn place(&mut self, entry: &Entry, path: &str, archive: &mut Reader<impl Read>) -> io::Result<()> {
        let mut name = entry.path.rsplit(|b| *b == b'/').next().unwrap_or_default().to_vec();
        if self.conffiles.contains(&format!("/{path}")) {
            name.extend_from_slice(b".dpkg-new");
        }
        let target = match &entry.kind {
            Kind::HardLink(target) => Some(self.parent(target)?.try_clone_to_owned()?),
            _ => None,
        };
        let parent = self.parent(&entry.path)?;
        let owner = (Some(fs::Uid::from_raw(entry.uid)), Some(fs::Gid::from_raw(entry.gid)));
        match &entry.kind {
            Kind::Directory => return make_directory(parent, &name),
            Kind::File => return write_file(parent, &name, entry, archive),
            Kind::Symlink(to) => {
                // A package may ship a link another one, or the base, has made already.
                match fs::symlinkat(to.as_slice(), parent, name.as_slice()) {
                    Err(Errno::EXIST) => {
                        if !is_directory(parent, &name) {
                            fs::unlinkat(parent, name.as_slice(), AtFlags::empty())?;
                            fs::symlinkat(to.as_slice(), parent, name.as_slice())?;
                        }
                    }
                    other => other?,
                }
            }
            Kind::HardLink(to) => {
                let source = to.rsplit(|b| *b == b'/').next().unwrap_or_default();
                let from = target.as_ref().map_or(parent, AsFd::as_fd);
                return Ok(fs::linkat(from, source, parent, name.as_slice(), AtFlags::empty())?);
            }
            Kind::Fifo => fs::mknodat(parent, name.as_slice(), FileType::Fifo, Mode::from(0o600), 0)?,
            Kind::CharDevice(..) | Kind::BlockDevice(..) => return Ok(()),
        }
        fs::chownat(parent, name.as_slice(), owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(fs::utimensat(parent, name.as_slice(), &times(entry), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    fn finish_directory(&mut self, directory: &Directory) -> io::Result<()> {
        let name = directory.path.rsplit(|b| *b == b'/').next().unwrap_or_default();
        let parent = self.parent(&directory.path)?;
        let name = if name.is_empty() { &b"."[..] } else { name };
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let opened = match fs::openat(parent, name, flags, Mode::empty()) {
            Err(Errno::LOOP | Errno::NOTDIR) => return Ok(()),
            other => other?,
        };
        let (uid, gid) = directory.owner;
        fs::fchown(&opened, Some(fs::Uid::from_raw(uid)), Some(fs::Gid::from_raw(gid)))?;
        fs::fchmod(&opened, Mode::from(directory.mode))?;
        Ok(fs::futimens(&opened, &directory.times)?)
    }

    /// The open directory that holds `path`; links on the way are followed inside the root.
    fn parent(&mut self, path: &[u8]) -> io::Result<BorrowedFd<'_>> {
        let Some(slash) = path.iter().rposition(|b| *b == b'/') else { return Ok(self.root.as_fd()) };
        let directory = &path[..slash];
        if !self.parents.contains_key(directory) {
            let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
            let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
            let opened = fs::openat2(&self.root, directory, flags, Mode::empty(), resolve)?;
            self.parents.insert(directory.to_vec(), opened);
        }
        Ok(self.parents[directory].as_fd())
    }
}

/// Owner, mode and times come last, see [`finish_directories`].
fn make_directory(parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    match fs::mkdirat(parent, name, Mode::from(0o755)) {
        // Shared by many packages, or a link to a directory that the base made.
        Err(Errno::EXIST) => Ok(()),
        other => Ok(other?),
    }
}

/// Gives directories what the first of `packages` that has them says, in whatever order they were
/// unpacked. Links in the place of directories stay as they are.
pub(super) fn finish_directories<'u>(
    root: &Path,
    packages: impl Iterator<Item = &'u Unpacked>,
) -> Result<()> {
    let mut tree = Tree::open(root, HashSet::new()).map_err(Error::io(root))?;
    let mut done = HashSet::new();
    for directory in packages.flat_map(|unpacked| &unpacked.directories) {
        if !done.insert(directory.path.as_slice()) {
            continue;
        }
        tree.finish_directory(directory)
            .map_err(Error::io(root.join(String::from_utf8_lossy(&directory.path).as_ref())))?;
    }
    Ok(())
}

fn write_file(
    parent: BorrowedFd<'_>,
    name: &[u8],
    entry: &Entry,
    archive: &mut Reader<impl Read>,
) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = match fs::openat(parent, name, flags, Mode::from(0o600)) {
        Err(Errno::EXIST) => {
            fs::unlinkat(parent, name, AtFlags::empty())?;
            fs::openat(parent, name, flags, Mode::from(0o600))?
        }
        other => other?,
    };
    let mut file = File::from(file);
    let mut buffer = vec![0; (256 << 10).min(entry.size as usize).max(1)];
    loop {
        match archive.data(&mut buffer).map_err(io::Error::other)? {
            0 => break,
            count => file.write_all(&buffer[..count])?,
        }
    }
    finish(file.as_fd(), entry)
}

fn finish(file: BorrowedFd<'_>, entry: &Entry) -> io::Result<()> {
    fs::fchown(file, Some(fs::Uid::from_raw(entry.uid)), Some(fs::Gid::from_raw(entry.gid)))?;
    fs::fchmod(file, Mode::from(entry.mode))?;
    Ok(fs::futimens(file, &times(entry))?)
}

fn is_directory(parent: BorrowedFd<'_>, name: &[u8]) -> bool {
    fs::statat(parent, name, AtFlags::empty())
        .is_ok_and(|s| FileType::from_raw_mode(s.st_mode) == FileType::Directory)
}

fn times(entry: &Entry) -> fs::Timestamps {
    let time = fs::Timespec { tv_sec: entry.mtime, tv_nsec: entry.mtime_nanos.into() };
    fs::Timestamps { last_access: time, last_modification: time }
}
