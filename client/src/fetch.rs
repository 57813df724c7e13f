//! From a catalogue's entry to an image of the store.

mod delta;

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use chrono::{DateTime, NaiveDate, NaiveTime, Utc};
use millstream_image::archive::read_small;
use millstream_image::metadata::{MAX_SIZE, Metadata};
use millstream_image::{Alias, Architecture, Fingerprint, Sha256Digest};
use tokio::task::spawn_blocking;

use crate::arriving::{self, Publisher, Sink};
use crate::catalogue::{CatalogueImage, RootKind};
use crate::store::{Origin, Record, Staging, Store, StoredImage, UNCOMPRESSED};
use crate::tree::Tree;
use crate::{Error, Progress, Result, api};

pub(crate) const METADATA: &str = "metadata.tar.xz";
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

/// An image to bring into the store.
#[derive(Clone, Copy)]
pub(crate) struct Job<'a> {
    pub store: &'a Arc<Store>,
    pub tree: &'a Tree,
    /// The remote's name.
    pub remote: &'a str,
    pub image: &'a CatalogueImage,
    pub keep: Keep,
    pub progress: &'a dyn Progress,
}

impl Job<'_> {
    /// Brings an image into the store: both files at once, each resumed, bounded and hashed, then the
    /// fingerprint over both and the metadata against what was asked for. Until then the store does
    /// not know it. Where a delta from an image of the store is smaller, it is used instead.
    pub(crate) async fn run(self, sink: Option<Sink>) -> Result<StoredImage> {
        let staging = loop {
            match self.store.stage(self.image.fingerprint).await? {
                Some(staging) => break staging,
                // It is here, unless it was deleted in this moment: then once more.
                None => {
                    if let Some(stored) = self.store.get(self.image.fingerprint)? {
                        return keep_longer(self.store, stored, self.keep);
                    }
                }
            }
        };
        let sink = sink.filter(|_| self.image.root_kind != RootKind::Squashfs);
        let (publisher, sink) = match sink {
            Some(sink) => {
                let (publisher, arriving) = arriving::pair();
                let fingerprint = self.image.fingerprint;
                (Some(publisher), Some(spawn_blocking(move || sink(fingerprint, arriving))))
            }
            None => (None, None),
        };
        let result = match self.gather(&staging, publisher).await {
            Ok(gathered) => self.commit(staging, gathered).await,
            Err(error) => {
                if !may_be_resumed(&error) {
                    staging.discard();
                }
                Err(error)
            }
        };
        if let Some(sink) = sink {
            sink.await.map_err(|e| Error::Setup(format!("unpacking was stopped: {e}")))?;
        }
        result
    }

    async fn gather(self, staging: &Staging, publisher: Option<Publisher>) -> Result<Gathered> {
        check_space(staging.dir(), self.image)?;
        if self.image.root_kind == RootKind::Exported {
            return api::export::gather(self, staging.dir(), publisher).await;
        }
        let (publisher, made) = match delta::choose(self)? {
            Some(choice) => delta::fetch(self, staging.dir(), choice, publisher).await?,
            None => (publisher, None),
        };
        let metadata = staging.dir().join(METADATA);
        let image = self.image;
        let (m, r) = (&image.metadata, &image.rootfs);
        let rootfs = staging.dir().join(image.root_kind.file_name());
        let fetch_metadata = self.tree.download(&m.path, &metadata, (m.size, m.sha256), None, self.progress);
        if made.is_some() {
            fetch_metadata.await?;
        } else {
            let wanted = (r.size, r.sha256);
            let rootfs = self.tree.download(&r.path, &rootfs, wanted, publisher, self.progress);
            tokio::try_join!(fetch_metadata, rootfs)?;
        }
        let (url, expected) = (self.tree.url(&m.path), image.fingerprint);
        let arch = image.product.architecture();
        let rootfs = Some(rootfs).filter(|_| made.is_none());
        let check = move || {
            if let Some(rootfs) = rootfs {
                check_fingerprint(&url, &metadata, &rootfs, expected)?;
            }
            check_metadata(&url, &metadata, arch)
        };
        let properties = spawn_blocking(check).await.map_err(|e| Error::Setup(e.to_string()))??;
        let names = (METADATA.to_owned(), image.root_kind.file_name().to_owned());
        Ok(Gathered { properties, uncompressed: made, names })
    }

    async fn commit(self, staging: Staging, gathered: Gathered) -> Result<StoredImage> {
        let mut record = record(self.remote, self.image, self.keep);
        (record.metadata, record.rootfs) = gathered.names;
        for (key, value) in gathered.properties {
            record.properties.entry(key).or_insert(value);
        }
        if let Some(sha256) = gathered.uncompressed {
            UNCOMPRESSED.clone_into(&mut record.rootfs);
            record.uncompressed = Some(sha256);
        }
        let store = self.store.clone();
        let commit = move || store.commit(staging, &record);
        spawn_blocking(commit).await.map_err(|e| Error::Setup(e.to_string()))?
    }
}

/// Makes an image of a store that root shares one of this store. Root has verified it; its record is
/// taken, unless a remote has told another.
pub(crate) async fn link(
    store: &Arc<Store>,
    shared: &StoredImage,
    record: Option<Record>,
    keep: Keep,
) -> Result<StoredImage> {
    let Some(staging) = store.stage(shared.fingerprint).await? else {
        let stored = store.get(shared.fingerprint)?;
        return keep_longer(store, stored.unwrap_or_else(|| shared.clone()), keep);
    };
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut record = record.unwrap_or_else(|| Record {
        fingerprint: shared.fingerprint,
        metadata: String::new(),
        rootfs: String::new(),
        size: shared.size,
        properties: shared.properties.clone(),
        // Its remotes are not ours.
        origin: None,
        created: shared.created,
        stored: Utc::now(),
        cached: keep.cached,
        auto_update: false,
        public: false,
        uncompressed: None,
    });
    for (key, value) in &shared.properties {
        record.properties.entry(key.clone()).or_insert_with(|| value.clone());
    }
    (record.metadata, record.rootfs, record.size) =
        (name(&shared.metadata), name(&shared.rootfs), shared.size);
    let (store, shared) = (store.clone(), shared.clone());
    let linked = spawn_blocking(move || store.link(staging, &record, &shared)).await;
    linked.map_err(|e| Error::Setup(e.to_string()))?
}

/// Takes an image away whose files another store has withdrawn, so that it can come again; gives its names.
pub(crate) fn forget_withdrawn(store: &Store, image: Fingerprint) -> Result<Vec<Alias>> {
    let Some(stored) = store.get(image)?.filter(StoredImage::is_withdrawn) else { return Ok(Vec::new()) };
    store.delete(image)?;
    Ok(stored.aliases)
}

/// What lies in staging, checked.
pub(crate) struct Gathered {
    pub(crate) properties: BTreeMap<String, String>,
    /// The digest of the uncompressed archive, where a delta made that and no more.
    pub(crate) uncompressed: Option<Sha256Digest>,
    /// Names of metadata and root file system there; of a unified image the same.
    pub(crate) names: (String, String),
}

/// Who fetches for good what is only cached makes it stay; who only starts something changes nothing for
/// what stays.
pub(crate) fn keep_longer(store: &Store, stored: StoredImage, keep: Keep) -> Result<StoredImage> {
    let follows = keep.auto_update && (stored.cached || !keep.cached);
    let (cached, auto_update) = (stored.cached && keep.cached, stored.auto_update || follows);
    if (cached, auto_update) != (stored.cached, stored.auto_update) {
        store.set_flags(stored.fingerprint, cached, auto_update)?;
    }
    Ok(StoredImage { cached, auto_update, ..stored })
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

/// Proves the fingerprint.
fn check_fingerprint(url: &str, metadata: &Path, rootfs: &Path, expected: Fingerprint) -> Result<()> {
    let open = |path: &Path| File::open(path).map_err(Error::io(path));
    let found = Fingerprint::of_split(open(metadata)?, open(rootfs)?).map_err(Error::io(rootfs))?;
    if found == expected {
        return Ok(());
    }
    Err(Error::mismatch(url, format!("the image's fingerprint is {found}, stated is {expected}")))
}

/// Binds the metadata to the product; gives the image's own properties.
pub(crate) fn check_metadata(
    url: &str,
    metadata: &Path,
    arch: Architecture,
) -> Result<BTreeMap<String, String>> {
    let wrong = |reason: String| Error::mismatch(url, reason);
    let file = File::open(metadata).map_err(Error::io(metadata))?;
    let members = read_small(file).map_err(|e| wrong(e.to_string()))?;
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

pub(crate) fn record(remote: &str, image: &CatalogueImage, keep: Keep) -> Record {
    let now: DateTime<Utc> = SystemTime::now().into();
    Record {
        fingerprint: image.fingerprint,
        metadata: String::new(),
        rootfs: String::new(),
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
        public: false,
        uncompressed: None,
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
