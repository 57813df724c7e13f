//! Files with holes, as GNU tar's format 1.0 for extended headers has them: the header gives name and
//! size, the data begins with a map of what is not a hole.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;

use rustix::fs::SeekFrom;
use rustix::io::Errno;

use super::header::BLOCK;
use super::{entry_error, pax};
use crate::Result;

/// Holes begin and end at multiples of this.
const GRAIN: u64 = BLOCK as u64;
/// Digits of a number in a map.
const DIGITS: usize = 19;

/// Prefix of the records that describe a file with holes.
pub(super) const RECORDS: &str = "GNU.sparse.";

/// Bytes of a file that are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) offset: u64,
    pub(super) size: u64,
}

/// What is not a hole, in order. Where the file ends there may be an extent without bytes; after a hole there must.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Map {
    pub(super) extents: Vec<Extent>,
}

impl Map {
    /// Bytes that are there.
    pub(super) fn data(&self) -> u64 {
        self.extents.iter().map(|extent| extent.size).sum()
    }

    /// As it stands before the data, padded.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let numbers = self.extents.iter().flat_map(|extent| [extent.offset, extent.size]);
        let text =
            std::iter::once(self.extents.len() as u64).chain(numbers).map(|number| format!("{number}\n"));
        let mut bytes = text.collect::<String>().into_bytes();
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
        bytes
    }

    /// Reads a map of the file at `path` of `size` bytes, block by block with `next`, at most about
    /// `limit` bytes.
    pub(super) fn read(
        path: &[u8],
        size: u64,
        limit: u64,
        mut next: impl FnMut() -> Result<[u8; BLOCK]>,
    ) -> Result<Self> {
        let bad = |reason: &str| entry_error(path, format!("broken map of a sparse file: {reason}"));
        let mut bytes = Vec::new();
        let mut number = || -> Result<u64> {
            let mut value = 0;
            for digits in 0..=DIGITS {
                if bytes.is_empty() {
                    bytes = next()?.to_vec();
                    bytes.reverse();
                }
                match bytes.pop() {
                    Some(b'\n') if digits > 0 => return Ok(value),
                    Some(digit @ b'0'..=b'9') if digits < DIGITS => {
                        value = value * 10 + u64::from(digit - b'0');
                    }
                    _ => break,
                }
            }
            Err(bad("not a number"))
        };
        let count = number()?;
        // An extent takes at least four bytes.
        if count > limit / 4 {
            return Err(bad("it is too long"));
        }
        let mut extents = Vec::new();
        let mut end = 0;
        for left in (0..count).rev() {
            let extent = Extent { offset: number()?, size: number()? };
            if extent.offset < end || extent.size > size || extent.offset > size - extent.size {
                return Err(bad("its parts overlap or go beyond the end"));
            }
            // Writers differ in whether they would pad here.
            if left > 0 && !extent.size.is_multiple_of(GRAIN) && extent.offset + extent.size != size {
                return Err(bad("a part ends inside a block"));
            }
            end = extent.offset + extent.size;
            extents.push(extent);
        }
        if bytes.iter().any(|byte| *byte != 0) {
            return Err(bad("something follows it"));
        }
        Ok(Self { extents })
    }
}

/// Where the data of a file of `size` bytes lies, when it has holes.
pub(super) fn find(file: &File, size: u64) -> io::Result<Option<Map>> {
    let mut extents = Vec::new();
    let mut at = 0;
    while at < size {
        let offset = match rustix::fs::seek(file.as_fd(), SeekFrom::Data(at)) {
            // Nothing but a hole up to the end.
            Err(Errno::NXIO) => break,
            // Not every file system knows holes.
            Err(Errno::INVAL | Errno::OPNOTSUPP) => return rewind(file).map(|()| None),
            other => other?.min(size),
        };
        let end = rustix::fs::seek(file.as_fd(), SeekFrom::Hole(offset))?;
        let (offset, end) = (offset - offset % GRAIN, end.next_multiple_of(GRAIN).min(size));
        extents.push(Extent { offset, size: end - offset });
        at = end;
    }
    rewind(file)?;
    if extents == [(Extent { offset: 0, size })] {
        return Ok(None);
    }
    // Also after data, as GNU tar does.
    extents.push(Extent { offset: size, size: 0 });
    Ok(Some(Map { extents }))
}

fn rewind(file: &File) -> io::Result<()> {
    rustix::fs::seek(file.as_fd(), SeekFrom::Start(0))?;
    Ok(())
}

/// The records that give a sparse file's name and size.
pub(super) fn describe(records: &mut Vec<u8>, name: &[u8], size: u64) {
    for (key, value) in [("major", &b"1"[..]), ("minor", b"0"), ("name", name)] {
        pax::push(records, &format!("{RECORDS}{key}"), value);
    }
    pax::push(records, &format!("{RECORDS}realsize"), size.to_string().as_bytes());
}

/// The name under which readers that know no holes unpack map and data.
pub(super) fn stand_in(name: &[u8]) -> Vec<u8> {
    let slash = name.iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1);
    [&name[..slash], b"GNUSparseFile.0/", &name[slash..]].concat()
}

/// As records have them: a path, decimal digits.
type NameAndSize = (Vec<u8>, Vec<u8>);

/// Name and size from the records, where they describe a sparse file; records used are removed.
pub(super) fn described(records: &mut pax::Records) -> std::result::Result<Option<NameAndSize>, String> {
    let mut take = |key: &str| records.remove(&format!("{RECORDS}{key}"));
    let version = (take("major"), take("minor"));
    let described = match version {
        (None, None) => None,
        (Some(major), Some(minor)) if (&major[..], &minor[..]) == (b"1", b"0") => {
            let missing = || "a sparse entry without name or size".to_owned();
            Some((take("name").ok_or_else(missing)?, take("realsize").ok_or_else(missing)?))
        }
        _ => {
            return Err(
                "sparse entries of this version are not accepted; pack with --sparse-version=1.0".into()
            );
        }
    };
    match records.keys().find(|key| key.starts_with(RECORDS)) {
        Some(key) => {
            Err(format!("sparse entries with {key} are not accepted; pack with --sparse-version=1.0"))
        }
        None => Ok(described),
    }
}
