//! Today's root file system out of yesterday's and a delta.
//!
//! What is made is the uncompressed archive, whose digest the signed documents state. Compressing the
//! changed blocks can take longer than the download that is saved; the store does it when somebody asks.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use millstream_image::Sha256Digest;
use millstream_image::archive::Watch;
use millstream_image::delta::{Identity, Limits, apply, unpack_identified};
use tempfile::NamedTempFile;
use tokio::task::spawn_blocking;

use super::Job;
use crate::arriving::{Published, Publisher};
use crate::catalogue::{Delta, RootKind};
use crate::store::{BASE, DELTA, StoredImage, UNCOMPRESSED};
use crate::{Error, Result};

/// A delta, and the image of the store it starts from.
pub(super) struct Choice {
    base: StoredImage,
    delta: Delta,
    /// The signed digest of what it makes.
    result: Sha256Digest,
}

/// The smallest delta from an image of the store, if it saves at least half of the download.
pub(super) fn choose(job: Job<'_>) -> Result<Option<Choice>> {
    let (image, Some(result)) = (job.image, job.image.uncompressed) else { return Ok(None) };
    if image.deltas.is_empty() || image.root_kind != RootKind::TarXz {
        return Ok(None);
    }
    let images = job.store.list()?;
    let base = |delta: &Delta| {
        images.iter().find(|stored| {
            let Some(origin) = &stored.origin else { return false };
            origin.remote == job.remote && origin.product == image.product && origin.serial == delta.base
        })
    };
    let worth = image.deltas.iter().filter(|delta| delta.file.size <= image.rootfs.size / 2);
    let found = worth.filter_map(|delta| Some((base(delta)?, delta)));
    let smallest = found.min_by_key(|(_, delta)| delta.file.size);
    Ok(smallest.map(|(base, delta)| Choice { base: base.clone(), delta: delta.clone(), result }))
}

/// Fetches and applies a delta; the digest of what it made. `None` when it cannot be used, for whatever
/// reason: then the whole file is fetched.
pub(super) async fn fetch(
    job: Job<'_>,
    dir: &Path,
    choice: Choice,
    publisher: Option<Publisher>,
) -> Result<(Option<Publisher>, Option<Sha256Digest>)> {
    let file = dir.join(DELTA);
    let expected = choice.result;
    match make(job, dir, choice, &file, publisher).await? {
        (publisher, Ok(())) => Ok((publisher, Some(expected))),
        (publisher, Err(_)) => {
            for name in [DELTA, UNCOMPRESSED, BASE] {
                drop(fs::remove_file(dir.join(name)));
            }
            Ok((publisher, None))
        }
    }
}

/// The outer error is for a program that is being shut down.
async fn make(
    job: Job<'_>,
    dir: &Path,
    choice: Choice,
    file: &Path,
    publisher: Option<Publisher>,
) -> Result<(Option<Publisher>, Result<()>)> {
    let stopped = |e: tokio::task::JoinError| Error::Setup(format!("a delta was stopped: {e}"));
    let store = job.store.clone();
    let (base, work) = (choice.base.clone(), dir.to_owned());
    // The base is decompressed while the delta comes.
    let base = spawn_blocking(move || {
        let base = store.complete(&base)?;
        let file = File::open(&base.rootfs).map_err(Error::io(&base.rootfs))?;
        let tar = unpack_identified(&file, &work, &Limits::default(), &Watch::default())?;
        Ok::<_, Error>((base.rootfs, tar))
    });
    let wanted = (choice.delta.file.size, choice.delta.file.sha256);
    let fetched = job.tree.download(&choice.delta.file.path, file, wanted, None, job.progress).await;
    let base = base.await.map_err(stopped)?;
    let (base, tar) = match fetched.and(base) {
        Ok(base) => base,
        Err(error) => return Ok((publisher, Err(error))),
    };
    let make = Make { dir: dir.to_owned(), delta: file.to_owned(), base, result: choice.result };
    let compressed = (job.image.rootfs.sha256, job.image.rootfs.size);
    let applied = spawn_blocking(move || {
        let result = make.run(tar, compressed, publisher.as_ref());
        (publisher, result)
    });
    applied.await.map_err(stopped)
}

struct Make {
    dir: PathBuf,
    delta: PathBuf,
    /// The base's compressed archive.
    base: PathBuf,
    result: Sha256Digest,
}

impl Make {
    fn run(
        self,
        (mut tar, identity): (File, Identity),
        compressed: (Sha256Digest, u64),
        publisher: Option<&Publisher>,
    ) -> Result<()> {
        let Self { dir, delta, base, result } = self;
        let wrong = |reason: &str| Error::mismatch(delta.display().to_string(), reason);
        // Of its own name, so that two who make it never write one file.
        let temp = NamedTempFile::new_in(&dir).map_err(Error::io(&dir))?;
        let out = temp.reopen().map_err(Error::io(&dir))?;
        let mut out = Published::new(out, publisher).map_err(Error::io(&dir))?;
        let source = File::open(&delta).map_err(Error::io(&delta))?;
        let header = apply(&mut tar, source, &mut out, &Limits::default())?;
        out.flush().map_err(Error::io(&dir))?;
        if header.base != identity {
            return Err(wrong("it starts from another image than the one it is listed for"));
        }
        if header.result.sha256 != result {
            return Err(wrong("it makes another image than the one signed"));
        }
        if header.file.map(|file| (file.sha256, file.size)) != Some(compressed) {
            return Err(wrong("it cannot make the compressed file"));
        }
        if let Some(publisher) = publisher {
            publisher.right();
        }
        link_or_copy(&base, &dir.join(BASE))?;
        temp.as_file().sync_all().map_err(Error::io(&dir))?;
        let path = dir.join(UNCOMPRESSED);
        temp.persist(&path).map_err(|e| Error::io(&path)(e.error))?;
        Ok(())
    }
}

/// A second name for a file, which outlives its first.
fn link_or_copy(from: &Path, to: &Path) -> Result<()> {
    drop(fs::remove_file(to));
    // It may be a link to another store's file.
    let from = &fs::canonicalize(from).map_err(Error::io(from))?;
    if fs::hard_link(from, to).is_ok() {
        return Ok(());
    }
    fs::copy(from, to).map_err(Error::io(to))?;
    File::open(to).and_then(|file| file.sync_all()).map_err(Error::io(to))
}
