//! From a catalogue's entry to an image of the store.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use chrono::{DateTime, NaiveDate, NaiveTime, Utc};
use millstream_image::archive::read_small;
use millstream_image::metadata::{MAX_SIZE, Metadata};
use millstream_image::{Architecture, Fingerprint};
use tokio::task::spawn_blocking;

use crate::catalogue::CatalogueImage;
use crate::store::{Origin, Record, Staging, Store, StoredImage};
use crate::tree::Tree;
use crate::{Error, Progress, Result};

const METADATA: &str = "metadata.tar.xz";
/// What must stay free beside an image, in bytes.
const SPARE: u64 = 16 << 20;

/// How an image is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keep {
    /// It only comes because something is started from it, and may go when unused.
    pub cached: bool,
    /// It follows newer serials.
    pub auto_update: bool,
}

/// Brings an image into the store: both files at once, each resumed, bounded and hashed, then the
/// fingerprint over both and the metadata against what was asked for. Until then the store does
/// not know it.
pub(crate) async fn image(
    store: &Store,
    tree: &Tree,
    remote: &str,
    image: &CatalogueImage,
    keep: Keep,
    progress: &dyn Progress,
) -> Result<StoredImage> {
    let staging = loop {
        match store.stage(image.fingerprint).await? {
            Some(staging) => break staging,
            // It is here, unless it was deleted in this moment: then once more.
            None => {
                if let Some(stored) = store.get(image.fingerprint)? {
                    return keep_longer(store, stored, keep);
                }
            }
        }
    };
    match gather(&staging, tree, image, progress).await {
        Ok(properties) => {
            let mut record = record(remote, image, keep);
            for (key, value) in properties {
                record.properties.entry(key).or_insert(value);
            }
            store.commit(staging, &record)
        }
        Err(error) => {
            if !may_be_resumed(&error) {
                staging.discard();
            }
            Err(error)
        }
    }
}

/// Who fetches for good what is only cached makes it stay.
fn keep_longer(store: &Store, stored: StoredImage, keep: Keep) -> Result<StoredImage> {
    let (cached, auto_update) = (stored.cached && keep.cached, stored.auto_update || keep.auto_update);
    if (cached, auto_update) != (stored.cached, stored.auto_update) {
        store.set_flags(stored.fingerprint, cached, auto_update)?;
    }
    Ok(StoredImage { cached, auto_update, ..stored })
}

async fn gather(
    staging: &Staging,
    tree: &Tree,
    image: &CatalogueImage,
    progress: &dyn Progress,
) -> Result<std::collections::BTreeMap<String, String>> {
    check_space(staging.dir(), image)?;
    let metadata = staging.dir().join(METADATA);
    let rootfs = staging.dir().join(image.root_kind.file_name());
    let (m, r) = (&image.metadata, &image.rootfs);
    tokio::try_join!(
        tree.download(&m.path, &metadata, (m.size, m.sha256), progress),
        tree.download(&r.path, &rootfs, (r.size, r.sha256), progress),
    )?;
    let (url, expected) = (tree.url(&m.path), image.fingerprint);
    let arch = image.product.architecture();
    let check = move || check(&url, &metadata, &rootfs, expected, arch);
    spawn_blocking(check).await.map_err(|e| Error::Setup(e.to_string()))?
}

/// Says before the download what would fail at its end.
fn check_space(dir: &Path, image: &CatalogueImage) -> Result<()> {
    let space = rustix::fs::statvfs(dir).map_err(|e| Error::io(dir)(e.into()))?;
    let free = space.f_bavail.saturating_mul(space.f_frsize);
    let here = std::fs::read_dir(dir).map_err(Error::io(dir))?.flatten();
    let here: u64 = here.filter_map(|entry| entry.metadata().ok()).map(|file| file.len()).sum();
    let need = image.size().saturating_sub(here).saturating_add(SPARE);
    if free >= need {
        return Ok(());
    }
    let reason = format!("the image needs {} MiB, free are {} MiB", need >> 20, free >> 20);
    Err(Error::io(dir)(io::Error::new(io::ErrorKind::StorageFull, reason)))
}

/// Proves the fingerprint and binds the metadata to the product; gives the image's own properties.
fn check(
    url: &str,
    metadata: &PathBuf,
    rootfs: &PathBuf,
    expected: Fingerprint,
    arch: Architecture,
) -> Result<std::collections::BTreeMap<String, String>> {
    let open = |path: &PathBuf| File::open(path).map_err(Error::io(path));
    let found = Fingerprint::of_split(open(metadata)?, open(rootfs)?).map_err(Error::io(rootfs))?;
    if found != expected {
        return Err(Error::mismatch(
            url,
            format!("the image's fingerprint is {found}, stated is {expected}"),
        ));
    }
    let wrong = |reason: String| Error::mismatch(url, reason);
    let members = read_small(open(metadata)?).map_err(|e| wrong(e.to_string()))?;
    let yaml =
        members.get(Path::new("metadata.yaml")).ok_or_else(|| wrong("it has no metadata.yaml".into()))?;
    if yaml.data.len() > MAX_SIZE {
        return Err(wrong("its metadata.yaml is too large".into()));
    }
    let metadata = Metadata::parse(&yaml.data).map_err(|e| wrong(e.to_string()))?;
    if metadata.architecture.parse().ok() != Some(arch) {
        return Err(wrong(format!("its metadata.yaml says {}, asked for is {arch}", metadata.architecture)));
    }
    Ok(metadata.properties)
}

fn record(remote: &str, image: &CatalogueImage, keep: Keep) -> Record {
    let now: DateTime<Utc> = SystemTime::now().into();
    Record {
        fingerprint: image.fingerprint,
        metadata: METADATA.to_owned(),
        rootfs: image.root_kind.file_name().to_owned(),
        size: image.size(),
        properties: image.properties(),
        origin: Some(Origin {
            remote: remote.to_owned(),
            product: image.product.clone(),
            serial: image.serial.clone(),
        }),
        created: created(&image.serial).unwrap_or(now),
        stored: now,
        cached: keep.cached,
        auto_update: keep.auto_update,
    }
}

/// The date a serial begins with, and its time if it is one of ours.
fn created(serial: &str) -> Option<DateTime<Utc>> {
    if let Ok(serial) = serial.parse::<millstream_image::Serial>() {
        return Some(serial.time());
    }
    let date = NaiveDate::parse_from_str(serial.get(..8)?, "%Y%m%d").ok()?;
    Some(date.and_time(NaiveTime::MIN).and_utc())
}

/// Whether what was gathered so far is worth keeping: not when it proved wrong, and not when the
/// disk is full of it.
fn may_be_resumed(error: &Error) -> bool {
    matches!(error, Error::Network { .. } | Error::Status { .. })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serials_tell_when() {
        assert_eq!(created("20260130_0512").unwrap().to_rfc3339(), "2026-01-30T05:12:00+00:00");
        assert_eq!(created("20260130.1").unwrap().to_rfc3339(), "2026-01-30T00:00:00+00:00");
        assert_eq!(created("99999999"), None);
    }
}
