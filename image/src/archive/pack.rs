//! Packs a directory into an archive in one pass, with the same bytes for the same files.
//!
//! Entries are ordered directories first, then files grouped by owning package, then the rest, so
//! that an updated package touches one region; xz blocks may end between groups. Times are
//! clamped, names of owners left out, everything else sorted.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::header::BLOCK;
use super::small::Member;
use super::xz::{Watch, XzOptions, XzWriter};
use super::{Compression, archive_error, pax};
use crate::digest::HashingWriter;
use crate::{Error, Result, Sha256Digest};

/// Paths below the root that belong together, as a package's files do.
#[derive(Clone, Debug, Default)]
pub struct FileGroup {
    /// Paths relative to the root, in any order; those that are not there are passed over.
    pub paths: Vec<PathBuf>,
}

/// How to pack.
#[derive(Clone, Debug)]
pub struct PackOptions {
    /// Later modification times become this one; seconds since 1970.
    pub epoch: i64,
    /// Compression of the result.
    pub compression: Compression,
    /// Settings for xz; its level also serves gzip and zstd.
    pub xz: XzOptions,
    /// Groups in the order they are packed.
    pub groups: Vec<FileGroup>,
    /// Asked at every entry and while waiting for the compressor.
    pub watch: Watch,
}

impl Default for PackOptions {
    fn default() -> Self {
        Self {
            epoch: i64::MAX,
            compression: Compression::Xz,
            xz: XzOptions::default(),
            groups: Vec::new(),
            watch: Watch::default(),
        }
    }
}

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packed {
    /// SHA-256 of the file.
    pub sha256: Sha256Digest,
    /// Bytes of the file.
    pub size: u64,
    /// SHA-256 before compression.
    pub sha256_uncompressed: Sha256Digest,
    /// Bytes before compression.
    pub size_uncompressed: u64,
    /// Entries.
    pub entries: u64,
}

/// How an archive names the files of the root file system, and what it may say of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Layout {
    /// At the archive's top.
    #[default]
    Plain,
    /// Below `rootfs/`, as in unified images.
    Rootfs,
    /// At the top, for a writer of squashfs: times before 1970 become 1970, which is the first
    /// that format has, and the root directory is left out, whose attributes the tool takes from
    /// its options.
    Squashfs,
}

/// One of several archives made in one pass.
pub struct Sink<W> {
    /// Where it goes.
    pub out: W,
    /// How it is compressed.
    pub compression: Compression,
    /// At which level; each compression has its own scale.
    pub level: u32,
    /// How files are named.
    pub layout: Layout,
    /// Files of its own, which come first.
    pub lead: BTreeMap<PathBuf, Member>,
}

/// Packs everything below `root`, which must not change meanwhile.
pub fn pack<W: Write>(root: &Path, out: W, options: &PackOptions) -> Result<(W, Packed)> {
    let archive = Archive::new(vec![Stream::plain(out, options)], options);
    archive.tree(root)?.finish_one()
}

/// Packs everything below `root` into several archives, reading it once. Compression and level
/// are each archive's own; all else is as `options` say.
pub fn pack_each<W: Write>(
    root: &Path,
    sinks: Vec<Sink<W>>,
    options: &PackOptions,
) -> Result<Vec<(W, Packed)>> {
    let mut streams = Vec::new();
    for sink in sinks {
        let own = PackOptions {
            compression: sink.compression,
            xz: XzOptions { level: sink.level, ..options.xz },
            watch: options.watch.clone(),
            epoch: options.epoch,
            groups: Vec::new(),
        };
        let mut stream = Stream::new(sink.out, sink.layout, &own);
        stream.members(&sink.lead, options.epoch)?;
        streams.push(stream);
    }
    Archive::new(streams, options).tree(root)?.finish()
}

/// Packs files held in memory, in the order of their names; time is the epoch.
pub fn pack_members<W: Write>(
    members: &BTreeMap<PathBuf, Member>,
    out: W,
    options: &PackOptions,
) -> Result<(W, Packed)> {
    let mut stream = Stream::plain(out, options);
    stream.members(members, options.epoch)?;
    stream.finish()
}

type Files = BTreeSet<PathBuf>;

/// All directories and all other files below `root`, sorted, relative.
fn walk(root: &Path) -> Result<(Vec<PathBuf>, Files)> {
    let mut directories = vec![PathBuf::new()];
    let mut files = Files::new();
    let mut at = 0;
    while at < directories.len() {
        let directory = directories[at].clone();
        at += 1;
        let full = root.join(&directory);
        for item in fs::read_dir(&full).map_err(Error::io(&full))? {
            let item = item.map_err(Error::io(&full))?;
            let path = directory.join(item.file_name());
            if item.file_type().map_err(Error::io(&full))?.is_dir() {
                directories.push(path);
            } else {
                files.insert(path);
            }
        }
    }
    directories.sort();
    Ok((directories, files))
}

#[derive(Clone, Default)]
struct Header {
    kind: u8,
    mode: u32,
    uid: u32,
    gid: u32,
    size: u64,
    mtime: i64,
    nanos: i64,
    link: Vec<u8>,
    major: u32,
    minor: u32,
    xattrs: Vec<(String, Vec<u8>)>,
}

/// One tree on its way into one or several archives.
struct Archive<'a, W: Write> {
    streams: Vec<Stream<W>>,
    options: &'a PackOptions,
    /// Where the first name of a file with several was packed.
    links: HashMap<(u64, u64), PathBuf>,
}

impl<'a, W: Write> Archive<'a, W> {
    fn new(streams: Vec<Stream<W>>, options: &'a PackOptions) -> Self {
        Self { streams, options, links: HashMap::new() }
    }

    fn tree(mut self, root: &Path) -> Result<Self> {
        let (directories, files) = walk(root)?;
        for path in &directories {
            self.add(root, path)?;
        }
        self.cut()?;
        let mut packed = HashSet::new();
        for group in &self.options.groups {
            let mut paths: Vec<_> = group.paths.iter().filter(|path| files.contains(*path)).collect();
            paths.sort();
            for path in paths {
                if packed.insert(path) {
                    self.add(root, path)?;
                }
            }
            self.cut()?;
        }
        for path in files.iter().filter(|path| !packed.contains(path)) {
            self.add(root, path)?;
        }
        Ok(self)
    }

    fn cut(&mut self) -> Result<()> {
        self.streams
            .iter_mut()
            .try_for_each(|stream| stream.out.get_mut().cut().map_err(Error::io("archive")))
    }

    fn add(&mut self, root: &Path, path: &Path) -> Result<()> {
        self.options.watch.check().map_err(Error::io("archive"))?;
        let full = root.join(path);
        let meta = fs::symlink_metadata(&full).map_err(Error::io(&full))?;
        let kind = meta.file_type();
        if kind.is_socket() {
            return Ok(()); // A socket means nothing without the process behind it.
        }
        let clamped = meta.mtime() >= self.options.epoch;
        let mut header = Header {
            mode: meta.mode() & 0o7777,
            uid: meta.uid(),
            gid: meta.gid(),
            mtime: meta.mtime().min(self.options.epoch),
            nanos: if clamped { 0 } else { meta.mtime_nsec() },
            xattrs: xattrs(&full)?,
            ..Header::default()
        };
        if !kind.is_dir() && meta.nlink() > 1 {
            if let Some(first) = self.links.get(&(meta.dev(), meta.ino())).cloned() {
                header.kind = b'1';
                header.xattrs.clear();
                return self.header(path, &header, Some(&first));
            }
            self.links.insert((meta.dev(), meta.ino()), path.to_path_buf());
        }
        header.kind = if kind.is_dir() {
            b'5'
        } else if kind.is_symlink() {
            let target = fs::read_link(&full).map_err(Error::io(&full))?;
            header.link = target.as_os_str().as_bytes().to_vec();
            b'2'
        } else if kind.is_fifo() {
            b'6'
        } else if kind.is_char_device() || kind.is_block_device() {
            (header.major, header.minor) = (rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()));
            if kind.is_char_device() { b'3' } else { b'4' }
        } else {
            header.size = meta.size();
            b'0'
        };
        self.header(path, &header, None)?;
        if header.size > 0 {
            let mut file = File::open(&full).map_err(Error::io(&full))?;
            self.data(&mut file, header.size).map_err(Error::io(&full))?;
        }
        Ok(())
    }

    /// An entry in every archive; `first` is what a hard link leads to.
    fn header(&mut self, path: &Path, header: &Header, first: Option<&Path>) -> Result<()> {
        for stream in &mut self.streams {
            stream.entry(path, header.clone(), first)?;
        }
        Ok(())
    }

    /// Copies exactly `size` bytes into every archive and pads them.
    fn data(&mut self, reader: &mut dyn Read, size: u64) -> io::Result<()> {
        let mut all = Fan(&mut self.streams);
        let copied = io::copy(&mut reader.take(size), &mut all)?;
        if copied != size {
            return Err(io::Error::other("the file shrank while it was packed"));
        }
        all.write_all(padding(size))
    }

    fn finish(self) -> Result<Vec<(W, Packed)>> {
        self.streams.into_iter().map(Stream::finish).collect()
    }

    fn finish_one(self) -> Result<(W, Packed)> {
        self.finish()?.pop().ok_or_else(|| archive_error("there is no archive to finish"))
    }
}

/// Writes to all archives alike.
struct Fan<'s, W: Write>(&'s mut [Stream<W>]);

impl<W: Write> Write for Fan<'_, W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.0.iter_mut().try_for_each(|stream| stream.out.write_all(data))?;
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One archive being written.
struct Stream<W: Write> {
    out: HashingWriter<Compressor<HashingWriter<W>>>,
    layout: Layout,
    entries: u64,
}

impl<W: Write> Stream<W> {
    fn new(out: W, layout: Layout, options: &PackOptions) -> Self {
        let out = HashingWriter::new(Compressor::new(HashingWriter::new(out), options));
        Self { out, layout, entries: 0 }
    }

    fn plain(out: W, options: &PackOptions) -> Self {
        Self::new(out, Layout::Plain, options)
    }

    /// Files held in memory, in the order of their names, with the directories they need.
    fn members(&mut self, members: &BTreeMap<PathBuf, Member>, epoch: i64) -> Result<()> {
        let mut directories = HashSet::new();
        for (path, member) in members {
            let parents: Vec<_> = path.ancestors().skip(1).filter(|p| !p.as_os_str().is_empty()).collect();
            for parent in parents.into_iter().rev() {
                if directories.insert(parent) {
                    let entry = Header { kind: b'5', mode: 0o755, mtime: epoch, ..Header::default() };
                    self.header(&name(Path::new(""), parent, true), &entry)?;
                }
            }
            let size = member.data.len() as u64;
            let entry = Header { kind: b'0', mode: member.mode, mtime: epoch, size, ..Header::default() };
            self.header(&name(Path::new(""), path, false), &entry)?;
            self.write(&member.data)?;
            self.write(padding(size))?;
        }
        Ok(())
    }

    /// An entry of the tree, as this archive's layout has it.
    fn entry(&mut self, path: &Path, mut header: Header, first: Option<&Path>) -> Result<()> {
        let base = match self.layout {
            Layout::Rootfs => Path::new("rootfs"),
            Layout::Plain | Layout::Squashfs => Path::new(""),
        };
        if self.layout == Layout::Squashfs {
            if path.as_os_str().is_empty() {
                return Ok(());
            }
            if header.mtime < 0 {
                (header.mtime, header.nanos) = (0, 0);
            }
        }
        if let Some(first) = first {
            header.link = name(base, first, false);
        }
        self.header(&name(base, path, header.kind == b'5'), &header)
    }

    fn header(&mut self, name: &[u8], header: &Header) -> Result<()> {
        let mut records = Vec::new();
        if name.len() > 100 {
            pax::push(&mut records, "path", name);
        }
        if header.link.len() > 100 {
            pax::push(&mut records, "linkpath", &header.link);
        }
        for (key, id) in [("uid", header.uid), ("gid", header.gid)] {
            if u64::from(id) > octal_max(8) {
                pax::push(&mut records, key, id.to_string().as_bytes());
            }
        }
        if header.size > octal_max(12) {
            pax::push(&mut records, "size", header.size.to_string().as_bytes());
        }
        if header.nanos != 0 || header.mtime < 0 {
            pax::push(&mut records, "mtime", pax_time(header.mtime, header.nanos).as_bytes());
        }
        for (key, value) in &header.xattrs {
            pax::push(&mut records, &format!("{}{key}", pax::XATTR), value);
        }
        if !records.is_empty() {
            let size = records.len() as u64;
            let extension = Header { kind: b'x', mode: 0o644, size, ..Header::default() };
            self.write(&block(b"././@PaxHeader", &extension))?;
            self.write(&records)?;
            self.write(padding(size))?;
        }
        self.entries += 1;
        self.write(&block(name, header))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).map_err(Error::io("archive"))
    }

    fn finish(mut self) -> Result<(W, Packed)> {
        self.write(&[0; 2 * BLOCK])?;
        let (compressor, sha256_uncompressed, size_uncompressed) = self.out.finish();
        let out = compressor.finish().map_err(Error::io("archive"))?;
        let (out, sha256, size) = out.finish();
        Ok((out, Packed { sha256, size, sha256_uncompressed, size_uncompressed, entries: self.entries }))
    }
}

/// Zeros up to the next block.
fn padding(size: u64) -> &'static [u8] {
    &[0; BLOCK][..(size.next_multiple_of(BLOCK as u64) - size) as usize]
}

fn name(base: &Path, path: &Path, directory: bool) -> Vec<u8> {
    let mut name = b"./".to_vec();
    name.extend_from_slice(base.as_os_str().as_bytes());
    if !base.as_os_str().is_empty() && !path.as_os_str().is_empty() {
        name.push(b'/');
    }
    name.extend_from_slice(path.as_os_str().as_bytes());
    if directory && name.len() > 2 {
        name.push(b'/');
    }
    name
}

/// A POSIX header block; fields that do not fit are in the extended header before it.
fn block(name: &[u8], header: &Header) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &name[..name.len().min(100)]);
    put(157, &header.link[..header.link.len().min(100)]);
    put(100, octal(header.mode.into(), 8).as_bytes());
    put(108, octal(header.uid.into(), 8).as_bytes());
    put(116, octal(header.gid.into(), 8).as_bytes());
    put(124, octal(header.size, 12).as_bytes());
    put(136, octal(u64::try_from(header.mtime).unwrap_or(0), 12).as_bytes());
    put(148, b"        ");
    put(156, &[header.kind]);
    put(257, b"ustar\x0000");
    if matches!(header.kind, b'3' | b'4') {
        put(329, octal(header.major.into(), 8).as_bytes());
        put(337, octal(header.minor.into(), 8).as_bytes());
    }
    let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

fn octal_max(width: u32) -> u64 {
    (1 << (3 * (width - 1))) - 1
}

fn octal(value: u64, width: usize) -> String {
    let value = if value > octal_max(width as u32) { 0 } else { value };
    format!("{value:0digits$o}\0", digits = width - 1)
}

fn pax_time(seconds: i64, nanos: i64) -> String {
    let text = match (seconds, nanos) {
        (_, 0) => return seconds.to_string(),
        (..0, _) => format!("-{}.{:09}", -(seconds + 1), 1_000_000_000 - nanos),
        _ => format!("{seconds}.{nanos:09}"),
    };
    text.trim_end_matches('0').to_owned()
}

/// The attributes an image carries: capabilities, ACLs and what users set; not another host's
/// labels.
fn xattrs(path: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let error = |e: rustix::io::Errno| Error::io(path)(e.into());
    let mut names = vec![0; 64 << 10];
    let size = match rustix::fs::llistxattr(path, &mut names) {
        Err(rustix::io::Errno::OPNOTSUPP) => 0,
        other => other.map_err(error)?,
    };
    let mut found = Vec::new();
    for name in names[..size].split(|b| *b == 0).filter(|name| !name.is_empty()) {
        let wanted = name == b"security.capability"
            || name.starts_with(b"user.")
            || name.starts_with(b"system.posix_acl_");
        if !wanted {
            continue;
        }
        let mut value = vec![0; 64 << 10];
        let size = rustix::fs::lgetxattr(path, OsStr::from_bytes(name), &mut value).map_err(error)?;
        value.truncate(size);
        let name = std::str::from_utf8(name)
            .map_err(|_| archive_error(format!("{}: attribute name is not UTF-8", path.display())))?;
        found.push((name.to_owned(), value));
    }
    found.sort();
    Ok(found)
}

enum Compressor<W: Write> {
    None(W),
    Gzip(flate2::write::GzEncoder<W>),
    Zstd(zstd::Encoder<'static, W>),
    Xz(XzWriter<W>),
    /// A zstd encoder that could not be made; told at the first write.
    Failed(io::Error),
}

impl<W: Write> Compressor<W> {
    fn new(out: W, options: &PackOptions) -> Self {
        let level = options.xz.level;
        match options.compression {
            Compression::None => Self::None(out),
            // GzBuilder's defaults leave name and time out of the header.
            Compression::Gzip => {
                Self::Gzip(flate2::GzBuilder::new().write(out, flate2::Compression::new(level.min(9))))
            }
            Compression::Zstd => match zstd::Encoder::new(out, level as i32) {
                Ok(encoder) => Self::Zstd(encoder),
                Err(error) => Self::Failed(error),
            },
            Compression::Xz => Self::Xz(XzWriter::new(out, options.xz, options.watch.clone())),
        }
    }

    fn cut(&mut self) -> io::Result<()> {
        if let Self::Xz(xz) = self { xz.cut() } else { Ok(()) }
    }

    fn finish(self) -> io::Result<W> {
        match self {
            Self::None(out) => Ok(out),
            Self::Gzip(encoder) => encoder.finish(),
            Self::Zstd(encoder) => encoder.finish(),
            Self::Xz(xz) => xz.finish(),
            Self::Failed(error) => Err(error),
        }
    }
}

impl<W: Write> Write for Compressor<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        match self {
            Self::None(out) => out.write(data),
            Self::Gzip(encoder) => encoder.write(data),
            Self::Zstd(encoder) => encoder.write(data),
            Self::Xz(xz) => xz.write(data),
            Self::Failed(error) => Err(io::Error::other(error.to_string())),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
