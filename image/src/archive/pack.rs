//! Packs a directory into an archive in one pass, with the same bytes for the same files.
//!
//! Directories come first, then packages' files, then the rest, in the order and the blocks of
//! [`super::plan`]. Times are clamped, names of owners left out, everything else sorted. A file whose
//! time is clamped was made while building, so it stands with the rest: packages' blocks stay what
//! they were.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::cache::BlockCache;
use super::header::BLOCK;
use super::plan::shares;
use super::small::Member;
use super::survey::{Survey, xattrs};
use super::write::{Header, Stream, padding};
use super::xz::{Blocks, Watch, XzOptions};
use super::{Compression, archive_error, sparse};
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
    /// Groups; the nearer their contents, the nearer they should stand.
    pub groups: Vec<FileGroup>,
    /// Blocks of xz archives are taken from here and kept here.
    pub block_cache: Option<Arc<BlockCache>>,
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
            block_cache: None,
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
    /// How the blocks of an xz archive came about.
    pub blocks: Blocks,
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
    let stream = Stream::new(out, Layout::Plain, options);
    let mut packed = Archive::new(vec![stream], options).tree(root)?.finish()?;
    packed.pop().ok_or_else(|| archive_error("there is no archive to finish"))
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
            block_cache: options.block_cache.clone(),
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
    let mut stream = Stream::new(out, Layout::Plain, options);
    stream.members(members, options.epoch)?;
    stream.finish()
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
        let survey = Survey::of(root)?;
        for path in &survey.directories {
            self.add(root, path)?;
        }
        let block = self.options.xz.block_size.max(1) as u64;
        let (owned, rest) = survey.units(&self.options.groups, self.options.epoch);
        for share in shares(owned, block).into_iter().chain(shares(rest, block)) {
            self.streams.iter_mut().try_for_each(|stream| stream.end_block(share.code))?;
            for path in &share.files {
                self.add(root, path)?;
            }
        }
        Ok(self)
    }

    /// Adds what is at `path` below `root`.
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
        if header.size == 0 {
            return self.header(path, &header, None);
        }
        let mut file = File::open(&full).map_err(Error::io(&full))?;
        if let Some(map) = sparse::find(&file, header.size).map_err(Error::io(&full))? {
            return self.sparse(path, header, &map, &mut file);
        }
        self.header(path, &header, None)?;
        self.data(&mut file, header.size).map_err(Error::io(&full))
    }

    /// A file with holes: a map, then what is between them; or zeros in their place, where a reader takes no map.
    fn sparse(&mut self, path: &Path, mut header: Header, map: &sparse::Map, file: &mut File) -> Result<()> {
        let text = map.to_bytes();
        let size = header.size;
        header.sparse = Some(size);
        header.size = text.len() as u64 + map.data();
        self.header(path, &header, None)?;
        let mut copy = || -> io::Result<()> {
            self.streams.iter_mut().filter(|s| s.keeps_holes()).try_for_each(|s| s.out.write_all(&text))?;
            let mut at = 0;
            for extent in &map.extents {
                self.hole(extent.offset - at)?;
                file.seek(SeekFrom::Start(extent.offset))?;
                self.data(file, extent.size)?;
                // What a block lacks has been padded with the data.
                at = (extent.offset + extent.size).next_multiple_of(BLOCK as u64).min(size);
            }
            Ok(())
        };
        copy().map_err(Error::io(path))
    }

    /// Zeros for the archives that keep no holes, up to the end of a block.
    fn hole(&mut self, size: u64) -> io::Result<()> {
        for stream in self.streams.iter_mut().filter(|stream| !stream.keeps_holes()) {
            io::copy(&mut io::repeat(0).take(size.next_multiple_of(BLOCK as u64)), &mut stream.out)?;
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
