//! rpm: header blobs in `rpmdb.sqlite`, in `Packages.db` (openSUSE's ndb), or in `Packages` (the
//! Berkeley database of CentOS 7 and 8).
//!
//! Read without rpm, since what is inside may be for another architecture.

use std::io::{self, Read};

use rusqlite::{Connection, OpenFlags};

use super::{Entry, berkeley};
use crate::rootfs::Rootfs;
use crate::{Error, Result};

/// Largest database read, in bytes.
const MAX_SIZE: u64 = 1 << 30;
/// All names of files together, in bytes. A header names each directory once, however many files
/// are in it, so a small one could unfold to any size.
const MAX_NAMES: usize = 256 << 20;

pub(super) fn read(rootfs: &Rootfs) -> Result<Vec<Entry>> {
    for place in ["/usr/lib/sysimage/rpm", "/var/lib/rpm"] {
        let sqlite = format!("{place}/rpmdb.sqlite");
        if rootfs.exists(&sqlite)? {
            let broken =
                |e: rusqlite::Error| Error::Refused(format!("{sqlite}: rpm's database is broken: {e}"));
            return Ok(entries(&self::sqlite(rootfs, &sqlite)?.map_err(broken)?));
        }
        for (name, blobs) in [("Packages.db", ndb as fn(&[u8]) -> _), ("Packages", berkeley::values)] {
            let path = format!("{place}/{name}");
            if let Some(file) = rootfs.open_file(&path)? {
                let mut data = Vec::new();
                file.take(MAX_SIZE).read_to_end(&mut data).map_err(Error::io(&path))?;
                return Ok(entries(&blobs(&data)));
            }
        }
    }
    Ok(Vec::new())
}

fn entries(blobs: &[Vec<u8>]) -> Vec<Entry> {
    let mut left = MAX_NAMES;
    blobs.iter().filter_map(|blob| entry(blob, &mut left)).collect()
}

/// The blobs of a copy: sqlite opens by name, and names in the root may lead anywhere.
pub(super) fn sqlite(rootfs: &Rootfs, path: &str) -> Result<rusqlite::Result<Vec<Vec<u8>>>> {
    let dir = tempfile::tempdir().map_err(Error::io("temporary directory"))?;
    let copy = dir.path().join("rpmdb.sqlite");
    for suffix in ["", "-wal"] {
        let Some(file) = rootfs.open_file(&format!("{path}{suffix}"))? else { continue };
        let to = dir.path().join(format!("rpmdb.sqlite{suffix}"));
        let mut to = std::fs::File::create(&to).map_err(Error::io(&to))?;
        io::copy(&mut file.take(MAX_SIZE), &mut to).map_err(Error::io(path))?;
    }
    let blobs = || {
        let database = Connection::open_with_flags(&copy, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        database.pragma_update(None, "trusted_schema", false)?;
        // A view of this name could be anything.
        let tables = "SELECT count(*) FROM sqlite_master WHERE name = 'Packages' AND type = 'table'";
        if database.query_row(tables, [], |row| row.get::<_, i64>(0))? != 1 {
            return Ok(Vec::new());
        }
        let mut query = database.prepare("SELECT blob FROM Packages ORDER BY hnum")?;
        query.query_map([], |row| row.get(0))?.collect()
    };
    Ok(blobs())
}

/// The blobs of rpm's own format (rpm's `lib/backend/ndb/rpmpkg.c`): a header of 32 bytes, slots
/// of 16 bytes that name a package and where its blob is, in units of 16 bytes. Together they are
/// never larger than `data`.
fn ndb(data: &[u8]) -> Vec<Vec<u8>> {
    const PAGE: usize = 4096;
    let word = |at: usize| -> Option<u32> {
        data.get(at..at + 4).map(|bytes| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    };
    if data.get(..4) != Some(b"RpmP") {
        return Vec::new();
    }
    let pages = word(12).unwrap_or_default() as usize;
    let end = pages.saturating_mul(PAGE).min(data.len());
    let mut left = data.len();
    let mut blob = |slot: usize| {
        let (magic, package, block) = (data.get(slot..slot + 4)?, word(slot + 4)?, word(slot + 8)?);
        let start = (block as usize).checked_mul(16)?;
        if magic != b"Slot" || package == 0 || data.get(start..start + 4)? != b"BlbS" {
            return None;
        }
        let length = word(start + 12)? as usize;
        left = left.checked_sub(length)?;
        data.get(start + 16..(start + 16).checked_add(length)?).map(<[u8]>::to_vec)
    };
    (32..end).step_by(16).filter_map(&mut blob).collect()
}

const NAME: u32 = 1000;
const VERSION: u32 = 1001;
const RELEASE: u32 = 1002;
const EPOCH: u32 = 1003;
const ARCH: u32 = 1022;
const DIRINDEXES: u32 = 1116;
const BASENAMES: u32 = 1117;
const DIRNAMES: u32 = 1118;

/// The package of a header; its files as long as `left` bytes last for their names.
fn entry(blob: &[u8], left: &mut usize) -> Option<Entry> {
    let header = Header::new(blob)?;
    let text = |tag| header.texts(tag).next().unwrap_or_default();
    let name = text(NAME);
    // Keys the database trusts are kept like packages.
    if name.is_empty() || name == "gpg-pubkey" {
        return None;
    }
    let epoch = header.numbers(EPOCH).next().map(|epoch| format!("{epoch}:")).unwrap_or_default();
    let mut entry = Entry {
        version: format!("{epoch}{}-{}", text(VERSION), text(RELEASE)),
        architecture: text(ARCH),
        name,
        files: Vec::new(),
    };
    let directories: Vec<_> = header.texts(DIRNAMES).collect();
    for (name, index) in header.texts(BASENAMES).zip(header.numbers(DIRINDEXES)) {
        if let Some(directory) = directories.get(index as usize) {
            let Some(rest) = left.checked_sub(directory.len() + name.len()) else { break };
            *left = rest;
            entry.add(&format!("{directory}{name}"));
        }
    }
    Some(entry)
}

/// A header as rpm keeps it: two counts, entries of tag, type, offset and count, then the data;
/// all numbers big-endian.
struct Header<'b> {
    index: &'b [u8],
    data: &'b [u8],
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4).map(|bytes| u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}

impl<'b> Header<'b> {
    fn new(blob: &'b [u8]) -> Option<Self> {
        let entries = (number(blob, 0)? as usize).checked_mul(16)?;
        let index = blob.get(8..entries.checked_add(8)?)?;
        Some(Self { index, data: &blob[8 + entries..] })
    }

    /// The data of a tag and how many values it has.
    fn find(&self, tag: u32) -> Option<(&'b [u8], usize)> {
        let entry = self.index.chunks_exact(16).find(|entry| number(entry, 0) == Some(tag))?;
        let data = self.data.get(number(entry, 8)? as usize..)?;
        Some((data, number(entry, 12)? as usize))
    }

    fn texts(&self, tag: u32) -> impl Iterator<Item = String> + use<'b> {
        let (data, count) = self.find(tag).unwrap_or_default();
        data.split(|byte| *byte == 0).take(count).map(|text| String::from_utf8_lossy(text).into_owned())
    }

    fn numbers(&self, tag: u32) -> impl Iterator<Item = u32> + use<'b> {
        let (data, count) = self.find(tag).unwrap_or_default();
        data.chunks_exact(4).take(count).filter_map(|bytes| number(bytes, 0))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A header with these entries (tag, offset, count) and data.
    fn header(entries: &[(u32, u32, u32)], data: &[u8]) -> Vec<u8> {
        let head = [entries.len() as u32, data.len() as u32];
        let index = entries.iter().flat_map(|(tag, offset, count)| [*tag, 6, *offset, *count]);
        let mut blob: Vec<u8> = head.into_iter().chain(index).flat_map(u32::to_be_bytes).collect();
        blob.extend(data);
        blob
    }

    fn tag() -> impl Strategy<Value = u32> {
        prop::sample::select(vec![NAME, VERSION, EPOCH, DIRINDEXES, BASENAMES, DIRNAMES])
    }

    proptest! {
        #[test]
        fn any_header_is_survived(
            entries in prop::collection::vec((tag(), prop_oneof![0..40_u32, any::<u32>()], any::<u32>()), 0..8),
            data in prop::collection::vec(prop_oneof![Just(0), any::<u8>()], 0..200),
            noise in prop::collection::vec(any::<u8>(), 0..100),
        ) {
            let mut left = 1000;
            for blob in [header(&entries, &data), noise] {
                if let Some(entry) = entry(&blob, &mut left) {
                    prop_assert!(entry.files.iter().map(|file| file.as_os_str().len()).sum::<usize>() <= 1000);
                }
            }
        }

        /// Pages of noise in which heads and items look right now and then.
        #[test]
        fn any_database_is_survived(
            words in prop::collection::vec(prop_oneof![0..8_u32, 500..520_u32, any::<u32>()], 0..900),
            kinds in prop::collection::vec(prop::sample::select(vec![2_u8, 7, 13, 0]), 8),
        ) {
            let mut data: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            for (page, kind) in data.chunks_exact_mut(512).zip(kinds) {
                page[25] = kind;
            }
            data.splice(..data.len().min(24), [0; 12].into_iter().chain(
                [0x0006_1561_u32, 9, 512].iter().flat_map(|word| word.to_le_bytes())));
            let total = |values: &[Vec<u8>]| values.iter().map(Vec::len).sum::<usize>();
            prop_assert!(total(&berkeley::values(&data)) <= data.len());
            data.splice(..16, [b"RpmP".to_vec(), vec![1; 12]].concat());
            prop_assert!(total(&ndb(&data)) <= data.len());
        }
    }

    #[test]
    fn one_directory_is_not_unfolded_without_end() {
        let (count, long) = (2000_u32, 100_000);
        let mut data = b"n\0".to_vec();
        data.extend(vec![b'd'; long]);
        data.push(0);
        let names = data.len() as u32;
        data.extend(vec![0; count as usize]);
        let numbers = data.len() as u32;
        data.extend(vec![0; 4 * count as usize]);
        let entries =
            [(NAME, 0, 1), (DIRNAMES, 2, 1), (BASENAMES, names, count), (DIRINDEXES, numbers, count)];
        let mut left = 1_000_000;
        let found = entry(&header(&entries, &data), &mut left).unwrap();
        assert_eq!(found.files.len(), 1_000_000 / long);
    }
}
