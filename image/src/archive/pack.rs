//! Packs a directory into an archive in one pass, with the same bytes for the same files.
//!
//! Directories come first, then packages' files, then the rest, in the order and the blocks of
//! [`super::plan`]. Times are clamped, names of owners left out, everything else sorted. A file whose
//! time is clamped was made while building, so it stands with the rest: packages' blocks stay what
//! they were.

use std::collections::{BTreeMap, HashSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Compression;
use super::cache::BlockCache;
use super::plan::shares;
use super::small::Member;
use super::survey::Survey;
use super::write::{Archive, Header, name};
use super::xz::{Blocks, Watch, XzOptions};
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

/// Packs everything below `root`, which must not change meanwhile.
pub fn pack<W: Write>(root: &Path, out: W, options: &PackOptions) -> Result<(W, Packed)> {
    let mut archive = Archive::new(out, options);
    let survey = Survey::of(root)?;
    for path in &survey.directories {
        archive.add(root, path)?;
    }
    let block = options.xz.block_size.max(1) as u64;
    let (owned, rest) = survey.units(&options.groups, options.epoch);
    for share in shares(owned, block).into_iter().chain(shares(rest, block)) {
        archive.end_block(share.code)?;
        for path in &share.files {
            archive.add(root, path)?;
        }
    }
    archive.finish()
}

/// Packs files held in memory, in the order of their names; time is the epoch.
pub fn pack_members<W: Write>(
    members: &BTreeMap<PathBuf, Member>,
    out: W,
    options: &PackOptions,
) -> Result<(W, Packed)> {
    let mut archive = Archive::new(out, options);
    let mut directories = HashSet::new();
    for (path, member) in members {
        let parents: Vec<_> = path.ancestors().skip(1).filter(|p| !p.as_os_str().is_empty()).collect();
        for parent in parents.into_iter().rev() {
            if directories.insert(parent) {
                let entry = Header { kind: b'5', mode: 0o755, mtime: options.epoch, ..Header::default() };
                archive.header(&name(parent, true), &entry)?;
            }
        }
        let size = member.data.len() as u64;
        let entry = Header { kind: b'0', mode: member.mode, mtime: options.epoch, size, ..Header::default() };
        archive.header(&name(path, false), &entry)?;
        archive.data(&mut member.data.as_slice(), size).map_err(Error::io(path))?;
    }
    archive.finish()
}
