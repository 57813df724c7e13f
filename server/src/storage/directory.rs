//! A directory that all machines mount, as a network file system: keys are its paths.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use futures_util::{FutureExt, StreamExt, TryStreamExt};
use millstream_image::{Sha256Digest, atomic};
use rustix::fs::{FlockOperation, flock};
use tokio::io::AsyncReadExt;
use tokio_util::bytes::Bytes;
use tokio_util::io::ReaderStream;
use url::Url;

use super::{Answer, Condition, Pieces, Storage, Stored, Tag};
use crate::{Error, Result};

/// Locked while a condition is looked at and its object written.
const LOCK: &str = ".lock";

/// Objects in files below a directory.
#[derive(Debug)]
pub struct Directory {
    root: PathBuf,
}

impl Directory {
    /// The storage in `root`, which is made when something is written.
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_path_buf() }
    }

    fn put(&self, key: &str, bytes: &[u8], condition: &Condition) -> Result<bool> {
        let path = self.root.join(key);
        let parent = path.parent().unwrap_or(&self.root);
        fs::create_dir_all(parent).map_err(Error::io(parent))?;
        let _lock = match condition {
            Condition::Always => None,
            _ => Some(self.lock()?),
        };
        let holds = match condition {
            Condition::Always => true,
            Condition::New => !path.exists(),
            Condition::Same(tag) => get(&path, u64::MAX)?.is_some_and(|(_, present)| present == *tag),
        };
        if holds {
            atomic::write(&path, bytes).map_err(Error::image(&path))?;
        }
        Ok(holds)
    }

    fn lock(&self) -> Result<File> {
        let path = self.root.join(LOCK);
        let file = File::options().write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(Error::io(&path))?;
        rustix::io::retry_on_intr(|| flock(&file, FlockOperation::LockExclusive))
            .map_err(|error| Error::io(&path)(error.into()))?;
        Ok(file)
    }
}

fn get(path: &Path, limit: u64) -> Result<Option<(Bytes, Tag)>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        file => file.map_err(Error::io(path))?,
    };
    let mut bytes = Vec::new();
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(Error::io(path))?;
    if bytes.len() as u64 > limit {
        return Err(Error::io(path)(io::Error::other(format!("more than {limit} bytes"))));
    }
    let tag = Tag(Sha256Digest::of(&bytes).to_string());
    Ok(Some((bytes.into(), tag)))
}

/// Files are written by many at once, so each has a name of its own until it is whole.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let parent = to.parent().unwrap_or(to);
    fs::create_dir_all(parent).map_err(Error::io(parent))?;
    let mut new = tempfile::Builder::new().prefix(".tmp-").tempfile_in(parent).map_err(Error::io(parent))?;
    let copied = File::open(from).and_then(|mut file| io::copy(&mut file, new.as_file_mut()));
    copied.and_then(|_| new.as_file().sync_all()).map_err(Error::io(to))?;
    new.persist(to).map_err(|error| Error::io(to)(error.error))?;
    atomic::sync_dir(parent).map_err(Error::image(parent))
}

fn walk(root: &Path, dir: &Path, found: &mut Vec<Stored>) -> Result<()> {
    let items = match fs::read_dir(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        items => items.map_err(Error::io(dir))?,
    };
    for item in items {
        let item = item.map_err(Error::io(dir))?;
        if item.file_name().to_string_lossy().starts_with('.') {
            continue; // On its way, or the lock.
        }
        let (path, meta) = match item.metadata() {
            Err(error) if error.kind() == ErrorKind::NotFound => continue, // Removed meanwhile.
            meta => (item.path(), meta.map_err(Error::io(item.path()))?),
        };
        if meta.is_dir() {
            walk(root, &path, found)?;
        } else if let Some(key) = path.strip_prefix(root).ok().and_then(Path::to_str) {
            let modified = meta.modified().unwrap_or(UNIX_EPOCH);
            found.push(Stored { key: key.to_owned(), size: meta.len(), modified });
        }
    }
    Ok(())
}

/// Does work that may block elsewhere.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(Error::storage("directory", error.to_string())))
}

impl Storage for Directory {
    fn name(&self) -> String {
        format!("file://{}", self.root.display())
    }

    fn read<'a>(&'a self, key: &'a str, limit: u64) -> Answer<'a, Option<(Bytes, Tag)>> {
        let path = self.root.join(key);
        blocking(move || get(&path, limit)).boxed()
    }

    fn stream<'a>(&'a self, key: &'a str, part: Range<u64>) -> Answer<'a, Pieces> {
        let path = self.root.join(key);
        async move {
            let named = path.clone();
            let file = blocking(move || {
                let mut file = File::open(&path).map_err(Error::io(&path))?;
                file.seek(SeekFrom::Start(part.start)).map_err(Error::io(&path))?;
                Ok(file)
            });
            let file = tokio::fs::File::from_std(file.await?).take(part.end - part.start);
            let pieces = ReaderStream::with_capacity(file, 128 << 10);
            Ok(pieces.map_err(move |error| Error::io(&named)(error)).boxed())
        }
        .boxed()
    }

    fn write<'a>(&'a self, key: &'a str, bytes: Bytes, condition: Condition) -> Answer<'a, bool> {
        let (this, key) = (Self::new(&self.root), key.to_owned());
        blocking(move || this.put(&key, &bytes, &condition)).boxed()
    }

    fn send<'a>(&'a self, key: &'a str, file: &'a Path) -> Answer<'a, ()> {
        let (from, to) = (file.to_path_buf(), self.root.join(key));
        blocking(move || copy(&from, &to)).boxed()
    }

    fn list<'a>(&'a self, prefix: &'a str) -> Answer<'a, Vec<Stored>> {
        let (root, dir) = (self.root.clone(), self.root.join(prefix));
        let found = move || {
            let mut found = Vec::new();
            walk(&root, &dir, &mut found)?;
            found.sort_by(|a, b| a.key.cmp(&b.key));
            Ok(found)
        };
        blocking(found).boxed()
    }

    fn delete<'a>(&'a self, key: &'a str) -> Answer<'a, ()> {
        let (root, path) = (self.root.clone(), self.root.join(key));
        blocking(move || {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(Error::io(&path)(error)),
                _ => {}
            }
            for dir in path.ancestors().skip(1).take_while(|dir| *dir != root) {
                if fs::remove_dir(dir).is_err() {
                    break; // Others are in it.
                }
            }
            Ok(())
        })
        .boxed()
    }

    fn link<'a>(&'a self, _: &'a str, _: Duration) -> Answer<'a, Option<Url>> {
        async { Ok(None) }.boxed()
    }
}
