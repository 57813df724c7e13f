//! rpm: header blobs in `rpmdb.sqlite`, or in `Packages.db` (openSUSE's ndb).
//!
//! Read without rpm, since what is inside may be for another architecture. The older Berkeley
//! database of CentOS 7 and 8 is not read: such images have no package list.

use std::io::{self, Read};

use rusqlite::{Connection, OpenFlags};

use super::Entry;
use crate::rootfs::Rootfs;
use crate::{Error, Result};

/// Largest database read, in bytes.
const MAX_SIZE: u64 = 1 << 30;

pub(super) fn read(rootfs: &Rootfs) -> Result<Vec<Entry>> {
    for place in ["/usr/lib/sysimage/rpm", "/var/lib/rpm"] {
        let sqlite = format!("{place}/rpmdb.sqlite");
        if rootfs.exists(&sqlite)? {
            let broken =
                |e: rusqlite::Error| Error::Refused(format!("{sqlite}: rpm's database is broken: {e}"));
            return Ok(entries(&self::sqlite(rootfs, &sqlite)?.map_err(broken)?));
        }
        let ndb = format!("{place}/Packages.db");
        if let Some(file) = rootfs.open_file(&ndb)? {
            let mut data = Vec::new();
            file.take(MAX_SIZE).read_to_end(&mut data).map_err(Error::io(&ndb))?;
            return Ok(entries(&self::ndb(&data)));
        }
    }
    Ok(Vec::new())
}

fn entries(blobs: &[Vec<u8>]) -> Vec<Entry> {
    blobs.iter().filter_map(|blob| entry(blob)).collect()
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
/// of 16 bytes that name a package and where its blob is, in units of 16 bytes.
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
    let blob = |slot: usize| {
        let (magic, package, block) = (data.get(slot..slot + 4)?, word(slot + 4)?, word(slot + 8)?);
        let start = (block as usize).checked_mul(16)?;
        if magic != b"Slot" || package == 0 || data.get(start..start + 4)? != b"BlbS" {
            return None;
        }
        let length = word(start + 12)? as usize;
        data.get(start + 16..(start + 16).checked_add(length)?).map(<[u8]>::to_vec)
    };
    (32..end).step_by(16).filter_map(blob).collect()
}

const NAME: u32 = 1000;
const VERSION: u32 = 1001;
const RELEASE: u32 = 1002;
const EPOCH: u32 = 1003;
const ARCH: u32 = 1022;
const DIRINDEXES: u32 = 1116;
const BASENAMES: u32 = 1117;
const DIRNAMES: u32 = 1118;

fn entry(blob: &[u8]) -> Option<Entry> {
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
