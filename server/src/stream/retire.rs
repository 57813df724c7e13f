//! Images that left the documents. Their files stay a while, for downloads under way.
//!
//! `.retired` names them with the time from which they may go. An entry is written before the
//! documents drop the image and does nothing while they still list it, so that a publisher that is
//! cut off in between has changed nothing.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};

use chrono::{DateTime, Utc};
use millstream_image::atomic;

use super::layout::{IMAGES, RETIRED};
use super::{Stream, place};
use crate::{Error, Result};

/// The contents of `.retired`: image directories, from the root, and when they may go.
#[derive(Debug, Default)]
pub(super) struct Retired(BTreeMap<PathBuf, DateTime<Utc>>);

impl Retired {
    pub(super) fn load(root: &Path) -> Result<Self> {
        let path = root.join(RETIRED);
        let text = match fs::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Self::default()),
            text => text.map_err(Error::io(&path))?,
        };
        let entries: BTreeMap<PathBuf, DateTime<Utc>> =
            serde_json::from_slice(&text).map_err(|e| Error::tree(&path, e.to_string()))?;
        if let Some(bad) = entries.keys().find(|path| !is_image_path(path)) {
            return Err(Error::tree(&path, format!("{} is no image; remove this file", bad.display())));
        }
        Ok(Self(entries))
    }

    pub(super) fn contains(&self, image: &Path) -> bool {
        self.0.contains_key(image)
    }

    /// Notes that an image may go at `due`; an earlier date stays.
    pub(super) fn add(&mut self, image: PathBuf, due: DateTime<Utc>) {
        self.0.entry(image).or_insert(due);
    }

    pub(super) fn save(&self, root: &Path) -> Result<()> {
        let path = root.join(RETIRED);
        let text = serde_json::to_vec_pretty(&self.0).map_err(|e| Error::tree(&path, e.to_string()))?;
        atomic::write(&path, &text).map_err(Error::image(&path))
    }

    /// Images whose time has come, by what documents list now.
    pub(super) fn due(
        &self,
        now: DateTime<Utc>,
        mut listed: impl FnMut(&Path) -> Result<bool>,
    ) -> Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for (path, _) in self.0.iter().filter(|(_, due)| **due <= now) {
            if !listed(path)? {
                found.push(path.clone());
            }
        }
        Ok(found)
    }

    /// Removes what is due and forgets what is listed again or gone. Returns what was removed, with
    /// its bytes.
    pub(super) fn collect(
        mut self,
        root: &Path,
        now: DateTime<Utc>,
        mut listed: impl FnMut(&Path) -> Result<bool>,
    ) -> Result<Vec<(PathBuf, u64)>> {
        let mut removed = Vec::new();
        for path in self.due(now, &mut listed)? {
            let bytes = bytes(&root.join(&path));
            place::discard(root, &path)?;
            removed.push((path, bytes));
        }
        let mut settled = Vec::new();
        for path in self.0.keys() {
            if !root.join(path).exists() || listed(path)? {
                settled.push(path.clone());
            }
        }
        for path in &settled {
            self.0.remove(path);
        }
        if !settled.is_empty() {
            self.save(root)?;
        }
        Ok(removed)
    }
}

impl Stream {
    /// Every directory where an image may be, listed or not.
    pub(super) fn image_directories(&self) -> Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        let mut open = vec![PathBuf::from(IMAGES)];
        while let Some(dir) = open.pop() {
            let full = self.root.join(&dir);
            for item in fs::read_dir(&full).map_err(Error::io(&full))? {
                let item = item.map_err(Error::io(&full))?;
                if !item.file_type().map_err(Error::io(item.path()))?.is_dir() {
                    continue; // `verify` tells of it.
                }
                let path = dir.join(item.file_name());
                if is_image_path(&path) { found.push(path) } else { open.push(path) }
            }
        }
        found.sort();
        Ok(found)
    }
}

/// `images/DIST/RELEASE/ARCH/VARIANT/SERIAL`, nothing else.
pub(super) fn is_image_path(path: &Path) -> bool {
    path.starts_with(IMAGES)
        && path.components().count() == 6
        && path.components().all(|part| matches!(part, Component::Normal(_)))
}

/// Bytes of the files in an image directory.
pub(super) fn bytes(dir: &Path) -> u64 {
    let files = fs::read_dir(dir).into_iter().flatten().flatten();
    files.filter_map(|item| item.metadata().ok()).map(|meta| meta.len()).sum()
}
