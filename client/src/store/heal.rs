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
const ABANDONED: Duration = Duration::from_hours(7 * 24);
/// Deletions under way take moments.
const DELETING: Duration = Duration::from_mins(10);

impl Store {
    pub(super) fn heal(&self) -> Result<()> {
        let present: BTreeSet<Fingerprint> =
            entries(&self.dir)?.iter().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
        let images = self.list()?;
        for image in images.iter().filter(|image| image.uncompressed.is_none()) {
            let dir = self.path(image.fingerprint);
            if dir.join(UNCOMPRESSED).exists() {
                remove_parts(&dir);
            }
        }
        let listed: BTreeSet<_> = images.into_iter().map(|image| image.fingerprint).collect();
        for arrived in present.difference(&listed) {
            self.adopt(*arrived)?;
        }
        for left in listed.difference(&present) {
            // Asked again: it may have arrived since the directory was read.
            if !self.path(*left).exists() {
                self.index().remove(*left)?;
            }
        }
        sweep(&self.dir.join(STAGING), ABANDONED)?;
        sweep(&self.dir.join(TRASH), DELETING)
    }

    /// Gives an image its row. A locked directory has a living process that will.
    pub(super) fn adopt(&self, fingerprint: Fingerprint) -> Result<()> {
        let dir = self.path(fingerprint);
        let Ok(Some(_lock)) = try_lock(&dir) else { return Ok(()) };
        let file = dir.join(RECORD);
        let damaged = |reason: String| Error::Store { path: file.clone(), reason };
        let text = match fs::read(&file) {
            Ok(text) => text,
            // It was deleted in this moment.
            Err(_) if !dir.exists() => return Ok(()),
            Err(error) => return Err(Error::io(&file)(error)),
        };
        let record: Record = serde_json::from_slice(&text).map_err(|e| damaged(e.to_string()))?;
        let plain = |name: &str| !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\0']);
        if record.fingerprint != fingerprint || !plain(&record.metadata) || !plain(&record.rootfs) {
            return Err(damaged(
                "it does not describe the image in this directory; remove the directory".into(),
            ));
        }
        self.index().insert(&record)
    }
}

/// Removes directories that are old and that no process has locked.
fn sweep(dir: &Path, age: Duration) -> Result<()> {
    let now = SystemTime::now();
    for entry in entries(dir)? {
        let old = entry
            .metadata()
            .and_then(|meta| meta.modified())
            .is_ok_and(|time| now.duration_since(time).is_ok_and(|since| since > age));
        if old && let Ok(Some(_lock)) = try_lock(&entry.path()) {
            drop(fs::remove_dir_all(entry.path()));
        }
    }
    Ok(())
}

fn entries(dir: &Path) -> Result<Vec<DirEntry>> {
    fs::read_dir(dir).and_then(Iterator::collect).map_err(Error::io(dir))
}
