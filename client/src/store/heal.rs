//! Completing what a killed process left half done.

use std::collections::BTreeSet;
use std::fs::{self, DirEntry};
use std::path::Path;
use std::time::{Duration, SystemTime};

use millstream_image::Fingerprint;

use super::compressed::{UNCOMPRESSED, remove_parts};
use super::staging::try_lock;
use super::{RECORD, Record, STAGING, Store, TRASH};
use crate::{Error, Result};

/// Unfinished downloads nobody came back for.
pub(super) const ABANDONED: Duration = Duration::from_hours(7 * 24);

impl Store {
    pub(super) fn heal(&self) -> Result<()> {
        let present = present(&self.dir)?;
        let images = self.list()?;
        for image in images.iter().filter(|image| image.uncompressed.is_none()) {
            let dir = self.path(image.fingerprint);
            if dir.join(UNCOMPRESSED).exists() {
                remove_parts(&dir);
            }
        }
        let listed: BTreeSet<_> = images.into_iter().map(|image| image.fingerprint).collect();
        for arrived in present.difference(&listed) {
            match self.adopt(*arrived) {
                // One damaged image keeps nobody from the others; who asks for it is told.
                Err(Error::Store { .. }) => {}
                other => other?,
            }
        }
        for left in listed.difference(&present) {
            // Asked again: it may have arrived since the directory was read.
            if !self.path(*left).exists() {
                self.index().remove(*left)?;
            }
        }
        self.tell_names()?;
        sweep(&self.dir.join(STAGING))?;
        sweep(&self.dir.join(TRASH))
    }

    /// Gives an image its row. A locked directory has a living process that will.
    pub(super) fn adopt(&self, fingerprint: Fingerprint) -> Result<()> {
        let dir = self.path(fingerprint);
        let Ok(Some(_lock)) = try_lock(&dir) else { return Ok(()) };
        match read_record(&self.dir, fingerprint) {
            Ok(record) => self.index().insert(&record),
            // It was deleted in this moment.
            Err(_) if !dir.exists() => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Images that have a directory in a store.
pub(super) fn present(dir: &Path) -> Result<BTreeSet<Fingerprint>> {
    let parsed = |entry: &DirEntry| entry.file_name().to_str()?.parse().ok();
    Ok(entries(dir)?.iter().filter(|entry| entry.path().is_dir()).filter_map(parsed).collect())
}

/// What `image.json` says of an image.
///
/// # Errors
/// [`Error::Store`] when it is not there, or not that of this image.
pub(super) fn read_record(dir: &Path, fingerprint: Fingerprint) -> Result<Record> {
    let file = dir.join(fingerprint.to_string()).join(RECORD);
    let damaged = |reason: String| Error::Store {
        path: file.clone(),
        reason: format!("{reason}; millstream store check --repair heals it"),
    };
    let text = fs::read(&file).map_err(|e| damaged(e.to_string()))?;
    let record: Record = serde_json::from_slice(&text).map_err(|e| damaged(e.to_string()))?;
    let plain = |name: &str| !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\0']);
    if record.fingerprint != fingerprint || !plain(&record.metadata) || !plain(&record.rootfs) {
        return Err(damaged("it does not describe the image in this directory".into()));
    }
    Ok(record)
}

/// Removes directories that no process has locked, but for downloads that may be resumed.
fn sweep(dir: &Path) -> Result<()> {
    let now = SystemTime::now();
    for entry in entries(dir)? {
        let download = entry.file_name().to_str().is_some_and(|name| name.parse::<Fingerprint>().is_ok());
        let old = entry
            .metadata()
            .and_then(|meta| meta.modified())
            .is_ok_and(|time| now.duration_since(time).is_ok_and(|since| since > ABANDONED));
        if (old || !download)
            && let Ok(Some(_lock)) = try_lock(&entry.path())
        {
            drop(fs::remove_dir_all(entry.path()));
        }
    }
    Ok(())
}

pub(super) fn entries(dir: &Path) -> Result<Vec<DirEntry>> {
    fs::read_dir(dir).and_then(Iterator::collect).map_err(Error::io(dir))
}
