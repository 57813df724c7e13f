//! Writes the entries of one archive: POSIX headers, extended where something does not fit.

use std::collections::{BTreeMap, HashSet};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::compress::Compressor;
use super::header::BLOCK;
use super::small::Member;
use super::{Layout, PackOptions, Packed, acl, pax, sparse};
use crate::digest::HashingWriter;
use crate::{Error, Result};

/// What a header says.
#[derive(Clone, Default)]
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
    /// Size of a file with holes; what follows is a map and the data.
    pub(super) sparse: Option<u64>,
    pub(super) xattrs: Vec<(String, Vec<u8>)>,
}

/// One archive being written.
pub(super) struct Stream<W: Write> {
    pub(super) out: HashingWriter<Compressor<HashingWriter<W>>>,
    layout: Layout,
    entries: u64,
}

impl<W: Write> Stream<W> {
    pub(super) fn new(out: W, layout: Layout, options: &PackOptions) -> Self {
        let out = HashingWriter::new(Compressor::new(HashingWriter::new(out), options));
        Self { out, layout, entries: 0 }
    }

    /// Ends a block of the compressed archive; `code` says whether machine code comes next.
    pub(super) fn end_block(&mut self, code: bool) -> Result<()> {
        self.out.get_mut().end_block(code).map_err(Error::io("archive"))
    }

    /// Files held in memory, in the order of their names, with the directories they need. `incus-simplestreams`
    /// and others look for `metadata.yaml` by just that name.
    pub(super) fn members(&mut self, members: &BTreeMap<PathBuf, Member>, epoch: i64) -> Result<()> {
        let mut directories = HashSet::new();
        for (path, member) in members {
            let parents: Vec<_> = path.ancestors().skip(1).filter(|p| !p.as_os_str().is_empty()).collect();
            for parent in parents.into_iter().rev() {
                if directories.insert(parent) {
                    let entry = Header { kind: b'5', mode: 0o755, mtime: epoch, ..Header::default() };
                    self.header(&name("", parent, true), &entry)?;
                }
            }
            let size = member.data.len() as u64;
            let entry = Header { kind: b'0', mode: member.mode, mtime: epoch, size, ..Header::default() };
            self.header(&name("", path, false), &entry)?;
            self.write(&member.data)?;
            self.write(padding(size))?;
        }
        Ok(())
    }

    /// An entry of the tree, as this archive's layout has it; `first` is what a hard link leads to.
    pub(super) fn entry(&mut self, path: &Path, mut header: Header, first: Option<&Path>) -> Result<()> {
        let base = match self.layout {
            Layout::Rootfs => "rootfs",
            Layout::Plain | Layout::Squashfs => ".",
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
        if !self.keeps_holes() {
            header.size = header.sparse.take().unwrap_or(header.size);
        }
        self.header(&name(base, path, header.kind == b'5'), &header)
    }

    /// Whether files with holes are described as such. What mksquashfs 4.5 makes of them is damaged; it finds holes by
    /// itself.
    pub(super) fn keeps_holes(&self) -> bool {
        self.layout != Layout::Squashfs
    }

    /// Writes a header, with an extended one before it where it takes one.
    fn header(&mut self, name: &[u8], header: &Header) -> Result<()> {
        let mut records = Vec::new();
        // A file with holes has a name of its own for readers that know no holes.
        let stand_in = header.sparse.map(|_| sparse::stand_in(name));
        if let Some(size) = header.sparse {
            sparse::describe(&mut records, name, size);
        } else if name.len() > 100 {
            pax::push(&mut records, "path", name);
        }
        if self.layout == Layout::Squashfs && header.kind == b'2' && header.link.len() > 100 {
            self.long_link(&header.link)?;
        } else if header.link.len() > 100 {
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
            self.write(&records)?;
            self.write(padding(size))?;
        }
        self.entries += 1;
        self.write(&block(stand_in.as_deref().unwrap_or(name), header))
    }

    /// Where the next entry's link leads, as GNU tar writes it: of an extended header mksquashfs 4.5 takes the
    /// first slash away.
    fn long_link(&mut self, link: &[u8]) -> Result<()> {
        let size = link.len() as u64 + 1;
        self.write(&block(b"././@LongLink", &Header { kind: b'K', mode: 0o644, size, ..Header::default() }))?;
        self.write(link)?;
        self.write(&[0])?;
        self.write(padding(size))
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

/// Zeros up to the next block.
pub(super) fn padding(size: u64) -> &'static [u8] {
    &[0; BLOCK][..(size.next_multiple_of(BLOCK as u64) - size) as usize]
}

/// What an entry is called: `path` below `base`, which is nothing for files at the archive's very top.
fn name(base: &str, path: &Path, directory: bool) -> Vec<u8> {
    let mut name = base.as_bytes().to_vec();
    if !base.is_empty() && !path.as_os_str().is_empty() {
        name.push(b'/');
    }
    name.extend_from_slice(path.as_os_str().as_bytes());
    if directory {
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
