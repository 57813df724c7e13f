//! Compressed blocks kept from one build for the next.
//!
//! A directory with one file a block, named by the SHA-256 of what determines its bytes: what is
//! compressed, the coder's settings, the coder itself. A file holds, numbers little-endian: eight bytes that name
//! the format; the bytes of the block without padding and those of its contents, each as 64 bits;
//! the SHA-256 of these numbers and of the block; the block. A file that is anything else counts as
//! missing, and is replaced.
//!
//! Files appear by rename, so builds may share a directory. Nothing here fails a build: without room
//! or right to write, blocks are compressed again. Who may write into the directory is trusted as much as
//! whoever runs the build.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use rustix::fs::{Timespec, Timestamps, UTIME_NOW};
use sha2::{Digest, Sha256};

use super::block::{Block, Coder, Record};
use crate::{Error, Result, Sha256Digest};

const FORMAT: &[u8; 8] = b"msblock1";
const HEADER: usize = 8 + 16 + 32;
const TEMPORARY: &str = ".new-";

/// What [`BlockCache::prune`] left and took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Bytes of the files left.
    pub kept: u64,
    /// Bytes of the files removed.
    pub removed: u64,
}

/// A directory of compressed blocks.
#[derive(Debug)]
pub struct BlockCache {
    directory: PathBuf,
    /// What each coder makes of the sample.
    coders: Mutex<HashMap<Coder, Sha256Digest>>,
}

impl BlockCache {
    /// The cache in `directory`, which is made when the first block is stored.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into(), coders: Mutex::default() }
    }

    /// Removes blocks not used since `unused_since`, then those unused longest, until at most
    /// `max_bytes` are left.
    ///
    /// # Errors
    /// The directory, where there is one, cannot be read or changed.
    pub fn prune(&self, max_bytes: u64, unused_since: SystemTime) -> Result<Pruned> {
        let mut files = self.files().map_err(Error::io(&self.directory))?;
        files.sort();
        let mut kept = files.iter().map(|(_, size, _)| size).sum();
        let mut removed = 0;
        for (used, size, path) in files {
            if kept <= max_bytes && used >= unused_since {
                break;
            }
            match fs::remove_file(&path) {
                // Another build has pruned as well.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => other.map_err(Error::io(&path))?,
            }
            kept -= size;
            removed += size;
        }
        Ok(Pruned { kept, removed })
    }

    /// When each file was used last, its bytes, its path. Unfinished ones are among them: one left behind ages
    /// as others do.
    fn files(&self) -> io::Result<Vec<(SystemTime, u64, PathBuf)>> {
        let listing = match fs::read_dir(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        let mut files = Vec::new();
        for item in listing {
            let item = item?;
            let ours = item
                .file_name()
                .to_str()
                .is_some_and(|name| name.starts_with(TEMPORARY) || name.parse::<Sha256Digest>().is_ok());
            match item.metadata() {
                Ok(meta) if ours && meta.is_file() => files.push((meta.modified()?, meta.len(), item.path())),
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(files)
    }

    /// The name under which a block of `data` is kept.
    pub(super) fn key(&self, data: &[u8], coder: Coder) -> io::Result<Sha256Digest> {
        let mut hash = Sha256::new();
        hash.update(FORMAT);
        hash.update(self.coder(coder)?.as_bytes());
        hash.update(data);
        Ok(hash.into())
    }

    /// Stands for a coder: its settings, and what it makes of a sample, since another version of
    /// liblzma may make other bytes.
    fn coder(&self, coder: Coder) -> io::Result<Sha256Digest> {
        let mut coders = self.coders.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = coders.get(&coder) {
            return Ok(*known);
        }
        let made = Block::compress(&sample(), coder)?;
        let digest = Sha256Digest::of(&[format!("{coder:?}\n").as_bytes(), &made.data].concat());
        coders.insert(coder, digest);
        Ok(digest)
    }

    /// A block kept earlier, if it is whole.
    pub(super) fn get(&self, key: &Sha256Digest, uncompressed: u64) -> Option<Block> {
        let path = self.path(key);
        let bytes = fs::read(&path).ok()?;
        let block = parse(&bytes).filter(|block| block.record.uncompressed == uncompressed)?;
        let _best_effort = touch(&path);
        Some(block)
    }

    /// Keeps a block, if there is room.
    pub(super) fn put(&self, key: &Sha256Digest, block: &Block) {
        let _best_effort = self.write(key, block);
    }

    fn write(&self, key: &Sha256Digest, block: &Block) -> io::Result<()> {
        fs::create_dir_all(&self.directory)?;
        // Not flushed: what a crash leaves half written does not match its digest.
        let mut file = tempfile::Builder::new().prefix(TEMPORARY).tempfile_in(&self.directory)?;
        file.write_all(&header(block))?;
        file.write_all(&block.data)?;
        file.persist(self.path(key))?;
        Ok(())
    }

    fn path(&self, key: &Sha256Digest) -> PathBuf {
        self.directory.join(key.to_string())
    }
}

fn header(block: &Block) -> Vec<u8> {
    let mut header = FORMAT.to_vec();
    header.extend_from_slice(&block.record.unpadded.to_le_bytes());
    header.extend_from_slice(&block.record.uncompressed.to_le_bytes());
    let digest = digest(&header[8..], &block.data);
    header.extend_from_slice(digest.as_bytes());
    header
}

fn digest(numbers: &[u8], block: &[u8]) -> Sha256Digest {
    let mut hash = Sha256::new();
    hash.update(numbers);
    hash.update(block);
    hash.into()
}

fn parse(bytes: &[u8]) -> Option<Block> {
    let (header, data) = bytes.split_at_checked(HEADER)?;
    let numbers = header.strip_prefix(FORMAT)?;
    let (numbers, sum) = numbers.split_at(16);
    let number = |at: usize| numbers[at..at + 8].try_into().map(u64::from_le_bytes).ok();
    let record = Record { unpadded: number(0)?, uncompressed: number(8)? };
    let whole =
        digest(numbers, data).as_bytes() == sum && record.unpadded.next_multiple_of(4) == data.len() as u64;
    whole.then(|| Block { data: data.to_vec(), record })
}

/// Says that a file was used now.
fn touch(path: &Path) -> io::Result<()> {
    let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
    let file = File::open(path)?;
    Ok(rustix::fs::futimens(&file, &Timestamps { last_access: now, last_modification: now })?)
}

/// Some repetition, some noise.
fn sample() -> Vec<u8> {
    (0..16_384_u32).flat_map(|i| (i.wrapping_mul(2_654_435_761) >> (8 + i / 1024)).to_le_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, SystemTime};

    use proptest::prelude::*;

    use super::super::xz::{Bcj, Blocks, Watch, XzOptions, XzWriter};
    use super::*;

    const CODER: Coder = Coder { level: 0, bcj: None };

    fn stored(text: &str) -> (tempfile::TempDir, BlockCache, Sha256Digest, Block) {
        let dir = tempfile::tempdir().unwrap();
        let cache = BlockCache::new(dir.path().join("blocks"));
        let key = cache.key(text.as_bytes(), CODER).unwrap();
        let block = Block::compress(text.as_bytes(), CODER).unwrap();
        cache.put(&key, &block);
        assert_eq!(cache.get(&key, text.len() as u64).as_ref(), Some(&block));
        (dir, cache, key, block)
    }

    fn pack(cache: Option<&Arc<BlockCache>>, level: u32, bcj: Option<Bcj>) -> (Vec<u8>, Blocks) {
        let options = XzOptions { level, bcj, threads: 2, block_size: 1 << 20 };
        let mut writer = XzWriter::new(Vec::new(), options, Watch::default(), cache);
        for block in 0..8_u8 {
            writer.write_all(&vec![block % 4; 50_000]).unwrap();
            writer.end_block(block % 2 == 0).unwrap();
        }
        writer.finish().unwrap()
    }

    #[test]
    fn an_archive_has_the_same_bytes_with_and_without_the_cache() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Arc::new(BlockCache::new(dir.path().join("made/when/needed")));
        for (level, bcj) in [(0, None), (0, Some(Bcj::X86)), (1, None)] {
            let (plain, blocks) = pack(None, level, bcj);
            assert_eq!(blocks, Blocks { compressed: 8, cached: 0 });
            assert!(pack(Some(&cache), level, bcj).0 == plain);
            let (again, blocks) = pack(Some(&cache), level, bcj);
            assert!(again == plain);
            assert_eq!(blocks, Blocks { compressed: 0, cached: 8 });
        }
    }

    #[test]
    fn a_cache_that_cannot_be_written_does_no_harm() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), "").unwrap();
        let cache = Arc::new(BlockCache::new(dir.path().join("file/blocks")));
        let (bytes, blocks) = pack(Some(&cache), 0, None);
        assert!(bytes == pack(None, 0, None).0);
        assert_eq!(blocks, Blocks { compressed: 8, cached: 0 });
    }

    #[test]
    fn what_was_unused_longest_goes_first_and_strangers_stay() {
        let (dir, cache, first, block) = stored("first");
        let size = (HEADER + block.data.len()) as u64;
        let now = SystemTime::now();
        let mut keys = vec![first];
        for text in ["second", "third"] {
            let key = cache.key(text.as_bytes(), CODER).unwrap();
            cache.put(&key, &block);
            keys.push(key);
        }
        for (age, key) in [300, 200, 100].iter().zip(&keys) {
            let file = File::options().write(true).open(cache.path(key)).unwrap();
            file.set_modified(now - Duration::from_secs(*age)).unwrap();
        }
        std::fs::write(dir.path().join("blocks/notes.txt"), "not a block").unwrap();
        // Used just now, so the oldest no more.
        assert!(cache.get(&first, 5).is_some());
        let long_ago = SystemTime::UNIX_EPOCH;
        assert_eq!(cache.prune(2 * size, long_ago).unwrap(), Pruned { kept: 2 * size, removed: size });
        let there = || keys.iter().map(|key| cache.path(key).exists()).collect::<Vec<_>>();
        assert_eq!(there(), [true, false, true]);
        assert_eq!(cache.prune(2 * size, now - Duration::from_secs(50)).unwrap().removed, size);
        assert_eq!(there(), [true, false, false]);
        assert_eq!(cache.prune(0, long_ago).unwrap(), Pruned { kept: 0, removed: size });
        assert!(dir.path().join("blocks/notes.txt").exists());
        assert_eq!(BlockCache::new("/nonexistent/blocks").prune(0, now).unwrap(), Pruned::default());
    }

    proptest! {
        #[test]
        fn a_damaged_file_counts_as_missing_and_is_replaced(
            at in any::<prop::sample::Index>(), change in 1_u8.., cut in any::<bool>(),
        ) {
            let (_dir, cache, key, block) = stored("some text to keep, some text to keep");
            let path = cache.path(&key);
            let mut bytes = std::fs::read(&path).unwrap();
            let at = at.index(bytes.len());
            if cut { bytes.truncate(at) } else { bytes[at] ^= change }
            std::fs::write(&path, &bytes).unwrap();
            prop_assert_eq!(cache.get(&key, 36), None);
            cache.put(&key, &block);
            prop_assert_eq!(cache.get(&key, 36), Some(block));
            prop_assert_eq!(cache.get(&key, 35), None);
        }
    }
}
