//! Archives: strict reading, safe unpacking, reproducible packing.
//!
//! Whatever comes in is hostile until it lies unpacked; see [`extract`]. What goes out has the
//! same bytes for the same files, see [`pack`].

mod acl;
mod block;
mod cache;
mod compress;
mod decode;
mod extract;
mod header;
mod inspect;
mod layer;
mod pack;
mod pax;
mod plan;
mod reader;
mod shift;
mod small;
mod sparse;
mod survey;
mod tree;
mod unify;
mod write;
mod writeback;
mod xz;

use crate::Error;

pub use cache::{BlockCache, Pruned};
pub use decode::decoder;
pub use extract::{Devices, ExtractOptions, Extracted, Ownership, extract};
pub use inspect::{Contents, inspect};
pub use layer::extract_layer;
pub use pack::{FileGroup, Layout, PackOptions, Packed, Sink, pack, pack_each, pack_members};
pub use reader::{Entry, Kind, Reader};
pub use small::{Member, read_small};
pub use unify::unify;
pub use xz::{Bcj, Blocks, Watch, XzOptions, XzWriter};

/// How an archive is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip (RFC 1952).
    Gzip,
    /// Zstandard (RFC 8878).
    Zstd,
    /// xz.
    Xz,
}

impl Compression {
    /// Tells it by the first bytes of a file; six are enough.
    pub fn detect(start: &[u8]) -> Self {
        match start {
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            [0x1f, 0x8b, ..] => Self::Gzip,
            // A frame, or a skippable one (RFC 8878, section 3.1).
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            _ => Self::None,
        }
    }
}

/// Bounds on what an archive may cost its reader.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Entries, so also inodes.
    pub entries: u64,
    /// Bytes after decompression.
    pub unpacked: u64,
    /// Bytes of one extended header.
    pub header: u64,
    /// Parts of a path.
    pub depth: usize,
    /// Extended attributes of one entry.
    pub xattrs: usize,
    /// Bytes a decompressor may use.
    pub memory: u64,
    /// Threads of a decompressor, each for a block of its own; as many as `memory` allows.
    pub threads: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            entries: 200_000,
            unpacked: 32 << 30,
            header: 1 << 20,
            depth: 128,
            xattrs: 64,
            memory: 512 << 20,
            threads: std::thread::available_parallelism().map_or(1, |count| count.get().min(8)),
        }
    }
}

/// An archive error that names an entry.
fn entry_error(path: &[u8], reason: impl Into<String>) -> Error {
    Error::Archive { entry: path.escape_ascii().to_string(), reason: reason.into() }
}

/// An archive error that concerns the whole file.
fn archive_error(reason: impl Into<String>) -> Error {
    Error::Archive { entry: String::new(), reason: reason.into() }
}
