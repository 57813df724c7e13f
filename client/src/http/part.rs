//! `DEST.part`: what has come of a file so far, with its running hash.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use millstream_image::Sha256Digest;
use rustix::fs::OFlags;
use sha2::{Digest, Sha256};

use crate::arriving::Publisher;
use crate::{Error, Result};

const LOCK_POLL: Duration = Duration::from_millis(50);

/// An unfinished download, locked by this process.
pub(super) struct Part {
    path: PathBuf,
    file: File,
    state: Sha256,
    have: u64,
    publisher: Option<Publisher>,
}

impl Part {
    /// Opens or makes the part of `dest` and locks it; waits while another process has it. The
    /// lock dies with its process.
    pub(super) async fn lock(dest: &Path) -> Result<Self> {
        let mut name = dest.file_name().unwrap_or_default().to_owned();
        name.push(".part");
        let path = dest.with_file_name(name);
        loop {
            let file = open(&path).map_err(Error::io(&path))?;
            match file.try_lock() {
                // The one before us may have moved or removed the file we waited for.
                Ok(()) if is_at(&file, &path) => {
                    return Ok(Self { path, file, state: Sha256::new(), have: 0, publisher: None });
                }
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => tokio::time::sleep(LOCK_POLL).await,
                Err(TryLockError::Error(error)) => return Err(Error::io(&path)(error)),
            }
        }
    }

    /// Lets somebody read the bytes while they come.
    pub(super) fn publish(&mut self, publisher: Publisher) -> Result<()> {
        publisher.begin(self.file.try_clone().map_err(Error::io(&self.path))?);
        self.publisher = Some(publisher);
        Ok(())
    }

    /// Hashes what an earlier try left: it is never trusted. Blocks.
    pub(super) fn rehash(mut self, limit: u64) -> Result<Self> {
        if self.file.metadata().map_err(Error::io(&self.path))?.len() > limit {
            self.restart()?;
        }
        self.rehash_all().map_err(Error::io(&self.path))?;
        Ok(self)
    }

    fn rehash_all(&mut self) -> io::Result<()> {
        let mut buffer = vec![0; 256 << 10];
        loop {
            match self.file.read(&mut buffer)? {
                0 => return Ok(()),
                count => {
                    self.state.update(&buffer[..count]);
                    self.came(count);
                }
            }
        }
    }

    /// Bytes so far.
    pub(super) fn have(&self) -> u64 {
        self.have
    }

    /// Throws away what is there.
    pub(super) fn restart(&mut self) -> Result<()> {
        self.state = Sha256::new();
        self.have = 0;
        if let Some(publisher) = &self.publisher {
            publisher.restart();
        }
        self.file.set_len(0).map_err(Error::io(&self.path))?;
        self.file.seek(SeekFrom::Start(0)).map_err(Error::io(&self.path))?;
        Ok(())
    }

    /// Adds bytes. A full disk is not kept full by what cannot be finished. Blocks.
    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<()> {
        match self.file.write_all(bytes) {
            Ok(()) => {
                self.state.update(bytes);
                self.came(bytes.len());
                Ok(())
            }
            Err(error) => {
                self.remove();
                Err(Error::io(&self.path)(error))
            }
        }
    }

    fn came(&mut self, count: usize) {
        self.have += count as u64;
        if let Some(publisher) = &self.publisher {
            publisher.have(self.have);
        }
    }

    /// The digest of all bytes so far.
    pub(super) fn digest(&self) -> Sha256Digest {
        self.state.clone().into()
    }

    /// Brings the bytes to the disk. The caller has seen that they are right. Blocks.
    pub(super) fn sync(self) -> Result<Self> {
        if let Some(publisher) = &self.publisher {
            publisher.right();
        }
        self.file.sync_all().map_err(Error::io(&self.path))?;
        Ok(self)
    }

    /// Puts the file in its place, after [`Part::sync`]. To be called where a download that is
    /// dropped ends, never by a thread of its own: whoever drops it may be removing the directory.
    pub(super) fn finish(self, dest: &Path) -> Result<()> {
        fs::rename(&self.path, dest).map_err(Error::io(dest))
    }

    /// Removes the file, also when that is not possible any more.
    pub(super) fn remove(&self) {
        drop(fs::remove_file(&self.path));
    }
}

/// A link in the part's place would lead the writes elsewhere.
fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).read(true).write(true);
    options.custom_flags(OFlags::NOFOLLOW.bits().cast_signed()).open(path)
}

/// Whether the open file still is what the path names.
fn is_at(file: &File, path: &Path) -> bool {
    let (Ok(open), Ok(named)) = (file.metadata(), fs::symlink_metadata(path)) else { return false };
    open.ino() == named.ino() && open.dev() == named.dev()
}
