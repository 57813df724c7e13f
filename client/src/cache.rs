//! Product documents that never change, kept by hash so that they are fetched once.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use millstream_image::Sha256Digest;

/// Bytes of documents kept; the oldest go first. What one remote lists must fit well, or every
/// reading would fetch it again.
const KEPT: u64 = 256 << 20;

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
        if self.write(sha256, text).is_ok() {
            self.prune(KEPT);
        }
    }

    /// Not synced to disk: a document that a power cut damages is fetched again.
    fn write(&self, sha256: Sha256Digest, text: &[u8]) -> io::Result<()> {
        fs::create_dir_all(self.0)?;
        let mut file = tempfile::NamedTempFile::new_in(self.0)?;
        file.write_all(text)?;
        file.persist(self.path(sha256))?;
        Ok(())
    }

    fn path(&self, sha256: Sha256Digest) -> PathBuf {
        self.0.join(format!("{sha256}.json"))
    }

    fn prune(&self, kept: u64) {
        let Ok(entries) = fs::read_dir(self.0) else { return };
        let described = |entry: fs::DirEntry| {
            let meta = entry.metadata().ok()?;
            Some((meta.modified().ok()?, meta.len(), entry.path()))
        };
        let mut files: Vec<_> = entries.flatten().filter_map(described).collect();
        files.sort();
        let mut sum = 0;
        for (_, size, file) in files.iter().rev() {
            sum += size;
            if sum > kept {
                drop(fs::remove_file(file));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_newest_and_nothing_damaged() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("documents");
        let cache = DocumentCache(&dir);
        for number in 0..100 {
            let text = format!("{number:02}").into_bytes();
            cache.put(Sha256Digest::of(&text), &text);
            assert_eq!(cache.get(Sha256Digest::of(&text)), Some(text));
        }
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 100, "one remote's documents all stay");
        cache.prune(2 * 10);
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 10);
        let last = Sha256Digest::of(b"99");
        assert!(cache.get(last).is_some());
        fs::write(cache.path(last), "other").unwrap();
        assert_eq!(cache.get(last), None);
    }
}
