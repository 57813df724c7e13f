//! Product documents that never change, kept by hash so that they are fetched once.

use std::fs;
use std::path::{Path, PathBuf};

use millstream_image::{Sha256Digest, atomic};

/// Documents kept; the oldest go first.
const KEPT: usize = 24;

/// A directory of documents. Everything in it can be fetched again: it is hashed at every use,
/// and a full or read-only disk is no reason to fail.
#[derive(Clone, Debug)]
pub(crate) struct DocumentCache<'a>(pub &'a Path);

impl DocumentCache<'_> {
    /// The document of this hash, if it is here undamaged.
    pub(crate) fn get(&self, sha256: Sha256Digest) -> Option<Vec<u8>> {
        let text = fs::read(self.path(sha256)).ok()?;
        (Sha256Digest::of(&text) == sha256).then_some(text)
    }

    /// Keeps a document of this hash.
    pub(crate) fn put(&self, sha256: Sha256Digest, text: &[u8]) {
        let kept = fs::create_dir_all(self.0).is_ok() && atomic::write(&self.path(sha256), text).is_ok();
        if kept {
            self.prune();
        }
    }

    fn path(&self, sha256: Sha256Digest) -> PathBuf {
        self.0.join(format!("{sha256}.json"))
    }

    fn prune(&self) {
        let Ok(entries) = fs::read_dir(self.0) else { return };
        let age = |entry: &fs::DirEntry| entry.metadata().and_then(|meta| meta.modified()).ok();
        let mut files: Vec<_> = entries.flatten().map(|entry| (age(&entry), entry.path())).collect();
        files.sort();
        for (_, file) in files.iter().rev().skip(KEPT) {
            drop(fs::remove_file(file));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_so_many_and_nothing_damaged() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("documents");
        let cache = DocumentCache(&dir);
        for number in 0..KEPT + 5 {
            let text = number.to_string().into_bytes();
            cache.put(Sha256Digest::of(&text), &text);
            assert_eq!(cache.get(Sha256Digest::of(&text)), Some(text));
        }
        assert_eq!(fs::read_dir(&dir).unwrap().count(), KEPT);
        let last = Sha256Digest::of((KEPT + 4).to_string().as_bytes());
        fs::write(cache.path(last), "other").unwrap();
        assert_eq!(cache.get(last), None);
    }
}
