//! A working copy: an ordinary stream on this machine, whole for who reads names, with the contents that
//! the work at hand needs. What is not needed is an empty file in the right place.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use futures_util::{StreamExt, TryStreamExt, stream as streams};
use millstream_image::simplestreams::{INDEX_PATH, Index, signed_path};
use millstream_image::{Product, Serial, Sha256Digest};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;

use super::root::{Document, Map, Root, map_path, parse_map};
use crate::storage::Storage;
use crate::stream::{self, Stream};
use crate::{Error, Result};

/// Objects fetched at once.
const AT_ONCE: usize = 16;
/// While there are no more products than these, pages list all of them, so that all are needed.
const FEW: usize = 100;

/// What work needs.
pub(super) enum Need<'a> {
    /// Everything but the files of images.
    All,
    /// The same with every form of every document, and manifests, to check them.
    Whole,
    /// What adding this image takes, with so many images before it.
    Image(&'a Product, Serial, usize),
}

/// The copy.
pub(super) struct Work {
    dir: TempDir,
    storage: Arc<dyn Storage>,
    /// Files as they came, by device and inode, with their path in the root.
    pub(super) known: HashMap<(u64, u64), String>,
    /// Maps of the distributions that are here.
    pub(super) maps: BTreeMap<String, Map>,
}

impl Work {
    /// A copy of nothing.
    pub(super) fn empty(scratch: &Path, storage: &Arc<dyn Storage>) -> Result<Self> {
        fs::create_dir_all(scratch).map_err(Error::io(scratch))?;
        let dir = tempfile::Builder::new().prefix("work-").tempdir_in(scratch).map_err(Error::io(scratch))?;
        let (known, maps) = (HashMap::new(), BTreeMap::new());
        Ok(Self { dir, storage: Arc::clone(storage), known, maps })
    }

    /// A copy of a publication.
    pub(super) async fn of(
        root: &Root,
        scratch: &Path,
        storage: &Arc<dyn Storage>,
        need: &Need<'_>,
    ) -> Result<Self> {
        let mut work = Self::empty(scratch, storage)?;
        let needed = work.needed(root, need).await?;
        let mut fetches = Vec::new();
        for (path, document) in &root.files {
            if path.starts_with(".images/") {
                continue;
            }
            let at = work.place(root.generation, path);
            if needed.wants(path) || matches!(need, Need::Whole) {
                fetches.push((document.clone(), at, path.clone()));
            } else {
                make(&at, 0)?;
                work.remember(&at, path, document)?;
            }
        }
        let fetched = streams::iter(&fetches).map(|(document, at, _)| work.fetch_document(document, at));
        fetched.buffer_unordered(AT_ONCE).try_collect::<Vec<_>>().await?;
        for (document, at, path) in &fetches {
            work.remember(at, path, document)?;
        }
        for distribution in &needed.distributions {
            work.take_map(root, distribution).await?;
        }
        work.finish(root.generation)?;
        match need {
            Need::All => {}
            Need::Whole => work.bring_all(&["manifest.json"]).await?,
            Need::Image(product, serial, deltas) => work.bring_related(product, *serial, *deltas).await?,
        }
        Ok(work)
    }

    pub(super) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The stream it is.
    pub(super) fn stream(&self) -> Result<Stream> {
        Stream::open(self.path())
    }

    /// Where a path of the root stands in the copy.
    fn place(&self, generation: u64, path: &str) -> PathBuf {
        match path {
            "key.asc" | ".retired" => self.path().join(path),
            path => self.path().join(format!(".documents/{generation}")).join(path),
        }
    }

    async fn needed(&self, root: &Root, need: &Need<'_>) -> Result<Needed> {
        let all = || root.distributions().map(str::to_owned).collect::<BTreeSet<_>>();
        let Need::Image(product, ..) = need else { return Ok(Needed { distributions: all() }) };
        let index = self.text(root, INDEX_PATH).await?;
        let index = Index::parse(&index).map_err(Error::image(INDEX_PATH))?;
        let products: usize = index.index.values().map(|entry| entry.products.len()).sum();
        // One more or one less may turn a page over.
        if products <= FEW + 1 {
            return Ok(Needed { distributions: all() });
        }
        // The time of retired images may have come.
        let retired = if root.files.contains_key(".retired") {
            self.text(root, ".retired").await?
        } else {
            b"{}".to_vec()
        };
        let retired: BTreeMap<String, serde_json::Value> = serde_json::from_slice(&retired)
            .map_err(|error| Error::storage(self.storage.name(), format!(".retired: {error}")))?;
        let known = all();
        let named = retired.keys().filter_map(|path| path.split('/').nth(1));
        let named = named.chain([product.distribution()]).filter(|name| known.contains(*name));
        Ok(Needed { distributions: named.map(str::to_owned).collect() })
    }

    async fn text(&self, root: &Root, path: &str) -> Result<Vec<u8>> {
        let missing = || Error::storage(self.storage.name(), format!("{path} is missing"));
        read_document(&*self.storage, root.files.get(path).ok_or_else(missing)?).await
    }

    async fn fetch_document(&self, document: &Document, at: &Path) -> Result<()> {
        let bytes = read_document(&*self.storage, document).await?;
        make(at, 0)?;
        fs::write(at, bytes).map_err(Error::io(at))
    }

    /// Dates a file as the root does, and knows it again.
    fn remember(&mut self, at: &Path, path: &str, document: &Document) -> Result<()> {
        let time = UNIX_EPOCH + Duration::from_secs(document.modified.max(0) as u64);
        let file = File::options().append(true).open(at).map_err(Error::io(at))?;
        file.set_modified(time).map_err(Error::io(at))?;
        let meta = file.metadata().map_err(Error::io(at))?;
        self.known.insert((meta.dev(), meta.ino()), path.to_owned());
        Ok(())
    }

    async fn take_map(&mut self, root: &Root, distribution: &str) -> Result<()> {
        let path = map_path(distribution);
        let bad = |reason: String| Error::storage(format!("{}: {path}", self.storage.name()), reason);
        let map = parse_map(distribution, &self.text(root, &path).await?).map_err(bad)?;
        for (image, place) in &map {
            for (name, size) in &place.files {
                make(&self.path().join(image).join(name), *size)?;
            }
        }
        self.maps.insert(distribution.to_owned(), map);
        Ok(())
    }

    /// What makes it a stream.
    fn finish(&self, generation: u64) -> Result<()> {
        for dir in [".staging", "images"] {
            let dir = self.path().join(dir);
            fs::create_dir_all(&dir).map_err(Error::io(&dir))?;
        }
        stream::show_publication(self.path(), generation)
    }

    /// What an image page and deltas take from the images before this one; and this one, if it is there.
    async fn bring_related(&self, product: &Product, serial: Serial, deltas: usize) -> Result<()> {
        let Some(map) = self.maps.get(product.distribution()) else { return Ok(()) };
        let own = product.image_path(serial).display().to_string();
        let parent = own.rsplit_once('/').map_or("", |(parent, _)| parent);
        let of = |image: &&String| image.rsplit_once('/').map(|(dir, _)| dir) == Some(parent);
        let mut related: Vec<_> = map.keys().filter(of).filter(|image| **image <= own).cloned().collect();
        related.sort_by(|a, b| b.cmp(a));
        let is_there = related.first() == Some(&own);
        for (at, image) in related.iter().take(1 + deltas + usize::from(is_there)).enumerate() {
            self.bring(image, &["manifest.json", "history.json"]).await?;
            // Of the image that is there already no delta is made.
            if !is_there && at < deltas {
                self.bring(image, &["rootfs.tar.xz", "rootfs.squashfs"]).await?;
            }
        }
        Ok(())
    }

    async fn bring_all(&self, names: &[&str]) -> Result<()> {
        let images = self.maps.values().flat_map(|map| map.keys());
        let brought = streams::iter(images).map(|image| self.bring(image, names));
        brought.buffer_unordered(AT_ONCE).try_collect::<Vec<_>>().await.map(drop)
    }

    /// Fetches these files of an image, as far as it has them; all when none is named.
    pub(super) async fn bring(&self, image: &str, names: &[&str]) -> Result<()> {
        let Some(place) = self.maps.values().find_map(|map| map.get(image)) else { return Ok(()) };
        let wanted = |name: &str| names.is_empty() || names.contains(&name);
        for (name, size) in place.files.iter().filter(|(name, _)| wanted(name)) {
            let to = self.path().join(image).join(name);
            let key = format!("{image}/{}/{name}", place.id);
            fetch(&self.storage, &key, *size, &to).await?;
        }
        Ok(())
    }

    /// Makes the files of an image empty again, but for its manifest.
    pub(super) fn forget(&self, image: &str) -> Result<()> {
        let Some(place) = self.maps.values().find_map(|map| map.get(image)) else { return Ok(()) };
        for (name, size) in place.files.iter().filter(|(name, _)| *name != "manifest.json") {
            let path = self.path().join(image).join(name);
            File::create(&path).and_then(|file| file.set_len(*size)).map_err(Error::io(&path))?;
        }
        Ok(())
    }
}

/// The distributions whose documents are read.
struct Needed {
    distributions: BTreeSet<String>,
}

impl Needed {
    fn wants(&self, path: &str) -> bool {
        let product = || path.strip_prefix("streams/v1/images-")?.strip_suffix(".json");
        path == INDEX_PATH
            || path == signed_path(INDEX_PATH)
            || ["key.asc", ".retired", "meta/1.0/index-system", "meta/1.0/index-system.asc"].contains(&path)
            || product().is_some_and(|name| self.distributions.contains(name))
    }
}

/// A document, proved by its hash.
pub(super) async fn read_document(storage: &dyn Storage, document: &Document) -> Result<Vec<u8>> {
    let bad = |reason: &str| Error::storage(format!("{}/{}", storage.name(), document.key), reason);
    let read = storage.read(&document.key, document.size).await?;
    let (bytes, _) = read.ok_or_else(|| bad("it is missing, though the root names it"))?;
    if Sha256Digest::of(&bytes) != document.sha256 {
        return Err(bad("it is not what the root says; find out who changed it"));
    }
    Ok(bytes.into())
}

/// Fetches an object into a file, which may be there.
async fn fetch(storage: &Arc<dyn Storage>, key: &str, size: u64, to: &Path) -> Result<()> {
    let mut pieces = super::reader::steady(storage, key, 0..size).await?;
    let mut file = tokio::fs::File::create(to).await.map_err(Error::io(to))?;
    while let Some(piece) = pieces.try_next().await? {
        file.write_all(&piece).await.map_err(Error::io(to))?;
    }
    file.flush().await.map_err(Error::io(to))
}

/// Makes a file of nothing but a size, and the directories above it.
fn make(path: &Path, size: u64) -> Result<()> {
    let parent = path.parent().unwrap_or(path);
    fs::create_dir_all(parent).map_err(Error::io(parent))?;
    File::create(path).and_then(|file| file.set_len(size)).map_err(Error::io(path))
}
