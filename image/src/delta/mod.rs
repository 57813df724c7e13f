//! Deltas: from the root file system of one image to that of a later one.
//!
//! A delta works on the uncompressed archives, where a file that did not change is the same bytes
//! again. Entries are compared with those of the same name in the base: what is equal is copied,
//! what changed is described by its differences, and in machine code the addresses that changed
//! only because code moved are foretold on both sides (`predict`). docs/formats.md has the
//! format.

mod apply;
mod container;
mod entries;
mod format;
mod layout;
mod make;
mod matching;
mod patch;
mod predict;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use crate::archive::{self, Watch};
use crate::digest::{CappedReader, HashingWriter};
use crate::{Error, Result, Sha256Digest};

pub use apply::apply;
pub use format::{Header, Identity};
pub use layout::rebuild;

/// Bounds on what a delta may cost who applies it.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of an uncompressed archive.
    pub archive: u64,
    /// Bytes of a delta.
    pub delta: u64,
    /// Bytes of a changed file that are held in memory, old and new each; at most 1 GiB.
    pub patch: u64,
    /// Bytes of instructions, decompressed.
    pub control: u64,
    /// Dictionary of a compressed block that is made again, in bytes; its coder needs twelve times
    /// that.
    pub dictionary: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { archive: 32 << 30, delta: 4 << 30, patch: 64 << 20, control: 64 << 20, dictionary: 16 << 20 }
    }
}

/// How to make a delta.
#[derive(Clone, Debug)]
pub struct MakeOptions {
    /// Workers that compare files; each needs up to ten times [`Limits::patch`].
    pub threads: usize,
    /// Bounds of those who will apply it.
    pub limits: Limits,
    /// A larger delta is not worth it, in bytes.
    pub most: u64,
    /// Asked all the time; its error ends the work, as when it took too long.
    pub watch: Watch,
}

/// A delta that was made.
#[derive(Clone, Copy, Debug)]
pub struct Made {
    /// What it says of itself.
    pub header: Header,
    /// Its bytes.
    pub size: u64,
}

/// Makes the delta from one archive to a later one, both compressed in any way or not at all, and
/// proves it by applying it. Uncompressed forms lie in files without names below `work` meanwhile.
///
/// # Errors
/// When an archive cannot be read, the delta would be larger than [`MakeOptions::most`], or the
/// watch ends it. What was written to `out` until then is to be thrown away.
pub fn make(base: &Path, new: &Path, out: &mut File, work: &Path, options: &MakeOptions) -> Result<Made> {
    let base_file = File::open(base).map_err(Error::io(base))?;
    let new_file = File::open(new).map_err(Error::io(new))?;
    let unpacked = |file: &File| unpack(file, work, &options.limits, &options.watch);
    let (base_tar, new_tar) = (unpacked(&base_file)?, unpacked(&new_file)?);
    let (layout, body) = std::thread::scope(|scope| {
        let layout =
            scope.spawn(|| layout::describe(&base_file, &new_file, &new_tar, &mut || options.watch.check()));
        let body = make::body(&base_tar, &new_tar, options);
        (layout.join().unwrap_or_else(|_| Err(io::Error::other("a thread failed"))), body)
    });
    let (layout, body) = (layout.map_err(Error::io(new))?, body?);
    let file = match layout {
        Some(_) => {
            let (sha256, size) =
                Sha256Digest::of_reader(File::open(new).map_err(Error::io(new))?).map_err(Error::io(new))?;
            Some(Identity { sha256, size })
        }
        None => None,
    };
    let (header, size) =
        body.write(&mut *out, file, &layout.unwrap_or_default(), options.most).map_err(Error::io("delta"))?;
    let watched = Watched { watch: &options.watch };
    apply(&mut &base_tar, &mut *out, watched, &options.limits)?;
    Ok(Made { header, size })
}

/// Decompresses an archive into a file without a name below `work`: a base for [`apply`].
pub fn unpack(archive: &File, work: &Path, limits: &Limits, watch: &Watch) -> Result<File> {
    unpack_identified(archive, work, limits, watch).map(|(file, _)| file)
}

/// As [`unpack`], and says what it is: what a delta's header must name as its base.
pub fn unpack_identified(
    archive: &File,
    work: &Path,
    limits: &Limits,
    watch: &Watch,
) -> Result<(File, Identity)> {
    let file = tempfile::tempfile_in(work).map_err(Error::io(work))?;
    let mut file = HashingWriter::new(file);
    let reader = archive.try_clone().map_err(Error::io("archive"))?;
    let archive_limits = archive::Limits { unpacked: limits.archive, ..archive::Limits::default() };
    let decoder = archive::decoder(make::At { file: reader, at: 0 }, &archive_limits)?;
    let mut decoder = CappedReader::new(decoder, limits.archive);
    let mut buffer = vec![0; 256 << 10];
    loop {
        watch.check().map_err(Error::io("archive"))?;
        let count = decoder.read(&mut buffer).map_err(|e| bad_archive(&e))?;
        if count == 0 {
            let (file, sha256, size) = file.finish();
            return Ok((file, Identity { sha256, size }));
        }
        file.write_all(&buffer[..count]).map_err(Error::io(work))?;
    }
}

fn bad_archive(error: &io::Error) -> Error {
    Error::Archive { entry: String::new(), reason: error.to_string() }
}

/// Throws away what is written, and asks now and then whether to go on.
struct Watched<'a> {
    watch: &'a Watch,
}

impl Write for Watched<'_> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.watch.check().map(|()| data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn bad(reason: impl Into<String>) -> Error {
    Error::Archive { entry: "delta".into(), reason: reason.into() }
}
