//! Small archives read into memory: `meta.tar.xz`, `lxd.tar.xz`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Read;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use super::reader::{Kind, Reader};
use super::{Limits, decoder, entry_error};
use crate::Result;

/// Largest sum of all members, in bytes.
const MAX_SIZE: u64 = 4 << 20;

/// A file of a small archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Permission bits.
    pub mode: u32,
    /// Contents.
    pub data: Vec<u8>,
}

impl Member {
    /// A file of mode 0644.
    pub fn file(data: impl Into<Vec<u8>>) -> Self {
        Self { mode: 0o644, data: data.into() }
    }
}

/// Reads every file of an archive of at most 4 MiB, as strictly as [`super::extract`]. Anything
/// but files and directories is an error.
pub fn read_small(reader: impl Read + Send) -> Result<BTreeMap<PathBuf, Member>> {
    let limits = Limits { entries: 4096, unpacked: MAX_SIZE, memory: 128 << 20, ..Limits::default() };
    let mut archive = Reader::new(decoder(reader, &limits)?, &limits);
    let mut members = BTreeMap::new();
    while let Some(entry) = archive.next_entry()? {
        match entry.kind {
            Kind::Directory => continue,
            Kind::File => {}
            _ => return Err(entry_error(&entry.path, "only files and directories are expected here")),
        }
        let mut data = vec![0; entry.size as usize];
        let mut at = 0;
        while at < data.len() {
            at += archive.data(&mut data[at..])?;
        }
        let path = PathBuf::from(OsString::from_vec(entry.path.clone()));
        if members.insert(path, Member { mode: entry.mode, data }).is_some() {
            return Err(entry_error(&entry.path, "it stands in the archive twice"));
        }
    }
    Ok(members)
}
