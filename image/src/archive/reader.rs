//! Reads a tar stream entry by entry and believes nothing.

use std::io::Read;

use super::header::{BLOCK, RawHeader};
use super::{Limits, acl, archive_error, entry_error, pax, sparse};
use crate::Result;

const MAX_PATH: usize = 4095;
const MAX_PART: usize = 255;
/// Seconds of the year 9999's end; times beyond are nonsense.
const MAX_TIME: i64 = 253_402_300_799;

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Regular file.
    File,
    /// Directory.
    Directory,
    /// Symbolic link with its target, which may point anywhere: it is never followed.
    Symlink(Vec<u8>),
    /// Another name for an entry before it.
    HardLink(Vec<u8>),
    /// Character device: major, minor.
    CharDevice(u32, u32),
    /// Block device: major, minor.
    BlockDevice(u32, u32),
    /// Named pipe.
    Fifo,
}

/// One entry, checked: its path is relative, without `..`, and every number is in range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Path below the target, parts joined by `/`; empty for the target itself.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time, seconds since 1970; may be negative.
    pub mtime: i64,
    /// Its nanoseconds, 0 to 999,999,999.
    pub mtime_nanos: u32,
    /// Bytes of a regular file.
    pub size: u64,
    /// Extended attributes: name and value.
    pub xattrs: Vec<(String, Vec<u8>)>,
}

/// A strict tar reader. Call [`Reader::next_entry`], read its data with [`Reader::data`], repeat.
pub struct Reader<R> {
    inner: R,
    limits: Limits,
    /// Whether `.wh.` names, by which layers take away what lies below, are entries.
    whiteouts: bool,
    /// Bytes of the present entry's data and padding not read yet, and of the hole before them.
    left: u64,
    padding: u64,
    hole: u64,
    /// What follows: a hole and data each, the last first.
    parts: Vec<(u64, u64)>,
    entries: u64,
    unpacked: u64,
}

#[derive(Default)]
struct Extensions {
    records: Option<pax::Records>,
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
}

impl<R: Read> Reader<R> {
    /// Reads an uncompressed archive.
    pub fn new(inner: R, limits: &Limits) -> Self {
        Self {
            inner,
            limits: limits.clone(),
            whiteouts: false,
            left: 0,
            padding: 0,
            hole: 0,
            parts: Vec::new(),
            entries: 0,
            unpacked: 0,
        }
    }

    /// Reads an uncompressed layer of an OCI image: whiteouts are entries like others.
    pub(super) fn of_layer(inner: R, limits: &Limits) -> Self {
        Self { whiteouts: true, ..Self::new(inner, limits) }
    }

    /// The next entry, or `None` at the archive's proper end, after which nothing may follow.
    pub fn next_entry(&mut self) -> Result<Option<Entry>> {
        self.skip_data()?;
        let mut extensions = Extensions::default();
        loop {
            let Some(raw) = self.header()? else {
                let dangling =
                    extensions.records.is_some() || extensions.path.is_some() || extensions.link.is_some();
                if dangling {
                    return Err(archive_error("it ends after an extended header"));
                }
                return self.finish().map(|()| None);
            };
            self.entries += 1;
            if self.entries > self.limits.entries {
                return Err(archive_error(format!("more than {} entries", self.limits.entries)));
            }
            let twice = || archive_error("two extended headers for one entry");
            match raw.kind {
                b'x' => {
                    let records = pax::parse(&self.extension(raw.size)?)?;
                    if extensions.records.replace(records).is_some() {
                        return Err(twice());
                    }
                }
                b'g' => {
                    let records = pax::parse(&self.extension(raw.size)?)?;
                    if records.keys().any(|key| key != "comment") {
                        return Err(archive_error("a global extended header changes entries"));
                    }
                }
                b'L' | b'K' => {
                    let name = long_name(self.extension(raw.size)?)?;
                    let slot = if raw.kind == b'L' { &mut extensions.path } else { &mut extensions.link };
                    if slot.replace(name).is_some() {
                        return Err(twice());
                    }
                }
                _ => return self.entry(raw, extensions).map(Some),
            }
        }
    }

    /// Reads the present entry's data; holes are zeros.
    pub fn data(&mut self, buffer: &mut [u8]) -> Result<usize> {
        self.next_part();
        if self.hole > 0 {
            let count = buffer.len().min(usize::try_from(self.hole).unwrap_or(usize::MAX));
            buffer[..count].fill(0);
            self.hole -= count as u64;
            return Ok(count);
        }
        self.stored(buffer)
    }

    /// Bytes of the hole that comes next in the present entry's data.
    pub fn hole(&mut self) -> u64 {
        self.next_part();
        self.hole
    }

    /// Passes over the hole that comes next; returns its bytes.
    pub fn skip_hole(&mut self) -> u64 {
        self.next_part();
        std::mem::take(&mut self.hole)
    }

    /// Where the present entry's data lies, if it is a file with holes; before any of it is read.
    pub(super) fn map(&self) -> Option<sparse::Map> {
        let mut end = 0;
        let extents = self.parts.iter().rev().map(|&(hole, size)| {
            let offset = end + hole;
            end = offset + size;
            sparse::Extent { offset, size }
        });
        let mut extents: Vec<_> = extents.collect();
        // The last says where the file ends.
        extents.pop_if(|last| last.size == 0 && self.parts[0].0 == 0);
        (!self.parts.is_empty()).then_some(sparse::Map { extents })
    }

    fn next_part(&mut self) {
        while self.hole == 0 && self.left == 0 {
            let Some(part) = self.parts.pop() else { return };
            (self.hole, self.left) = part;
        }
    }

    /// Reads data the archive holds.
    fn stored(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let want = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if want == 0 {
            return Ok(0);
        }
        let count = self.inner.read(&mut buffer[..want]).map_err(|e| archive_error(e.to_string()))?;
        if count == 0 {
            return Err(archive_error("it is cut off inside an entry"));
        }
        self.left -= count as u64;
        Ok(count)
    }

    fn entry(&mut self, raw: RawHeader, extensions: Extensions) -> Result<Entry> {
        let mut records = extensions.records.unwrap_or_default();
        let sparse = sparse::described(&mut records).map_err(|reason| entry_error(&raw.path, reason))?;
        let real_size = sparse.map(|(name, size)| {
            records.insert("path".into(), name);
            size
        });
        let long = |slot: Option<Vec<u8>>, key: &str, short: Vec<u8>| match (slot, records.get(key)) {
            (Some(_), Some(_)) => Err(archive_error(format!("two extended headers state a {key}"))),
            (Some(value), None) => Ok(value),
            (None, Some(value)) => Ok(value.clone()),
            (None, None) => Ok(short),
        };
        let raw_path = long(extensions.path, "path", raw.path)?;
        let link = long(extensions.link, "linkpath", raw.link)?;
        let bad = |reason: String| entry_error(&raw_path, reason);
        let path = clean_path(&raw_path, self.limits.depth).map_err(|reason| bad(reason.into()))?;
        if !self.whiteouts && is_whiteout(&path) {
            return Err(bad("it is a whiteout of another format".into()));
        }
        if records.keys().any(|key| key.starts_with("GNU.volume.")) {
            return Err(bad("it is a part of an archive of several volumes".into()));
        }
        let size = decimal(&records, "size", raw.size).map_err(bad)?;
        let size = u64::try_from(size).map_err(|_| bad("negative size".into()))?;
        let device = |n: i64| u32::try_from(n).map_err(|_| bad("bad device number".into()));
        let kind = match raw.kind {
            b'0' | 0 | b'7' if raw_path.ends_with(b"/") => return Err(bad("a file's name ends in /".into())),
            b'0' | 0 | b'7' => Kind::File,
            b'1' => Kind::HardLink(
                clean_path(&link, self.limits.depth).map_err(|r| bad(format!("hard link target: {r}")))?,
            ),
            b'2' => Kind::Symlink(symlink_target(&link).map_err(|r| bad(r.into()))?),
            b'3' => Kind::CharDevice(device(raw.major)?, device(raw.minor)?),
            b'4' => Kind::BlockDevice(device(raw.major)?, device(raw.minor)?),
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            other => return Err(bad(format!("entries of type {:?} are not accepted", char::from(other)))),
        };
        if kind != Kind::File && size != 0 {
            return Err(bad("only files may have data".into()));
        }
        if path.is_empty() && kind != Kind::Directory {
            return Err(bad("the root must be a directory".into()));
        }
        let (mtime, mtime_nanos) = time(&records, raw.mtime).map_err(bad)?;
        let id = |key: &str, value: i64| {
            let value = decimal(&records, key, value).map_err(bad)?;
            // The highest id means "no change" to chown.
            u32::try_from(value)
                .ok()
                .filter(|id| *id != u32::MAX)
                .ok_or_else(|| bad(format!("{key} {value} is out of range")))
        };
        let mut entry = Entry {
            uid: id("uid", raw.uid)?,
            gid: id("gid", raw.gid)?,
            mode: mode(raw.mode).ok_or_else(|| bad("absurd mode".into()))?,
            mtime,
            mtime_nanos,
            size,
            xattrs: xattrs(&records, self.limits.xattrs).map_err(bad)?,
            path,
            kind,
        };
        self.expect_data(size)?;
        if let Some(real_size) = real_size {
            self.sparse(&mut entry, &real_size)?;
        }
        Ok(entry)
    }

    /// The entry's data is a map, then what is between holes.
    fn sparse(&mut self, entry: &mut Entry, real_size: &[u8]) -> Result<()> {
        let bad = |reason: &str| entry_error(&entry.path, reason);
        let records = pax::Records::from([("size".into(), real_size.to_vec())]);
        let size = decimal(&records, "size", 0).map_err(|reason| bad(&reason))?;
        let size = u64::try_from(size).map_err(|_| bad("negative size"))?;
        if entry.kind != Kind::File {
            return Err(bad("only files may have holes"));
        }
        self.account(size.saturating_sub(entry.size))?;
        let map = sparse::Map::read(&entry.path, size, self.limits.header, || {
            let mut block = [0; BLOCK];
            let mut at = 0;
            while at < BLOCK {
                match self.stored(&mut block[at..])? {
                    0 => return Err(archive_error("the map of a sparse file is cut off")),
                    count => at += count,
                }
            }
            Ok(block)
        })?;
        if map.data() != self.left {
            return Err(bad("the map of a sparse file does not fit its data"));
        }
        self.left = 0;
        let mut end = 0;
        for extent in &map.extents {
            self.parts.push((extent.offset - end, extent.size));
            end = extent.offset + extent.size;
        }
        self.parts.push((size - end, 0));
        self.parts.reverse();
        entry.size = size;
        Ok(())
    }

    fn account(&mut self, size: u64) -> Result<()> {
        self.unpacked = self.unpacked.saturating_add(size);
        if self.unpacked > self.limits.unpacked {
            return Err(archive_error(format!("more than {} bytes unpacked", self.limits.unpacked)));
        }
        Ok(())
    }

    fn expect_data(&mut self, size: u64) -> Result<()> {
        self.account(size)?;
        self.left = size;
        self.padding = size.next_multiple_of(BLOCK as u64) - size;
        Ok(())
    }

    fn header(&mut self) -> Result<Option<RawHeader>> {
        let mut block = [0; BLOCK];
        self.read_exact(&mut block)?;
        if block.iter().any(|b| *b != 0) {
            return RawHeader::parse(&block).map(Some);
        }
        self.read_exact(&mut block)?;
        if block.iter().any(|b| *b != 0) {
            return Err(archive_error("it ends with a single zero block, or in the middle"));
        }
        Ok(None)
    }

    /// After the end marker: zero padding only, and the decompressor's own end.
    fn finish(&mut self) -> Result<()> {
        let mut buffer = [0; 8192];
        loop {
            match self.inner.read(&mut buffer).map_err(|e| archive_error(e.to_string()))? {
                0 => return Ok(()),
                count if buffer[..count].iter().any(|b| *b != 0) => {
                    return Err(archive_error("there is data after its end"));
                }
                _ => {}
            }
        }
    }

    fn extension(&mut self, size: i64) -> Result<Vec<u8>> {
        let size = u64::try_from(size).ok().filter(|size| *size <= self.limits.header);
        let size = size.ok_or_else(|| archive_error("an extended header is too large"))?;
        let mut data = vec![0; size as usize];
        self.read_exact(&mut data)?;
        self.padding = size.next_multiple_of(BLOCK as u64) - size;
        self.skip_data()?;
        Ok(data)
    }

    fn skip_data(&mut self) -> Result<()> {
        let mut buffer = [0; 8192];
        self.next_part();
        while self.hole > 0 || self.left > 0 {
            self.hole = 0;
            self.stored(&mut buffer)?;
            self.next_part();
        }
        let padding = std::mem::take(&mut self.padding) as usize;
        self.read_exact(&mut buffer[..padding])
    }

    fn read_exact(&mut self, buffer: &mut [u8]) -> Result<()> {
        self.inner.read_exact(buffer).map_err(|e| match e.kind() {
            std::io::ErrorKind::UnexpectedEof => archive_error("it is cut off"),
            _ => archive_error(e.to_string()),
        })
    }
}

fn long_name(mut name: Vec<u8>) -> Result<Vec<u8>> {
    if name.last() == Some(&0) {
        name.pop();
    }
    if name.is_empty() || name.contains(&0) {
        return Err(archive_error("a long name is empty or holds a NUL"));
    }
    Ok(name)
}

/// Parts joined by single slashes, without `.`; refuses everything that could lead elsewhere.
fn clean_path(path: &[u8], depth: usize) -> std::result::Result<Vec<u8>, &'static str> {
    if path.is_empty() {
        return Err("its name is empty");
    }
    if path[0] == b'/' {
        return Err("its name is absolute");
    }
    if path.len() > MAX_PATH || path.contains(&0) {
        return Err("its name is too long or holds a NUL");
    }
    let mut parts = Vec::new();
    for part in path.split(|b| *b == b'/').filter(|part| !part.is_empty() && *part != b".") {
        if part == b".." {
            return Err("its name holds ..");
        }
        if part.len() > MAX_PART {
            return Err("a part of its name is longer than 255 bytes");
        }
        parts.push(part);
    }
    if parts.len() > depth {
        return Err("it lies too deep");
    }
    Ok(parts.join(&b'/'))
}

fn is_whiteout(path: &[u8]) -> bool {
    path.rsplit(|b| *b == b'/').next().is_some_and(|name| name.starts_with(b".wh."))
}

fn symlink_target(link: &[u8]) -> std::result::Result<Vec<u8>, &'static str> {
    if link.is_empty() || link.len() > MAX_PATH || link.contains(&0) {
        return Err("its link target is empty, too long or holds a NUL");
    }
    Ok(link.to_vec())
}

fn mode(raw: i64) -> Option<u32> {
    // Old tars keep the file type in the upper bits.
    u32::try_from(raw).ok().filter(|mode| *mode <= 0o177_777).map(|mode| mode & 0o7777)
}

fn decimal(records: &pax::Records, key: &str, fallback: i64) -> std::result::Result<i64, String> {
    let Some(value) = records.get(key) else { return Ok(fallback) };
    let plain = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(value).ok().filter(|_| plain);
    text.and_then(|t| t.parse().ok()).ok_or_else(|| format!("broken {key} in its extended header"))
}

/// Seconds and nanoseconds; a pax time is a decimal fraction and may be negative.
fn time(records: &pax::Records, fallback: i64) -> std::result::Result<(i64, u32), String> {
    let broken = || "broken mtime".to_owned();
    let (seconds, nanos) = match records.get("mtime") {
        None => (fallback, 0),
        Some(value) => {
            let text = std::str::from_utf8(value).map_err(|_| broken())?;
            let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
            if !fraction.bytes().all(|b| b.is_ascii_digit()) || whole.starts_with('+') {
                return Err(broken());
            }
            let seconds: i64 = whole.parse().map_err(|_| broken())?;
            let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
            let nanos: u32 = digits.parse().map_err(|_| broken())?;
            match (whole.starts_with('-'), nanos) {
                (true, 1..) => (seconds - 1, 1_000_000_000 - nanos),
                _ => (seconds, nanos),
            }
        }
    };
    if seconds.abs() > MAX_TIME {
        return Err("absurd modification time".into());
    }
    Ok((seconds, nanos))
}

/// Attributes to set. Another host's security labels are left out; those that could reach into
/// the unpacking kernel are refused.
fn xattrs(records: &pax::Records, limit: usize) -> std::result::Result<Vec<(String, Vec<u8>)>, String> {
    let mut xattrs = Vec::new();
    for (key, value) in records {
        let Some(name) = pax::attribute_name(key) else { continue };
        let wanted = name == "security.capability"
            || name.starts_with("user.")
            || matches!(name.as_str(), "system.posix_acl_access" | "system.posix_acl_default");
        if wanted {
            xattrs.push((name, value.clone()));
        } else if !name.starts_with("security.") || name.contains('\0') {
            return Err(format!("extended attribute {name:?} is not accepted"));
        }
    }
    acl::attributes(records, &mut xattrs)?;
    if xattrs.len() > limit {
        return Err(format!("more than {limit} extended attributes"));
    }
    Ok(xattrs)
}
