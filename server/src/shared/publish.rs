//! From a working copy that was changed to the next publication: first what is new, then the root.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use futures_util::{StreamExt, TryStreamExt, stream as streams};
use millstream_image::Sha256Digest;
use tokio_util::bytes::Bytes;

use super::root::{DOCUMENTS, Document, LARGEST, Map, Place, ROOT, Root, map_path};
use super::work::Work;
use crate::storage::{Condition, Storage, Tag, replace};
use crate::stream::current_publication;
use crate::{Error, Result};

/// Objects sent at once; each large one takes several connections.
const AT_ONCE: usize = 4;
/// So long what no publication names any more can still be read, in seconds: by servers that answer from
/// the root they read last, and by who reads the storage without one.
const TRASH: i64 = 3600;

/// One run of a publisher, which may take several tries.
pub(super) struct Run {
    storage: Arc<dyn Storage>,
    /// Nobody else's.
    id: String,
    /// Files of images that were sent already.
    sent: HashMap<String, Sha256Digest>,
}

/// What became of a try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is published, or there was nothing to publish.
    Done,
    /// Others published meanwhile.
    Overtaken,
}

/// What the next publication needs.
struct Changes {
    root: Root,
    /// Files of images: key, and where they are.
    files: Vec<(String, PathBuf)>,
    /// Documents, by key.
    documents: BTreeMap<String, Bytes>,
    /// Directories of the storage that hold images no longer.
    gone: Vec<String>,
}

impl Run {
    pub(super) fn new(storage: &Arc<dyn Storage>, id: String) -> Self {
        Self { storage: Arc::clone(storage), id, sent: HashMap::new() }
    }

    /// Publishes what `work` has and `before` has not, if `before` still is what is published.
    pub(super) async fn publish(
        &mut self,
        work: &Work,
        before: (&Root, Option<&Tag>),
        now: SystemTime,
    ) -> Result<Outcome> {
        let Some(generation) = current_publication(work.path())? else { return Ok(Outcome::Done) };
        let mut changes = self.changes(work, before.0, generation)?;
        // Files of images may go without a publication.
        if changes.root.files == before.0.files && changes.files.is_empty() && changes.gone.is_empty() {
            return Ok(Outcome::Done);
        }
        let rubbish = changes.sort_out(before.0, seconds(now));
        self.send_files(&changes.files).await?;
        let storage = &self.storage;
        let documents = streams::iter(&changes.documents)
            .map(|(key, bytes)| storage.write(key, bytes.clone(), Condition::Always));
        documents.buffer_unordered(AT_ONCE * 2).try_collect::<Vec<_>>().await?;
        if !self.replace(&changes.root, before.1).await? {
            return Ok(Outcome::Overtaken);
        }
        // What stays of this is found by `prune`.
        for dir in &changes.gone {
            for stored in self.storage.list(dir).await.unwrap_or_default() {
                let _ = self.storage.delete(&stored.key).await;
            }
        }
        for key in &rubbish {
            let _ = self.storage.delete(key).await;
        }
        Ok(Outcome::Done)
    }

    async fn replace(&self, root: &Root, tag: Option<&Tag>) -> Result<bool> {
        let bytes = root.to_bytes().map_err(|reason| Error::storage(self.storage.name(), reason))?;
        if bytes.len() as u64 > LARGEST {
            return Err(Error::storage(self.storage.name(), "it has too many documents; remove old images"));
        }
        if replace(&*self.storage, (ROOT, bytes.into()), tag, (root.exclusion, &self.id)).await? {
            return Ok(true);
        }
        // A request whose answer was lost is sent again, and then meets its own work.
        let present = super::read_root(&*self.storage).await?;
        Ok(present.is_some_and(|(present, _)| present == *root))
    }

    fn changes(&self, work: &Work, before: &Root, generation: u64) -> Result<Changes> {
        let mut root = Root { generation, id: self.id.clone(), files: BTreeMap::new(), ..before.clone() };
        let mut new =
            Documents { prefix: format!("{DOCUMENTS}/{generation}-{}", self.id), bytes: BTreeMap::new() };
        let published = work.path().join(format!(".documents/{generation}"));
        let mut found: Vec<_> = walk(&published)?;
        for name in ["key.asc", ".retired"] {
            let path = work.path().join(name);
            if path.exists() {
                found.push((name.to_owned(), path));
            }
        }
        for (path, file) in found {
            let meta = fs::metadata(&file).map_err(Error::io(&file))?;
            let known = work.known.get(&(meta.dev(), meta.ino()));
            // A file that came along is as it was; it may have got another name, or be replaced now.
            let document = if let Some(document) = known.and_then(|known| before.files.get(known)) {
                Document { modified: meta.mtime(), ..document.clone() }
            } else {
                let bytes = fs::read(&file).map_err(Error::io(&file))?;
                new.add(bytes, meta.mtime(), before.files.get(&path))
            };
            root.files.insert(path, document);
        }
        let mut changes = Changes { root, files: Vec::new(), documents: BTreeMap::new(), gone: Vec::new() };
        self.images(work, before, &mut changes, &mut new)?;
        changes.documents = new.bytes;
        Ok(changes)
    }

    /// What became of images, and where they are now.
    fn images(&self, work: &Work, before: &Root, changes: &mut Changes, new: &mut Documents) -> Result<()> {
        let mut present: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for image in image_directories(work.path())? {
            let distribution = image.split('/').nth(1).unwrap_or_default().to_owned();
            present.entry(distribution).or_default().insert(image);
        }
        let here = work.maps.keys().chain(present.keys()).cloned().collect::<BTreeSet<_>>();
        let elsewhere = before.distributions().filter(|name| !here.contains(*name)).map(map_path);
        for path in elsewhere {
            changes.root.files.extend(before.files.get(&path).map(|document| (path, document.clone())));
        }
        let none = (Map::new(), BTreeSet::new());
        for distribution in &here {
            let old = work.maps.get(distribution).unwrap_or(&none.0);
            let now = present.get(distribution).unwrap_or(&none.1);
            let mut map = old.clone();
            map.retain(|image, _| now.contains(image));
            let gone = old.iter().filter(|(image, _)| !now.contains(*image));
            changes.gone.extend(gone.map(|(image, place)| format!("{image}/{}", place.id)));
            for image in now.iter().filter(|image| !old.contains_key(*image)) {
                let dir = work.path().join(image);
                let mut files = BTreeMap::new();
                for (name, file) in walk(&dir)? {
                    files.insert(name.clone(), fs::metadata(&file).map_err(Error::io(&file))?.len());
                    changes.files.push((format!("{image}/{}/{name}", self.id), file));
                }
                map.insert(image.clone(), Place { id: self.id.clone(), files });
            }
            if map.is_empty() {
                continue;
            }
            let path = map_path(distribution);
            if map == *old
                && let Some(document) = before.files.get(&path)
            {
                changes.root.files.insert(path, document.clone());
                continue;
            }
            let bytes = serde_json::to_vec(&map).map_err(|e| Error::storage(&path, e.to_string()))?;
            let modified = seconds(SystemTime::now());
            let document = new.add(bytes, modified, before.files.get(&path));
            changes.root.files.insert(path, document);
        }
        Ok(())
    }

    /// Sends files, but for those that an earlier try has sent as they are.
    async fn send_files(&mut self, files: &[(String, PathBuf)]) -> Result<()> {
        let mut hashed = Vec::new();
        for (key, file) in files {
            let digest = fs::File::open(file).and_then(Sha256Digest::of_reader).map_err(Error::io(file))?.0;
            if self.sent.get(key) != Some(&digest) {
                hashed.push((key, file, digest));
            }
        }
        let storage = &self.storage;
        let sent = streams::iter(&hashed).map(|(key, file, _)| storage.send(key, file));
        sent.buffer_unordered(AT_ONCE).try_collect::<Vec<_>>().await?;
        self.sent.extend(hashed.into_iter().map(|(key, _, digest)| (key.clone(), digest)));
        Ok(())
    }
}

impl Changes {
    /// Notes what is named no more; gives what has been for long, which the root then forgets.
    fn sort_out(&mut self, before: &Root, now: i64) -> Vec<String> {
        let named: BTreeSet<_> = self.root.files.values().map(|document| document.key.as_str()).collect();
        let old = before.files.values().map(|document| &document.key);
        for key in old.filter(|key| !named.contains(key.as_str())) {
            self.root.trash.entry(key.clone()).or_insert(now);
        }
        let due = |since: &i64| *since + TRASH < now;
        let rubbish: Vec<_> = self.root.trash.iter().filter(|(_, since)| due(since)).collect();
        let rubbish: Vec<_> = rubbish.into_iter().map(|(key, _)| key.clone()).collect();
        self.root.trash.retain(|_, since| !due(since));
        rubbish
    }
}

/// Documents that are to be written.
struct Documents {
    prefix: String,
    bytes: BTreeMap<String, Bytes>,
}

impl Documents {
    /// The entry of a document; one that says what it said before stays where it is.
    fn add(&mut self, bytes: Vec<u8>, modified: i64, before: Option<&Document>) -> Document {
        let sha256 = Sha256Digest::of(&bytes);
        if let Some(before) = before.filter(|before| before.sha256 == sha256) {
            return Document { modified, ..before.clone() };
        }
        let key = format!("{}/{sha256}", self.prefix);
        let size = bytes.len() as u64;
        self.bytes.insert(key.clone(), bytes.into());
        Document { key, sha256, size, modified }
    }
}

pub(super) fn seconds(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}

/// Plain files below a directory, by their path from there.
fn walk(dir: &Path) -> Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    let mut open = vec![dir.to_path_buf()];
    while let Some(at) = open.pop() {
        for item in fs::read_dir(&at).map_err(Error::io(&at))? {
            let item = item.map_err(Error::io(&at))?;
            let path = item.path();
            if item.file_type().map_err(Error::io(&path))?.is_dir() {
                open.push(path);
            } else if let Some(name) = path.strip_prefix(dir).ok().and_then(Path::to_str) {
                found.push((name.to_owned(), path));
            }
        }
    }
    Ok(found)
}

/// `images/DIST/RELEASE/ARCH/VARIANT/SERIAL` as far as there are files in it.
fn image_directories(root: &Path) -> Result<Vec<String>> {
    let files = walk(&root.join("images"))?;
    let dirs = files.iter().filter_map(|(path, _)| path.rsplit_once('/'));
    let dirs: BTreeSet<_> = dirs.map(|(dir, _)| format!("images/{dir}")).collect();
    Ok(dirs.into_iter().filter(|dir| dir.split('/').count() == 6).collect())
}
