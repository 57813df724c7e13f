//! Deltas from earlier images of a product to one that is being added: made in staging, before
//! anybody can see the image, because an image never changes once it is listed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use millstream_image::archive::Watch;
use millstream_image::delta::{self, Limits, MakeOptions};
use millstream_image::simplestreams::{Item, Version};
use millstream_image::{Serial, Sha256Digest, atomic};

use super::catalogue::{Catalogue, Listing};
use super::layout::{DELTA, ROOTFS, SQUASHFS, VCDIFF};
use super::{readable, vcdiff};
use crate::{Error, Result};

/// Which deltas to make, and what they may cost.
#[derive(Clone, Copy, Debug)]
pub struct Deltas {
    /// From how many of the serials before.
    pub last: usize,
    /// How long one may take.
    pub time: Duration,
    /// Workers that compare files. Each needs up to 400 MB when the largest files change.
    pub threads: usize,
}

impl Deltas {
    /// None at all.
    pub const NONE: Self = Self { last: 0, time: Duration::ZERO, threads: 1 };
}

impl Default for Deltas {
    /// From three serials, which is who updates daily and missed a weekend; two minutes each, on two
    /// processors.
    fn default() -> Self {
        Self { last: 3, time: Duration::from_mins(2), threads: 2 }
    }
}

/// What became of one delta.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Its name in the image's directory.
    pub name: String,
    /// Its bytes, or why there is none.
    pub size: Result<u64, String>,
    /// Bytes of the file it stands for.
    pub full: u64,
}

/// Bytes of a file that are compared at once; bounds the memory.
const PATCH: u64 = 32 << 20;

/// Makes deltas for the image in `dir` and lists them with it. One that cannot be made, or is not
/// worth it, is left out and said.
///
/// # Errors
/// When staging itself cannot be written.
pub(super) fn make(
    root: &Path,
    dir: &Path,
    catalogue: &Catalogue,
    listing: &mut Listing,
    deltas: &Deltas,
) -> Result<Vec<Outcome>> {
    let product = listing.manifest.product.clone();
    let base_path = product.image_path(listing.manifest.serial);
    let mut outcomes = Vec::new();
    for (serial, version) in bases(catalogue, listing, deltas.last) {
        let base = root.join(product.image_path(serial));
        for kind in [Kind::Rootfs, Kind::Squashfs] {
            let (Some(from), Some(to)) = (kind.item(&version.items), kind.item(&listing.items)) else {
                continue;
            };
            let name = kind.name(serial);
            let (path, full) = (dir.join(&name), to.size);
            let made = kind.make(&base, dir, (from, to), &path, deltas);
            let size = match made {
                Ok(sha256) => {
                    let size = finish(dir, &path)?;
                    let item = Item {
                        ftype: kind.ftype().into(),
                        path: base_path.join(&name).display().to_string(),
                        size,
                        sha256: Some(sha256),
                        delta_base: Some(serial.to_string()),
                        ..Item::default()
                    };
                    listing.items.insert(name.clone(), item);
                    Ok(size)
                }
                Err(reason) => {
                    remove(&path)?;
                    Err(reason)
                }
            };
            outcomes.push(Outcome { name, size, full });
        }
    }
    Ok(outcomes)
}

/// What a delta between root file systems is called, in its directory and among its image's items.
pub(super) fn delta_name(base: Serial) -> String {
    Kind::Rootfs.name(base)
}

/// The serials before this one, newest first.
fn bases<'a>(catalogue: &'a Catalogue, listing: &Listing, last: usize) -> Vec<(Serial, &'a Version)> {
    let manifest = &listing.manifest;
    let same = catalogue
        .images()
        .filter(|(product, serial, ..)| *product == manifest.product && *serial < manifest.serial);
    let mut bases: Vec<_> = same.map(|(_, serial, _, version)| (serial, version)).collect();
    bases.sort_by_key(|(serial, _)| std::cmp::Reverse(*serial));
    bases.truncate(last);
    bases
}

#[derive(Clone, Copy)]
enum Kind {
    Rootfs,
    Squashfs,
}

impl Kind {
    fn file(self) -> &'static str {
        match self {
            Self::Rootfs => ROOTFS,
            Self::Squashfs => SQUASHFS,
        }
    }

    fn extension(self) -> &'static str {
        match self {
            Self::Rootfs => "delta",
            Self::Squashfs => "vcdiff",
        }
    }

    fn name(self, base: Serial) -> String {
        format!("rootfs.{base}.{}", self.extension())
    }

    fn ftype(self) -> &'static str {
        match self {
            Self::Rootfs => DELTA,
            Self::Squashfs => VCDIFF,
        }
    }

    fn item(self, items: &BTreeMap<String, Item>) -> Option<&Item> {
        items.values().find(|item| Path::new(&item.path).file_name() == Some(self.file().as_ref()))
    }

    /// Makes the file and proves it; its digest, or why it is not worth having.
    fn make(
        self,
        base: &Path,
        dir: &Path,
        (from, to): (&Item, &Item),
        path: &Path,
        deltas: &Deltas,
    ) -> Result<Sha256Digest, String> {
        let deadline = Instant::now() + deltas.time;
        // Half of the whole is no gain any more: applying costs time as well.
        let most = to.size / 2;
        let (base, new) = (base.join(self.file()), dir.join(self.file()));
        match self {
            Self::Rootfs => rootfs(&base, &new, path, (from, to), most, deadline, deltas.threads)?,
            Self::Squashfs => vcdiff::make(&base, &new, path, (from, to), most, deadline)?,
        }
        let digest = File::open(path).and_then(Sha256Digest::of_reader);
        digest.map(|(digest, _)| digest).map_err(|error| error.to_string())
    }
}

fn rootfs(
    base: &Path,
    new: &Path,
    path: &Path,
    (from, to): (&Item, &Item),
    most: u64,
    deadline: Instant,
    threads: usize,
) -> Result<(), String> {
    let watch = Watch::new(move || in_time(deadline));
    let limits = Limits { patch: PATCH, ..Limits::default() };
    let options = MakeOptions { threads, limits, most, watch };
    let mut out = File::options().read(true).write(true).create_new(true).open(path);
    let out = out.as_mut().map_err(|error| error.to_string())?;
    // Files without names, which go with this process.
    let work = path.parent().unwrap_or(Path::new("."));
    let made = delta::make(base, new, out, work, &options).map_err(|error| reason(&error))?;
    // The base on disk may be damaged, and clients have the good one.
    let header = made.header;
    let identities = (Some(header.base.sha256), Some(header.result.sha256));
    if identities != (from.sha256_uncompressed, to.sha256_uncompressed) {
        return Err(format!("{} is not the file that documents list", base.display()));
    }
    Ok(())
}

/// An error when the time is up.
pub(super) fn in_time(deadline: Instant) -> io::Result<()> {
    if Instant::now() < deadline { Ok(()) } else { Err(io::Error::other("it took too long")) }
}

/// The innermost reason: which file of ours it was about means nothing to the reader.
fn reason(error: &millstream_image::Error) -> String {
    match error {
        millstream_image::Error::Io { source, .. } => source.to_string(),
        other => other.to_string(),
    }
}

/// Makes a finished delta readable and durable; its size.
fn finish(dir: &Path, path: &Path) -> Result<u64> {
    readable(path, 0o644)?;
    let file = File::open(path).map_err(Error::io(path))?;
    file.sync_all().map_err(Error::io(path))?;
    atomic::sync_dir(dir).map_err(Error::image(dir))?;
    file.metadata().map(|meta| meta.len()).map_err(Error::io(path))
}

fn remove(path: &PathBuf) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io(path)(error)),
        _ => Ok(()),
    }
}
