//! What servers read: documents by the present root, files of images piece by piece.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex as Lock, PoisonError};
use std::time::{Duration, Instant};

use futures_util::{StreamExt, TryStreamExt, stream as streams};
use millstream_image::Sha256Digest;
use serde::Deserialize;
use tempfile::TempDir;
use tokio::sync::Mutex;
use tokio::time::timeout;
use tokio_util::bytes::Bytes;
use url::Url;

use super::root::{Document, Map, Root, is_hidden, map_path, parse_map};
use super::work::read_document;
use crate::storage::{Pieces, Storage};
use crate::{Error, Result};

/// A part whose transfer broke is asked for so often again.
const TRIES: usize = 5;
/// So long the root may take.
const PATIENCE: Duration = Duration::from_secs(15);
const PAUSE: Duration = Duration::from_millis(300);
/// How long an address that a client is sent to is good for: to begin, not to end.
const VALID: Duration = Duration::from_mins(15);
/// So many documents are kept on this machine at most.
const KEPT: usize = 4096;

/// How files of images reach clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Delivery {
    /// Through this server.
    #[default]
    Proxy,
    /// From the store itself, by an address that is good for a quarter of an hour.
    Redirect,
}

/// A stream in a storage, to be served.
pub struct Reader {
    storage: Arc<dyn Storage>,
    delivery: Delivery,
    /// Documents by their hash.
    cache: TempDir,
    present: Mutex<Option<(Instant, Arc<Root>)>>,
    maps: Lock<HashMap<Sha256Digest, Arc<Map>>>,
}

/// A file of an image.
pub(crate) struct Found {
    key: String,
    pub(crate) size: u64,
    /// Quoted, as in HTTP.
    pub(crate) etag: String,
}

/// A document on this machine.
pub(crate) struct Copy {
    pub(crate) file: File,
    pub(crate) size: u64,
    pub(crate) etag: String,
    /// Seconds since 1970.
    pub(crate) modified: i64,
}

impl Reader {
    /// Keeps copies of documents in a directory of its own in `scratch`.
    ///
    /// # Errors
    /// When that cannot be made.
    pub fn new(storage: Arc<dyn Storage>, delivery: Delivery, scratch: &Path) -> Result<Self> {
        fs::create_dir_all(scratch).map_err(Error::io(scratch))?;
        let cache =
            tempfile::Builder::new().prefix("serve-").tempdir_in(scratch).map_err(Error::io(scratch))?;
        Ok(Self { storage, delivery, cache, present: Mutex::default(), maps: Lock::default() })
    }

    /// What people call it.
    pub fn name(&self) -> String {
        self.storage.name()
    }

    /// Whether there is a stream at all.
    ///
    /// # Errors
    /// When there is none, or the storage does not answer.
    pub async fn check(&self) -> Result<()> {
        match super::read_root(&*self.storage).await? {
            Some(_) => Ok(()),
            None => {
                Err(Error::storage(self.name(), "not a stream; make it one with: millstream stream init"))
            }
        }
    }

    /// The root that was published last when this was called: clients of several servers never go back.
    /// Whoever comes while it is being read waits for the next reading, all of them for one. When the
    /// storage does not answer, what was read last is still true enough; documents say when they expire.
    async fn root(&self) -> Result<Arc<Root>> {
        let asked = Instant::now();
        let mut present = self.present.lock().await;
        if let Some((read, root)) = present.as_ref()
            && *read >= asked
        {
            return Ok(Arc::clone(root));
        }
        let began = Instant::now();
        let read = timeout(PATIENCE, super::read_root(&*self.storage)).await;
        let late = || Err(Error::storage(self.name(), "the storage does not answer"));
        match read.unwrap_or_else(|_| late()) {
            Ok(Some((root, _))) => {
                let root = Arc::new(root);
                *present = Some((began, Arc::clone(&root)));
                Ok(root)
            }
            Ok(None) => Err(Error::storage(self.name(), "the stream is gone")),
            Err(error) => match present.as_mut() {
                Some((read, root)) => {
                    *read = Instant::now(); // Those who wait need not wait for this as well.
                    Ok(Arc::clone(root))
                }
                None => Err(error),
            },
        }
    }

    /// A document; `None` when there is none of this path for readers.
    pub(crate) async fn document(&self, path: &str) -> Result<Option<Copy>> {
        if is_hidden(path) {
            return Ok(None);
        }
        let root = self.root().await?;
        let Some(document) = root.files.get(path) else { return Ok(None) };
        let at = self.cache.path().join(document.sha256.to_string());
        let file = match File::open(&at) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.keep(&root, document, &at).await?;
                File::open(&at)
            }
            file => file,
        };
        let file = file.map_err(Error::io(&at))?;
        let etag = format!("\"{}\"", &document.sha256.to_string()[..32]);
        Ok(Some(Copy { file, size: document.size, etag, modified: document.modified }))
    }

    async fn keep(&self, root: &Root, document: &Document, at: &Path) -> Result<()> {
        let bytes = read_document(&*self.storage, document).await?;
        let items = fs::read_dir(self.cache.path()).map_err(Error::io(self.cache.path()))?;
        let kept: Vec<_> = items.flatten().map(|item| item.path()).collect();
        if kept.len() >= KEPT {
            let present = |path: &Path| {
                let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                root.files.values().any(|document| document.sha256.to_string() == name)
            };
            for path in kept.iter().filter(|path| !present(path)) {
                let _ = fs::remove_file(path);
            }
        }
        // Two that fetch the same do not meet in one file.
        let mut new = tempfile::NamedTempFile::new_in(self.cache.path()).map_err(Error::io(at))?;
        io::Write::write_all(&mut new, &bytes).map_err(Error::io(at))?;
        new.persist(at).map_err(|error| Error::io(at)(error.error))?;
        Ok(())
    }

    /// A file of an image; `None` when the stream has none of this path.
    pub(crate) async fn file(&self, path: &str) -> Result<Option<Found>> {
        let Some((image, name)) = path.rsplit_once('/') else { return Ok(None) };
        let Some(distribution) = image.strip_prefix("images/").and_then(|rest| rest.split('/').next()) else {
            return Ok(None);
        };
        let root = self.root().await?;
        let Some(document) = root.files.get(&map_path(distribution)) else { return Ok(None) };
        let map = self.map(distribution, document).await?;
        let Some(place) = map.get(image) else { return Ok(None) };
        let Some(size) = place.files.get(name) else { return Ok(None) };
        let etag = format!("\"{}-{size:x}\"", place.id);
        Ok(Some(Found { key: format!("{image}/{}/{name}", place.id), size: *size, etag }))
    }

    async fn map(&self, distribution: &str, document: &Document) -> Result<Arc<Map>> {
        let known = || self.maps.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(map) = known().get(&document.sha256) {
            return Ok(Arc::clone(map));
        }
        let bytes = read_document(&*self.storage, document).await?;
        let map = parse_map(distribution, &bytes).map_err(|reason| Error::storage(&document.key, reason))?;
        let map = Arc::new(map);
        let mut maps = known();
        if maps.len() >= KEPT {
            maps.clear();
        }
        maps.insert(document.sha256, Arc::clone(&map));
        Ok(map)
    }

    /// Where a client is sent for a file; `None` when it comes from here.
    pub(crate) async fn link(&self, found: &Found) -> Result<Option<Url>> {
        match self.delivery {
            Delivery::Proxy => Ok(None),
            Delivery::Redirect => self.storage.link(&found.key, VALID).await,
        }
    }

    /// A part of a file.
    pub(crate) async fn part(&self, found: &Found, part: Range<u64>) -> Result<Pieces> {
        steady(&self.storage, &found.key, part).await
    }

    /// A whole file on this machine, without a name; for who needs it in hand.
    pub(crate) async fn whole(&self, found: &Found) -> Result<File> {
        let mut file = tempfile::tempfile_in(self.cache.path()).map_err(Error::io(self.cache.path()))?;
        let mut pieces = self.part(found, 0..found.size).await?;
        while let Some(piece) = pieces.try_next().await? {
            io::Write::write_all(&mut file, &piece).map_err(Error::io(self.cache.path()))?;
        }
        io::Seek::rewind(&mut file).map_err(Error::io(self.cache.path()))?;
        Ok(file)
    }
}

/// Asks for a part until it comes, as a store may lose a node.
async fn ask(storage: &dyn Storage, key: &str, part: Range<u64>) -> Result<Pieces> {
    if part.is_empty() {
        return Ok(streams::empty().boxed());
    }
    let mut tries = 0;
    loop {
        match storage.stream(key, part.clone()).await {
            Err(_) if tries < TRIES => {
                tries += 1;
                tokio::time::sleep(PAUSE).await;
            }
            answer => return answer,
        }
    }
}

/// A part of an object. What is left of a transfer that broke is asked for again.
pub(super) async fn steady(storage: &Arc<dyn Storage>, key: &str, part: Range<u64>) -> Result<Pieces> {
    let first = ask(&**storage, key, part.clone()).await?;
    let state = (Arc::clone(storage), key.to_owned(), part, first, 0);
    let pieces = streams::try_unfold(state, |(storage, key, mut part, mut pieces, mut broken)| async move {
        loop {
            let piece: Option<Result<Bytes>> = pieces.next().await;
            match piece {
                _ if part.is_empty() => return Ok(None),
                Some(Ok(mut piece)) => {
                    piece.truncate(usize::try_from(part.end - part.start).unwrap_or(usize::MAX));
                    part.start += piece.len() as u64;
                    return Ok(Some((piece, (storage, key, part, pieces, broken))));
                }
                Some(Err(error)) if broken >= TRIES => return Err(error),
                None if broken >= TRIES => return Err(Error::storage(&key, "it ended early")),
                _ => {
                    broken += 1;
                    tokio::time::sleep(PAUSE).await;
                    pieces = ask(&*storage, &key, part.clone()).await?;
                }
            }
        }
    });
    Ok(pieces.boxed())
}
