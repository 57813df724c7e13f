//! Writes the entries of an archive: POSIX headers, extended where something does not fit.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use super::compress::Compressor;
use super::header::BLOCK;
use super::survey::xattrs;
use super::{PackOptions, Packed, acl, pax, sparse};
use crate::digest::HashingWriter;
use crate::{Error, Result};

/// What a header says.
#[derive(Default)]
pub(super) struct Header {
    pub(super) kind: u8,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) size: u64,
    pub(super) mtime: i64,
    pub(super) nanos: i64,
    pub(super) link: Vec<u8>,
    pub(super) major: u32,
    pub(super) minor: u32,
    /// Name and size of a file with holes.
    pub(super) sparse: Option<(Vec<u8>, u64)>,
    pub(super) xattrs: Vec<(String, Vec<u8>)>,
}

/// An archive being written, entry by entry.
pub(super) struct Archive<'a, W: Write> {
    out: HashingWriter<Compressor<HashingWriter<W>>>,
    options: &'a PackOptions,
    /// Where the first name of a file with several was packed.
    links: HashMap<(u64, u64), Vec<u8>>,
    entries: u64,
}

impl<'a, W: Write> Archive<'a, W> {
    pub(super) fn new(out: W, options: &'a PackOptions) -> Self {
        let out = HashingWriter::new(Compressor::new(HashingWriter::new(out), options));
        Self { out, options, links: HashMap::new(), entries: 0 }
    }

    /// Ends a block of the compressed archive; `code` says whether machine code comes next.
    pub(super) fn end_block(&mut self, code: bool) -> Result<()> {
        self.out.get_mut().end_block(code).map_err(Error::io("archive"))
    }

    /// Adds what is at `path` below `root`.
    pub(super) fn add(&mut self, root: &Path, path: &Path) -> Result<()> {
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
        let name = name(path, kind.is_dir());
        if !kind.is_dir() && meta.nlink() > 1 {
            if let Some(first) = self.links.get(&(meta.dev(), meta.ino())) {
                header.kind = b'1';
                header.link.clone_from(first);
                header.xattrs.clear();
                return self.header(&name, &header);
            }
            self.links.insert((meta.dev(), meta.ino()), name.clone());
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
            return self.header(&name, &header);
        }
        let mut file = File::open(&full).map_err(Error::io(&full))?;
        if let Some(map) = sparse::find(&file, header.size).map_err(Error::io(&full))? {
            return self.sparse(&name, header, &map, &mut file);
        }
        self.header(&name, &header)?;
        self.data(&mut file, header.size).map_err(Error::io(&full))
    }

    /// A file with holes: a map, then what is between them, under a name of its own for readers that
    /// know no holes.
    fn sparse(&mut self, name: &[u8], mut header: Header, map: &sparse::Map, file: &mut File) -> Result<()> {
        let text = map.to_bytes();
        header.sparse = Some((name.to_vec(), header.size));
        header.size = text.len() as u64 + map.data();
        self.header(&sparse::stand_in(name), &header)?;
        let io = Error::io(Path::new(OsStr::from_bytes(name)));
        let mut copy = || -> io::Result<()> {
            self.out.write_all(&text)?;
            for extent in &map.extents {
                file.seek(SeekFrom::Start(extent.offset))?;
                self.data(file, extent.size)?;
            }
            Ok(())
        };
        copy().map_err(io)
    }

    /// Writes a header, with an extended one before it where it takes one.
    pub(super) fn header(&mut self, name: &[u8], header: &Header) -> Result<()> {
        let mut records = Vec::new();
        if let Some((name, size)) = &header.sparse {
            sparse::describe(&mut records, name, *size);
        } else if name.len() > 100 {
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
            pax::push(&mut records, &pax::attribute(key), value);
            if let Some((key, text)) = acl::record(key, value) {
                pax::push(&mut records, key, text.as_bytes());
            }
        }
        if !records.is_empty() {
            let size = records.len() as u64;
            let extension = Header { kind: b'x', mode: 0o644, size, ..Header::default() };
            self.write(&block(b"././@PaxHeader", &extension))?;
            self.data(&mut records.as_slice(), size).map_err(Error::io("archive"))?;
        }
        self.entries += 1;
        self.write(&block(name, header))
    }

    /// Copies exactly `size` bytes and pads them.
    pub(super) fn data(&mut self, reader: &mut dyn Read, size: u64) -> io::Result<()> {
        let copied = io::copy(&mut reader.take(size), &mut self.out)?;
        if copied != size {
            return Err(io::Error::other("the file shrank while it was packed"));
        }
        let padding = (size.next_multiple_of(BLOCK as u64) - size) as usize;
        self.out.write_all(&[0; BLOCK][..padding])
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).map_err(Error::io("archive"))
    }

    pub(super) fn finish(mut self) -> Result<(W, Packed)> {
        self.write(&[0; 2 * BLOCK])?;
        let (compressor, sha256_uncompressed, size_uncompressed) = self.out.finish();
        let (out, blocks) = compressor.finish().map_err(Error::io("archive"))?;
        let (out, sha256, size) = out.finish();
        let entries = self.entries;
        Ok((out, Packed { sha256, size, sha256_uncompressed, size_uncompressed, entries, blocks }))
    }
}

/// A path as entries spell it.
pub(super) fn name(path: &Path, directory: bool) -> Vec<u8> {
    let mut name = b"./".to_vec();
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
