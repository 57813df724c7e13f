//! Unpacks a hostile archive into a directory of the caller's own.
//!
//! Every path is resolved with `openat2` below the target, through no link and into no mount;
//! everything is created exclusively; one bad entry fails the whole archive. The caller unpacks
//! into a private staging directory and renames it when all is well.

use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use rustix::fs::{self, FileType, Mode, OFlags};
use sha2::{Digest, Sha256};

use super::layer::{Layer, Met};
use super::reader::{Entry, Kind, Reader};
use super::tree::{self, Tree};
use super::writeback::WriteBack;
use super::{Limits, archive_error, decoder, entry_error, inspect::below_root, shift::shift};
use crate::{Error, Result, Sha256Digest};

const CHUNK: usize = 256 << 10;

/// So many zeros, at a multiple of their number, become a hole though the archive says of none.
const ZEROS: usize = 1 << 20;

/// What to do with device nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Devices {
    /// Make them; needs root of the whole machine.
    Create,
    /// Leave them out; a container gets its devices from its runtime.
    Skip,
    /// Fail.
    Refuse,
}

/// Whose the unpacked files are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// As the archive says.
    Keep,
    /// As the archive says, moved by `base`; ids from `count` on are an error. So are those in access
    /// control lists, and file capabilities count where `base` is root.
    Shift {
        /// Added to every id.
        base: u32,
        /// How many ids there are.
        count: u32,
    },
    /// All the caller's.
    Caller,
}

/// How to unpack.
#[derive(Clone, Debug)]
pub struct ExtractOptions {
    /// What the archive may cost.
    pub limits: Limits,
    /// Device nodes.
    pub devices: Devices,
    /// Owners.
    pub ownership: Ownership,
    /// Whether it is a unified image, of which only what `rootfs/` holds is unpacked.
    pub unified: bool,
    /// Whether to compute the digest of the uncompressed archive.
    pub digest: bool,
}

impl Default for ExtractOptions {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            devices: Devices::Skip,
            ownership: Ownership::Keep,
            unified: false,
            digest: false,
        }
    }
}

/// What was unpacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extracted {
    /// Entries, extended headers not counted.
    pub entries: u64,
    /// Bytes of the uncompressed archive.
    pub size: u64,
    /// SHA-256 of the uncompressed archive, when it was asked for.
    pub sha256: Option<Sha256Digest>,
}

/// Unpacks an archive, compressed or not, into `target`, an existing empty directory. Data is
/// decompressed on another thread while files are written, and is on disk when this returns.
///
/// # Errors
/// The first bad entry, limit, or I/O error. The target is then half full: remove it.
pub fn extract<R: Read + Send>(reader: R, target: &Path, options: &ExtractOptions) -> Result<Extracted> {
    let empty = std::fs::read_dir(target).map_err(Error::io(target))?.next().is_none();
    if !empty {
        return Err(archive_error(format!("{} is not empty", target.display())));
    }
    let tree = Tree::open(target).map_err(Error::io(target))?;
    run(reader, target, options, tree, None)
}

pub(super) fn run<R: Read + Send>(
    reader: R,
    target: &Path,
    options: &ExtractOptions,
    tree: Tree,
    layer: Option<Layer>,
) -> Result<Extracted> {
    let (sender, receiver) = sync_channel(8);
    std::thread::scope(|scope| {
        let limits = &options.limits;
        scope.spawn(move || decode_ahead(reader, limits, &sender));
        let disk = WriteBack::new(scope, tree.root()).map_err(Error::io(target))?;
        let state = options.digest.then(Sha256::new);
        let mut chunks = Chunks { receiver, chunk: Vec::new(), at: 0, size: 0, state };
        let mut extractor = Extractor { tree, options, directories: Vec::new(), disk, layer };
        let entries = extractor.run(&mut chunks)?;
        extractor.disk.finish().map_err(Error::io(target))?;
        Ok(Extracted { entries, size: chunks.size, sha256: chunks.state.map(Sha256Digest::from) })
    })
}

type Chunk = io::Result<Vec<u8>>;

fn decode_ahead<R: Read + Send>(reader: R, limits: &Limits, sender: &SyncSender<Chunk>) {
    let decode = || -> io::Result<()> {
        let mut decoder = decoder(reader, limits).map_err(io::Error::other)?;
        loop {
            let mut chunk = Vec::with_capacity(CHUNK);
            decoder.by_ref().take(CHUNK as u64).read_to_end(&mut chunk)?;
            let last = chunk.is_empty();
            // A closed channel means the reader has failed already.
            if sender.send(Ok(chunk)).is_err() || last {
                return Ok(());
            }
        }
    };
    if let Err(error) = decode() {
        let _ = sender.send(Err(error));
    }
}

/// The decoder's chunks as a reader; the end is an empty chunk, so that a decoder that died is
/// not mistaken for one that finished.
struct Chunks {
    receiver: Receiver<Chunk>,
    chunk: Vec<u8>,
    at: usize,
    /// Bytes read, and their hash if somebody wants it.
    size: u64,
    state: Option<Sha256>,
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.chunk.len() {
            self.chunk = match self.receiver.recv() {
                Ok(chunk) => chunk?,
                Err(_) => return Ok(0),
            };
            self.at = 0;
        }
        let count = buffer.len().min(self.chunk.len() - self.at);
        let bytes = &self.chunk[self.at..self.at + count];
        buffer[..count].copy_from_slice(bytes);
        if let Some(state) = &mut self.state {
            state.update(bytes);
        }
        self.at += count;
        self.size += count as u64;
        Ok(count)
    }
}

struct Extractor<'a> {
    tree: Tree,
    options: &'a ExtractOptions,
    /// Directories get their mode and times last, so that read-only ones can be filled.
    directories: Vec<Entry>,
    disk: WriteBack<'a>,
    /// When this is a layer on what lies there already.
    layer: Option<Layer>,
}

impl Extractor<'_> {
    fn run(&mut self, input: impl Read) -> Result<u64> {
        let limits = &self.options.limits;
        let mut reader =
            if self.layer.is_some() { Reader::of_layer(input, limits) } else { Reader::new(input, limits) };
        let mut entries = 0;
        while let Some(entry) = reader.next_entry()? {
            entries += 1;
            let entry = if self.options.unified { below_root(entry)? } else { Some(entry) };
            if let Some(entry) = entry {
                self.place(entry, &mut reader)?;
            }
        }
        self.finish_directories()?;
        Ok(entries)
    }

    fn place(&mut self, mut entry: Entry, reader: &mut Reader<impl Read>) -> Result<()> {
        let owner = self.owner(&entry)?;
        self.shift_attributes(&mut entry)?;
        let refused = |error: io::Error| entry_error(&entry.path, explain(&error));
        if let Some(layer) = &mut self.layer
            && layer.meet(&mut self.tree, &entry).map_err(refused)? == Met::Done
        {
            return Ok(());
        }
        match &entry.kind {
            Kind::Directory => {
                if !entry.path.is_empty() {
                    self.make_directory(&entry.path).map_err(refused)?;
                }
                self.directories.push(entry);
                return Ok(());
            }
            Kind::File => return self.make_file(&entry, owner, reader),
            Kind::HardLink(target) => return self.make_hard_link(&entry.path, target).map_err(refused),
            _ => {}
        }
        if matches!(entry.kind, Kind::CharDevice(..) | Kind::BlockDevice(..)) {
            match self.options.devices {
                Devices::Skip => return Ok(()),
                Devices::Refuse => return Err(entry_error(&entry.path, "devices are not accepted here")),
                Devices::Create if entry.kind == Kind::CharDevice(0, 0) => {
                    return Err(entry_error(&entry.path, "it is a whiteout of another format"));
                }
                Devices::Create => {}
            }
        }
        self.make_special(&entry, owner).map_err(refused)
    }

    fn make_directory(&mut self, path: &[u8]) -> io::Result<()> {
        let (parent, name) = self.tree.parent(path)?;
        match fs::mkdirat(parent, name, Mode::from(0o700)) {
            Err(rustix::io::Errno::EXIST) if tree::kind_of(parent, name)? == FileType::Directory => Ok(()),
            other => Ok(other?),
        }
    }

    fn make_file(
        &mut self,
        entry: &Entry,
        owner: Option<(u32, u32)>,
        reader: &mut Reader<impl Read>,
    ) -> Result<()> {
        let refused = |error: io::Error| entry_error(&entry.path, explain(&error));
        let (parent, name) = self.tree.parent(&entry.path).map_err(refused)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = fs::openat(parent, name, flags, Mode::from(0o600)).map_err(|e| refused(e.into()))?;
        let mut file = std::fs::File::from(file);
        let mut buffer = vec![0; ZEROS.min(usize::try_from(entry.size).unwrap_or(ZEROS)).max(1)];
        let mut hole = false;
        loop {
            let mut skipped = reader.skip_hole();
            let count = fill(reader, &mut buffer)?;
            if skipped == 0 && count == 0 {
                break;
            }
            hole = count == ZEROS && buffer.iter().all(|b| *b == 0) || count == 0;
            if hole {
                skipped += count as u64;
            }
            let written = file.seek(SeekFrom::Current(skipped as i64));
            written
                .and_then(|_| if hole { Ok(()) } else { file.write_all(&buffer[..count]) })
                .map_err(refused)?;
        }
        if hole {
            file.set_len(entry.size).map_err(refused)?;
        }
        self.disk.wrote(entry.size);
        tree::finish_open(file.as_fd(), entry, owner).map_err(refused)
    }

    fn make_hard_link(&mut self, path: &[u8], target: &[u8]) -> io::Result<()> {
        let (parent, name) = self.tree.parent(target)?;
        match tree::kind_of(parent, name)? {
            FileType::Symlink => return Err(io::Error::other("a hard link to a link")),
            FileType::Directory => return Err(io::Error::other("a hard link to a directory")),
            _ => {}
        }
        let source = parent.try_clone_to_owned()?;
        let (parent, link) = self.tree.parent(path)?;
        Ok(fs::linkat(source.as_fd(), name, parent, link, fs::AtFlags::empty())?)
    }

    fn make_special(&mut self, entry: &Entry, owner: Option<(u32, u32)>) -> io::Result<()> {
        let (parent, name) = self.tree.parent(&entry.path)?;
        let node = |kind, major, minor| {
            fs::mknodat(parent, name, kind, Mode::from(0o600), fs::makedev(major, minor))
        };
        match &entry.kind {
            Kind::Symlink(target) => fs::symlinkat(target.as_slice(), parent, name)?,
            Kind::Fifo => node(FileType::Fifo, 0, 0)?,
            Kind::CharDevice(major, minor) => node(FileType::CharacterDevice, *major, *minor)?,
            Kind::BlockDevice(major, minor) => node(FileType::BlockDevice, *major, *minor)?,
            Kind::File | Kind::Directory | Kind::HardLink(_) => {}
        }
        let symlink = matches!(entry.kind, Kind::Symlink(_));
        tree::finish_at(parent, name, entry, owner, symlink)
    }

    fn finish_directories(&mut self) -> Result<()> {
        // Deepest first: a parent may become unsearchable. A repeated directory ends as its last
        // entry says, which a stable sort keeps last.
        let mut directories = std::mem::take(&mut self.directories);
        directories.sort_by(|a, b| b.path.cmp(&a.path));
        for entry in &directories {
            let refused = |error: io::Error| entry_error(&entry.path, explain(&error));
            let owner = self.owner(entry)?;
            if entry.path.is_empty() {
                tree::finish_open(self.tree.root(), entry, owner).map_err(refused)?;
            } else {
                let directory = self.tree.open_directory(&entry.path).map_err(refused)?;
                tree::finish_open(directory.as_fd(), entry, owner).map_err(refused)?;
            }
        }
        Ok(())
    }

    fn owner(&self, entry: &Entry) -> Result<Option<(u32, u32)>> {
        match self.options.ownership {
            Ownership::Keep => Ok(Some((entry.uid, entry.gid))),
            Ownership::Caller => Ok(None),
            Ownership::Shift { base, count } => {
                let shift = |id: u32| id.checked_add(base).filter(|_| id < count);
                shift(entry.uid).zip(shift(entry.gid)).map(Some).ok_or_else(|| {
                    let reason =
                        format!("owner {}:{} is outside the {count} ids mapped", entry.uid, entry.gid);
                    entry_error(&entry.path, reason)
                })
            }
        }
    }

    fn shift_attributes(&self, entry: &mut Entry) -> Result<()> {
        let Ownership::Shift { base, count } = self.options.ownership else { return Ok(()) };
        for (name, value) in &mut entry.xattrs {
            *value = shift(name, value, base, count).map_err(|reason| entry_error(&entry.path, reason))?;
        }
        Ok(())
    }
}

/// Reads up to the buffer's end, a hole, or the end of the data.
fn fill(reader: &mut Reader<impl Read>, buffer: &mut [u8]) -> Result<usize> {
    let mut count = 0;
    while count < buffer.len() && reader.hole() == 0 {
        match reader.data(&mut buffer[count..])? {
            0 => break,
            more => count += more,
        }
    }
    Ok(count)
}

fn explain(error: &io::Error) -> String {
    match error.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
        Some(rustix::io::Errno::LOOP | rustix::io::Errno::NOTDIR) => {
            "its path leads through a link or a file".into()
        }
        Some(rustix::io::Errno::EXIST) => "it stands in the archive twice".into(),
        Some(rustix::io::Errno::XDEV) => "its path leads into another mount".into(),
        Some(rustix::io::Errno::NOENT) => "what it links to is not there (yet)".into(),
        _ => error.to_string(),
    }
}
