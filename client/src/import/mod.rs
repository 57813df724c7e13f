//! Images that come from files or from a URL instead of a remote.
//!
//! Nobody vouches for them but whoever imports them. So everything is copied to a directory of the
//! store's first; what is checked there is what is kept.

pub(crate) mod check;
mod direct;
pub(crate) mod files;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use millstream_image::{Fingerprint, atomic};
use tokio::task::spawn_blocking;

pub use self::direct::Direct;
use crate::client::Client;
use crate::fetch::Keep;
use crate::store::{Locked, Origin, Record, Store, StoredImage};
use crate::{Error, Progress, Result};

/// What an image is imported from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImportSource {
    /// A unified image; a metadata archive and a root file system; or one directory of these.
    Files(Vec<PathBuf>),
    /// An address whose answer names a unified image and its SHA-256 in `LXD-Image-URL` and
    /// `LXD-Image-Hash`, or `Incus-Image-URL` and `Incus-Image-Hash`. HTTPS only.
    Url(String),
}

/// What is recorded of an imported image besides what it says itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImportOptions {
    /// Properties, over the image's own.
    pub properties: BTreeMap<String, String>,
    /// Whether everybody may see it.
    pub public: bool,
    /// What it was made of, if a remote offers that in another form.
    pub origin: Option<Origin>,
    /// How it is kept.
    pub keep: Keep,
}

/// Files in a directory of the store's that goes when this is dropped.
struct Incoming {
    dir: Locked,
    metadata: String,
    rootfs: String,
}

impl Client {
    /// Brings an image into the store that no remote offers. One that is there already only gets the
    /// properties.
    ///
    /// # Errors
    /// When it is no image that LXD or Incus would take, or its archives break the rules for archives.
    pub async fn import(
        &self,
        source: ImportSource,
        options: ImportOptions,
        progress: &dyn Progress,
    ) -> Result<StoredImage> {
        let store = self.store()?;
        let incoming = match source {
            ImportSource::Files(paths) => {
                let store = store.clone();
                blocking(move || files::copy(&paths, store.new_incoming()?)).await?
            }
            ImportSource::Url(url) => {
                direct::fetch(&self.http()?, &url, store.new_incoming()?, progress).await?
            }
        };
        let (incoming, record) = blocking(move || {
            let record = record(&incoming, options)?;
            Ok((incoming, record))
        })
        .await?;
        let Some(staging) = store.stage(record.fingerprint).await? else {
            return keep(&store, record);
        };
        blocking(move || {
            for name in [&incoming.metadata, &incoming.rootfs] {
                let (from, to) = (incoming.dir.path().join(name), staging.dir().join(name));
                if from.exists() {
                    atomic::rename(&from, &to)?;
                }
            }
            store.commit(staging, &record)
        })
        .await
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    spawn_blocking(work).await.map_err(|e| Error::Setup(e.to_string()))?
}

fn record(incoming: &Incoming, options: ImportOptions) -> Result<Record> {
    let mut record = describe(incoming.dir.path(), &incoming.metadata, &incoming.rootfs)?;
    let architecture = record.properties.get("architecture").cloned();
    record.properties.extend(options.properties);
    if record.properties.get("architecture") != architecture.as_ref() {
        return Err(Error::name("architecture", "it is what the image says and cannot be set"));
    }
    let (Keep { cached, auto_update }, origin) = (options.keep, options.origin);
    Ok(Record { public: options.public, cached, auto_update, origin, ..record })
}

/// Describes an image by its files in `dir`, which are read to their ends; `metadata` and `rootfs` are
/// one file when it is unified.
pub(crate) fn describe(dir: &Path, metadata_name: &str, rootfs_name: &str) -> Result<Record> {
    let (metadata, rootfs) = (dir.join(metadata_name), dir.join(rootfs_name));
    let described = check::image(&metadata, &rootfs)?;
    let mut properties = described.properties;
    properties.insert("architecture".into(), described.architecture.debian().to_owned());
    let length = |path: &Path| fs::metadata(path).map(|meta| meta.len()).map_err(Error::io(path));
    let split = if metadata == rootfs { 0 } else { length(&metadata)? };
    let now = Utc::now();
    Ok(Record {
        fingerprint: Fingerprint::of_files(&metadata, &rootfs)?,
        metadata: metadata_name.to_owned(),
        rootfs: rootfs_name.to_owned(),
        size: split + length(&rootfs)?,
        properties,
        origin: None,
        created: DateTime::from_timestamp(described.created, 0).unwrap_or(now),
        stored: now,
        cached: false,
        auto_update: false,
        public: false,
        uncompressed: None,
    })
}

/// It is here already: it stays, and gets what was said of it.
fn keep(store: &Store, record: Record) -> Result<StoredImage> {
    let gone = || Error::image(&record.fingerprint, "it was just deleted; try again");
    let image = store.get(record.fingerprint)?.ok_or_else(gone)?;
    store.set_flags(record.fingerprint, image.cached && record.cached, image.auto_update)?;
    store.change(record.fingerprint, |known| {
        known.properties.extend(record.properties);
        known.public |= record.public;
        Ok(())
    })?;
    store
        .get(record.fingerprint)?
        .ok_or_else(|| Error::image(&record.fingerprint, "it was just deleted; try again"))
}
