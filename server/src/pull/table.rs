//! The files upstream has for this tree, written down so that a restart needs no upstream.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use millstream_client::{CatalogueImage, RemoteFile};
use millstream_image::{Serial, Sha256Digest, atomic};
use serde::{Deserialize, Serialize};

use crate::stream::{MIRROR, offered_files};
use crate::{Error, Result};

/// A file, as upstream's documents state it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Expected {
    /// Path in upstream's tree.
    from: String,
    /// Bytes.
    pub(super) size: u64,
    pub(super) sha256: Sha256Digest,
}

impl Expected {
    pub(super) fn of(file: &RemoteFile) -> Self {
        Self { from: file.path.to_string(), size: file.size, sha256: file.sha256 }
    }

    pub(super) fn remote(&self) -> Result<RemoteFile> {
        let path = self.from.parse()?;
        Ok(RemoteFile { path, size: self.size, sha256: self.sha256 })
    }
}

/// Files by their path in our tree.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Table(BTreeMap<String, Expected>);

impl Table {
    pub(super) fn of(images: &[(Serial, CatalogueImage)]) -> Self {
        let files = images.iter().flat_map(|(serial, image)| offered_files(*serial, image));
        Self(files.map(|file| (file.path, Expected::of(file.remote))).collect())
    }

    /// The table of a tree; `None` when none was ever written.
    pub(super) fn read(root: &Path) -> Result<Option<Self>> {
        let path = place(root);
        match fs::read(&path) {
            Ok(text) => {
                serde_json::from_slice(&text).map(Some).map_err(|e| Error::tree(&path, e.to_string()))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io(&path)(error)),
        }
    }

    pub(super) fn write(&self, root: &Path) -> Result<()> {
        let path = place(root);
        let dir = root.join(MIRROR);
        fs::create_dir_all(&dir).map_err(Error::io(&dir))?;
        let text = serde_json::to_vec(self).map_err(|e| Error::tree(&path, e.to_string()))?;
        atomic::write(&path, &text).map_err(Error::image(&path))
    }

    pub(super) fn get(&self, path: &str) -> Option<&Expected> {
        self.0.get(path)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Files that a newer table has with other contents.
    pub(super) fn contradicted_by<'a>(&'a self, newer: &'a Self) -> impl Iterator<Item = &'a String> {
        let other =
            |(path, file): &(&String, &Expected)| newer.get(path).is_some_and(|n| n.sha256 != file.sha256);
        self.0.iter().filter(other).map(|(path, _)| path)
    }
}

fn place(root: &Path) -> PathBuf {
    root.join(MIRROR).join("upstream.json")
}
