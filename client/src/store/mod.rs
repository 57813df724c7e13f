//! The image store: one directory an image, named by fingerprint, and an index of them in SQLite.
//!
//! ```text
//! STORE/FINGERPRINT/metadata.tar.xz   rootfs.tar.xz   image.json
//! STORE/.staging/FINGERPRINT/         what is being fetched; locked by whoever fetches
//! STORE/.trash/                       what is being deleted
//! STORE/lost+found/                   what a repair took out of sight, each with a note
//! STORE/images.db                     the index, with aliases and what changes over time
//! STORE/.shared                       names, for other users, where root lets them read the store
//! STORE/.lock                         shared by all who have it open; a repair of the index takes it alone
//! ```
//!
//! An image appears by one rename and then gets its row; it leaves by one rename and then loses
//! its row. `image.json` says what the row says, so a directory without a row is an arrival that
//! was cut off, and a row without a directory a departure: [`Store::open`] completes both. Locks
//! are on directories and die with their process.

pub mod check;
mod compressed;
mod export;
mod heal;
mod index;
mod lock;
mod lost;
mod names;
mod shared;
mod staging;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use millstream_image::{Alias, Fingerprint, Product, Sha256Digest, atomic};
use serde::{Deserialize, Serialize};

use crate::query::{Filter, Filtered};
use crate::{Error, Result};

pub(crate) use self::compressed::{BASE, DELTA, UNCOMPRESSED};
use self::index::Index;
use self::lock::{LockKind, lock_store};
pub use self::lost::{LOST, take_away};
pub use self::shared::SharedStore;
pub(crate) use self::staging::Locked;
pub use self::staging::Staging;

const STAGING: &str = ".staging";
const TRASH: &str = ".trash";
const RECORD: &str = "image.json";
const DATABASE: &str = "images.db";
const LOCK: &str = ".lock";
/// LXC's metadata beside an image.
pub(crate) const ATTACHED: &str = "lxc.tar.xz";

/// Where an image came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The remote's name.
    pub remote: String,
    /// What the image is.
    pub product: Product,
    /// Its version name there.
    pub serial: String,
}

/// An image that is about to enter the store, as `image.json` describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Identity.
    pub fingerprint: Fingerprint,
    /// File name of the metadata archive.
    pub metadata: String,
    /// File name of the root file system's archive; of a unified image, that of the metadata.
    pub rootfs: String,
    /// Bytes of both.
    pub size: u64,
    /// `os`, `release`, `architecture`, `variant`, `serial`, `description`, …
    pub properties: BTreeMap<String, String>,
    /// Where it came from, unless it was imported.
    pub origin: Option<Origin>,
    /// When the image was made.
    pub created: DateTime<Utc>,
    /// When it came here.
    pub stored: DateTime<Utc>,
    /// Whether it only came because something was started from it, and may go when unused.
    pub cached: bool,
    /// Whether newer serials are to be fetched by themselves.
    pub auto_update: bool,
    /// Whether everybody may see it.
    #[serde(default)]
    pub public: bool,
    /// SHA-256 of the uncompressed root file system, where a delta made that and the compressed file
    /// has not been made yet; see [`Store::complete`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uncompressed: Option<Sha256Digest>,
}

/// An image of the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StoredImage {
    /// Identity: SHA-256 of metadata followed by root file system.
    pub fingerprint: Fingerprint,
    /// The metadata archive (`lxd.tar.xz`, `incus.tar.xz`).
    pub metadata: PathBuf,
    /// The root file system's archive; of a unified image, the same file as the metadata.
    pub rootfs: PathBuf,
    /// Bytes of both.
    pub size: u64,
    /// `os`, `release`, `architecture`, `variant`, `serial`, `description`, …
    pub properties: BTreeMap<String, String>,
    /// Where it came from, unless it was imported.
    pub origin: Option<Origin>,
    /// Names given to it here.
    pub aliases: Vec<Alias>,
    /// When the image was made.
    pub created: DateTime<Utc>,
    /// When it came here.
    pub stored: DateTime<Utc>,
    /// When something was last started from it.
    pub last_used: Option<DateTime<Utc>>,
    /// When a newer one was last looked for, and none was found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub looked: Option<DateTime<Utc>>,
    /// Whether it only came because something was started from it, and may go when unused.
    pub cached: bool,
    /// Whether newer serials are to be fetched by themselves.
    pub auto_update: bool,
    /// Whether everybody may see it.
    pub public: bool,
    /// SHA-256 of the uncompressed root file system, where a delta made that and the compressed file
    /// has not been made yet; see [`Store::complete`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uncompressed: Option<Sha256Digest>,
}

impl StoredImage {
    /// Whether metadata and root file system are one archive.
    pub fn is_unified(&self) -> bool {
        self.metadata == self.rootfs
    }

    /// Whether it passes all filters.
    pub fn matches(&self, filters: &[Filter]) -> bool {
        let image =
            Filtered { fingerprint: self.fingerprint, aliases: &self.aliases, properties: &self.properties };
        filters.iter().all(|filter| filter.matches(image))
    }
}

/// The store. Every process opens its own; all may work at once.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
    index: Mutex<Index>,
    _lock: File,
}

impl Store {
    /// Opens the store in `dir`, making it if need be, and completes what a killed process left
    /// half done.
    pub fn open(dir: &Path) -> Result<Self> {
        let store = Self::open_as_it_is(dir)?;
        store.heal()?;
        Ok(store)
    }

    fn open_as_it_is(dir: &Path) -> Result<Self> {
        for dir in [dir, &dir.join(STAGING), &dir.join(TRASH)] {
            fs::create_dir_all(dir).map_err(Error::io(dir))?;
        }
        let lock = lock_store(dir, LockKind::WithOthers)?;
        let index = Index::open(&dir.join(DATABASE))?;
        Ok(Self { dir: dir.to_owned(), index: Mutex::new(index), _lock: lock })
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// All images, newest arrivals first.
    pub fn list(&self) -> Result<Vec<StoredImage>> {
        let rows = self.index().all()?;
        rows.into_iter().map(|(record, state)| Ok(self.image(record, state))).collect()
    }

    /// The image of this fingerprint, if it is here.
    pub fn get(&self, fingerprint: Fingerprint) -> Result<Option<StoredImage>> {
        let row = self.index().get(fingerprint)?;
        Ok(row.map(|(record, state)| self.image(record, state)))
    }

    /// Begins to bring an image in; waits while another process brings the same one. `None` when
    /// it has arrived meanwhile, or was here all along.
    pub async fn stage(&self, fingerprint: Fingerprint) -> Result<Option<Staging>> {
        staging::begin(self, fingerprint).await
    }

    /// Makes a staged image part of the store, durably and at once.
    pub fn commit(&self, staging: Staging, record: &Record) -> Result<StoredImage> {
        let mut names = vec![record.metadata.as_str(), &record.rootfs];
        if record.uncompressed.is_some() {
            names.extend([DELTA, BASE]);
        }
        staging.keep_only(&names)?;
        staging.put_record(record)?;
        self.share_arrival(staging.dir())?;
        atomic::sync_dir(staging.dir())?;
        atomic::rename(staging.dir(), &self.path(record.fingerprint))?;
        self.index().insert(record)?;
        drop(staging); // Until here heal() sees the lock and leaves the directory alone.
        let stored = self.get(record.fingerprint)?;
        stored.ok_or_else(|| self.damaged("an image that was just stored is gone; try again"))
    }

    /// Keeps a small file beside an image, which its fingerprint does not cover; it goes with the
    /// image. The caller has checked it. Returns where it is.
    pub fn attach(&self, fingerprint: Fingerprint, name: &str, contents: &[u8]) -> Result<PathBuf> {
        let _lock = self.lock(fingerprint)?;
        let path = self.path(fingerprint).join(name);
        atomic::write(&path, contents)?;
        Ok(path)
    }

    /// A file that [`Store::attach`] put there.
    pub fn attachment(&self, fingerprint: Fingerprint, name: &str) -> Option<PathBuf> {
        Some(self.path(fingerprint).join(name)).filter(|path| path.is_file())
    }

    /// Removes an image and its aliases.
    pub fn delete(&self, fingerprint: Fingerprint) -> Result<()> {
        let dir = self.path(fingerprint);
        let trash = Locked::new_in(&self.dir.join(TRASH), "image-")?;
        match fs::rename(&dir, trash.path().join("image")) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(Error::io(&dir)(error)),
            _ => atomic::sync_dir(&self.dir)?,
        }
        self.index().remove(fingerprint)?;
        // What cannot be removed now goes later.
        drop(trash);
        self.tell_names()
    }

    /// Changes an image's properties. What the image itself says of its architecture stays: names
    /// are resolved by it.
    pub fn change_properties(
        &self,
        fingerprint: Fingerprint,
        change: impl FnOnce(&mut BTreeMap<String, String>),
    ) -> Result<()> {
        self.change(fingerprint, |record| {
            let architecture = record.properties.get("architecture").cloned();
            change(&mut record.properties);
            if record.properties.get("architecture") != architecture.as_ref() {
                return Err(Error::image(&fingerprint, "its architecture cannot be changed"));
            }
            Ok(())
        })
    }

    /// Sets whether everybody may see an image.
    pub fn set_public(&self, fingerprint: Fingerprint, public: bool) -> Result<()> {
        self.change(fingerprint, |record| {
            record.public = public;
            Ok(())
        })
    }

    /// Changes what is recorded of an image.
    pub(crate) fn change(
        &self,
        fingerprint: Fingerprint,
        change: impl FnOnce(&mut Record) -> Result<()>,
    ) -> Result<()> {
        let _lock = self.lock(fingerprint)?;
        self.change_record(fingerprint, change)
    }

    /// A directory of the store's own for files whose fingerprint nobody knows yet.
    pub(crate) fn new_incoming(&self) -> Result<Locked> {
        Locked::new_in(&self.dir.join(STAGING), "import-")
    }

    /// Changes what is recorded of an image, which the caller has locked.
    fn change_record(
        &self,
        fingerprint: Fingerprint,
        change: impl FnOnce(&mut Record) -> Result<()>,
    ) -> Result<()> {
        let row = self.index().get(fingerprint)?;
        let (mut record, _) = row.ok_or_else(|| absent(fingerprint))?;
        change(&mut record)?;
        put_record(&self.path(fingerprint), &record)?;
        self.index().update(&record)
    }

    /// Locks an image's directory against whoever else changes it; waits for them.
    fn lock(&self, fingerprint: Fingerprint) -> Result<File> {
        let dir = self.path(fingerprint);
        loop {
            match staging::try_lock(&dir) {
                Ok(Some(lock)) => return Ok(lock),
                Ok(None) => std::thread::sleep(Duration::from_millis(50)),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    return Err(absent(fingerprint));
                }
                Err(error) => return Err(Error::io(&dir)(error)),
            }
        }
    }

    /// Notes that something was started from an image.
    pub fn touch(&self, fingerprint: Fingerprint, now: DateTime<Utc>) -> Result<()> {
        self.index().touch(fingerprint, now)
    }

    /// Notes that a newer image was looked for, and there is none.
    pub fn note_look(&self, fingerprint: Fingerprint, now: DateTime<Utc>) -> Result<()> {
        self.index().note_look(fingerprint, now)
    }

    /// Sets whether an image may go when unused, and whether it follows newer serials.
    pub fn set_flags(&self, fingerprint: Fingerprint, cached: bool, auto_update: bool) -> Result<()> {
        self.index().set_flags(fingerprint, cached, auto_update)
    }

    /// Hashes an image again; the error says what is wrong with it.
    pub fn verify(&self, image: &StoredImage) -> Result<()> {
        image.expect_files()?;
        if let Some(expected) = image.uncompressed {
            return self.verify_uncompressed(image, expected);
        }
        let found = Fingerprint::of_files(&image.metadata, &image.rootfs)?;
        if found == image.fingerprint {
            return Ok(());
        }
        Err(self.damaged_image(image, found))
    }

    fn path(&self, fingerprint: Fingerprint) -> PathBuf {
        self.dir.join(fingerprint.to_string())
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn damaged_image(&self, image: &StoredImage, found: Fingerprint) -> Error {
        let reason = format!("its files hash to {found}; delete the image and fetch it again");
        Error::Store { path: self.path(image.fingerprint), reason }
    }

    fn damaged(&self, reason: &str) -> Error {
        Error::Store { path: self.dir.clone(), reason: reason.to_owned() }
    }

    fn image(&self, record: Record, state: index::State) -> StoredImage {
        StoredImage::new(&self.path(record.fingerprint), record, state)
    }
}

impl StoredImage {
    /// The image whose files are in `dir`.
    fn new(dir: &Path, record: Record, state: index::State) -> Self {
        Self {
            fingerprint: record.fingerprint,
            metadata: dir.join(&record.metadata),
            rootfs: dir.join(&record.rootfs),
            size: record.size,
            properties: record.properties,
            origin: record.origin,
            aliases: state.aliases,
            created: record.created,
            stored: record.stored,
            last_used: state.last_used,
            looked: state.looked,
            cached: record.cached,
            auto_update: record.auto_update,
            public: record.public,
            uncompressed: record.uncompressed,
        }
    }
}

/// Writes an image's `image.json`.
fn put_record(dir: &Path, record: &Record) -> Result<()> {
    let text = serde_json::to_vec_pretty(record).map_err(|e| Error::document(RECORD, e))?;
    Ok(atomic::write(&dir.join(RECORD), &text)?)
}

fn absent(fingerprint: Fingerprint) -> Error {
    Error::image(&fingerprint, "it is not in the local store")
}

#[cfg(test)]
mod tests;
