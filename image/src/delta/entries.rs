//! Where the entries of a tar archive lie, so that an entry can be compared with the one of the
//! same name in another archive.
//!
//! This is no reader of archives: what it does not understand is one more piece of bytes, and a
//! delta is right whatever is found here. It is only smaller when the names are.

use std::collections::HashMap;
use std::io::{self, Read};

use crate::Sha256Digest;
use crate::digest::HashingReader;

const BLOCK: usize = 512;
/// Longer extended headers are not looked into, in bytes.
const MAX_EXTENSION: u64 = 1 << 20;

/// A piece of an archive: headers with the extended ones before them, then data with its padding.
pub(super) struct Entry {
    /// Its path as written; empty for what is no entry.
    pub(super) path: Vec<u8>,
    /// Where the headers begin.
    pub(super) start: u64,
    /// The headers' bytes.
    pub(super) header: Vec<u8>,
    /// Bytes of data and padding.
    pub(super) size: u64,
    /// SHA-256 of data and padding.
    pub(super) digest: Sha256Digest,
}

impl Entry {
    /// Where the data begins.
    pub(super) fn data(&self) -> u64 {
        self.start + self.header.len() as u64
    }
}

/// The entries of an archive, its size and SHA-256.
pub(super) struct Entries {
    pub(super) list: Vec<Entry>,
    pub(super) size: u64,
    pub(super) digest: Sha256Digest,
    by_path: HashMap<Vec<u8>, usize>,
    by_digest: HashMap<Sha256Digest, usize>,
    by_stem: HashMap<Vec<u8>, Vec<usize>>,
}

impl Entries {
    /// Reads an archive to its end. Pieces cover it without gaps.
    pub(super) fn read(reader: impl Read, mut watch: impl FnMut() -> io::Result<()>) -> io::Result<Self> {
        let mut reader = HashingReader::new(reader);
        let mut list = Vec::new();
        loop {
            watch()?;
            let entry = read_entry(&mut reader)?;
            let last = entry.path.is_empty();
            if !last || !entry.header.is_empty() || entry.size > 0 {
                list.push(entry);
            }
            if last {
                break;
            }
        }
        let size = reader.count();
        let mut entries = Self {
            list,
            size,
            digest: reader.finish(),
            by_path: HashMap::new(),
            by_digest: HashMap::new(),
            by_stem: HashMap::new(),
        };
        for (at, entry) in entries.list.iter().enumerate() {
            entries.by_path.entry(entry.path.clone()).or_insert(at);
            if entry.size > 0 {
                entries.by_digest.entry(entry.digest).or_insert(at);
                entries.by_stem.entry(stem(&entry.path)).or_default().push(at);
            }
        }
        Ok(entries)
    }

    /// The entry of this name.
    pub(super) fn named(&self, path: &[u8]) -> Option<&Entry> {
        self.by_path.get(path).map(|at| &self.list[*at])
    }

    /// An entry with the same data.
    pub(super) fn same(&self, entry: &Entry) -> Option<&Entry> {
        let found = &self.list[*self.by_digest.get(&entry.digest)?];
        (found.size == entry.size).then_some(found)
    }

    /// The entry to compare `entry` with: of its name, else of its name with another version in
    /// it, the nearest in size.
    pub(super) fn relative(&self, entry: &Entry) -> Option<&Entry> {
        let named = self.named(&entry.path).filter(|found| found.size > 0);
        named.or_else(|| {
            let found = self.by_stem.get(&stem(&entry.path))?.iter().map(|at| &self.list[*at]);
            found.min_by_key(|found| found.size.abs_diff(entry.size))
        })
    }
}

/// A path without its digits: what remains alike when a version in it goes up.
fn stem(path: &[u8]) -> Vec<u8> {
    path.iter().copied().filter(|b| !b.is_ascii_digit()).collect()
}

/// The next entry; one without a path when the archive ends or is none, which takes in the rest.
fn read_entry<R: Read>(reader: &mut HashingReader<R>) -> io::Result<Entry> {
    let start = reader.count();
    let mut header = Vec::new();
    let mut path = Vec::new();
    let mut long_size = None;
    loop {
        let mut block = [0; BLOCK];
        let count = read_full(reader, &mut block)?;
        header.extend_from_slice(&block[..count]);
        let size = if count == BLOCK { size_of(&block) } else { None };
        let Some(size) = size else { return rest(reader, start, header) };
        match block[156] {
            kind @ (b'x' | b'g' | b'L' | b'K') => {
                let padded = size.next_multiple_of(BLOCK as u64);
                if padded > MAX_EXTENSION {
                    return rest(reader, start, header);
                }
                let at = header.len();
                reader.take(padded).read_to_end(&mut header)?;
                let data = header.get(at..at + size as usize).unwrap_or_default();
                match kind {
                    b'x' => extended(data, &mut path, &mut long_size),
                    b'L' => path = data.split(|b| *b == 0).next().unwrap_or_default().to_vec(),
                    _ => {}
                }
            }
            kind => {
                if path.is_empty() {
                    path = name_of(&block);
                }
                // Links and directories may state a size and have no data.
                let size = if matches!(kind, b'1'..=b'6') { 0 } else { long_size.unwrap_or(size) };
                let size = size.checked_next_multiple_of(BLOCK as u64).unwrap_or(0);
                let mut data = HashingReader::new(reader.take(size));
                io::copy(&mut data, &mut io::sink())?;
                let size = data.count();
                return Ok(Entry { path, start, header, size, digest: data.finish() });
            }
        }
    }
}

fn rest<R: Read>(reader: &mut HashingReader<R>, start: u64, header: Vec<u8>) -> io::Result<Entry> {
    let mut data = HashingReader::new(reader);
    io::copy(&mut data, &mut io::sink())?;
    Ok(Entry { path: Vec::new(), start, header, size: data.count(), digest: data.finish() })
}

fn read_full(reader: &mut impl Read, mut buffer: &mut [u8]) -> io::Result<usize> {
    let mut count = 0;
    while !buffer.is_empty() {
        match reader.read(buffer) {
            Ok(0) => break,
            Ok(n) => (count, buffer) = (count + n, &mut buffer[n..]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(count)
}

/// The size a header states; `None` for the end of an archive and for what is no header.
fn size_of(block: &[u8; BLOCK]) -> Option<u64> {
    if &block[257..262] != b"ustar" {
        return None;
    }
    let field = &block[124..136];
    if field[0] & 0x80 != 0 {
        return Some(u64::from_be_bytes(field[4..].try_into().ok()?));
    }
    let mut digits = field.iter().skip_while(|b| **b == b' ').take_while(|b| b.is_ascii_digit());
    digits.try_fold(0_u64, |value, digit| value.checked_mul(8)?.checked_add(u64::from(digit - b'0')))
}

fn name_of(block: &[u8; BLOCK]) -> Vec<u8> {
    let text = |field: &[u8]| field.split(|b| *b == 0).next().unwrap_or_default().to_vec();
    let (name, prefix) = (text(&block[..100]), text(&block[345..500]));
    // GNU's old format keeps times where POSIX has the prefix.
    let name = if prefix.is_empty() || block[262] != 0 { name } else { [&prefix[..], b"/", &name].concat() };
    if name.is_empty() { b".".to_vec() } else { name }
}

/// Path and size from the records of an extended header.
fn extended(mut data: &[u8], path: &mut Vec<u8>, size: &mut Option<u64>) {
    while let Some(space) = data.iter().position(|b| *b == b' ') {
        let length = std::str::from_utf8(&data[..space]).ok().and_then(|text| text.parse::<usize>().ok());
        let Some(length) = length.filter(|n| (space + 2..=data.len()).contains(n)) else { return };
        let record = &data[space + 1..length - 1];
        if let Some(value) = record.strip_prefix(b"path=") {
            *path = value.to_vec();
        } else if let Some(value) = record.strip_prefix(b"size=") {
            *size = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
        }
        data = &data[length..];
    }
}
