//! A stream in a storage that many machines reach: several publishers, several servers, no lock on a disk.
//!
//! Publishing works on a copy of what it needs, an ordinary [`Stream`] on this machine, and then sends what
//! changed: images and documents first, under names that nobody else writes, the one root object last, if it
//! still is the one that was copied. Otherwise all is done again on what others published.

mod clean;
mod publish;
mod reader;
mod root;
mod work;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use millstream_image::manifest::Manifest;
use millstream_image::openpgp::KeyFingerprint;
use tokio::runtime::Runtime;

use crate::storage::{Address, Credentials, Exclusion, Storage, Tag};
use crate::stream::{
    Added, Bring, Deltas, Listed, Pruned, Report, Retention, Selector, Shown, Signing, Stream,
};
use crate::{Error, Result, token};
use publish::{Outcome, Run};
use root::{LARGEST, ROOT, Root};
use work::{Need, Work};

pub(crate) use reader::Found;
pub use reader::{Delivery, Reader};

/// So often a publication is tried when others are quicker.
const TRIES: usize = 50;

/// A stream in a storage.
pub struct SharedStream {
    storage: Arc<dyn Storage>,
    runtime: Runtime,
    /// Where working copies are made; on the file system of the images to add, no byte is copied.
    scratch: PathBuf,
    unified: bool,
}

/// The root, and the state it is in.
async fn read_root(storage: &dyn Storage) -> Result<Option<(Root, Tag)>> {
    let Some((bytes, tag)) = storage.read(ROOT, LARGEST).await? else { return Ok(None) };
    let root = Root::parse(&bytes);
    let root = root.map_err(|reason| Error::storage(format!("{}/{ROOT}", storage.name()), reason))?;
    Ok(Some((root, tag)))
}

/// Reads what a storage holds, for fuzzing.
#[doc(hidden)]
pub fn fuzz(bytes: &[u8]) {
    root::read(bytes);
}

impl SharedStream {
    /// The stream at an address, which need not be there yet; working copies are made in `scratch`.
    ///
    /// # Errors
    /// [`Error::Storage`] when the credentials cannot be used.
    pub fn at(address: &Address, credentials: &Credentials, scratch: &Path) -> Result<Self> {
        Self::on(address.open(credentials)?, scratch)
    }

    /// The same in a storage that is open.
    pub fn on(storage: Arc<dyn Storage>, scratch: &Path) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.map_err(Error::io(scratch))?;
        Ok(Self { storage, runtime, scratch: scratch.to_path_buf(), unified: false })
    }

    /// As [`Stream::with_unified`].
    #[must_use]
    pub fn with_unified(self, unified: bool) -> Self {
        Self { unified, ..self }
    }

    /// What people call it.
    pub fn name(&self) -> String {
        self.storage.name()
    }

    /// Whether there is a stream.
    ///
    /// # Errors
    /// When the storage does not answer.
    pub fn exists(&self) -> Result<bool> {
        Ok(self.runtime.block_on(read_root(&*self.storage))?.is_some())
    }

    /// Makes it a stream, or finds that it is one; true when it was made.
    ///
    /// # Errors
    /// As [`Stream::init`].
    pub fn init(&self, signing: &Signing<'_>) -> Result<bool> {
        let id = id();
        let mut run = Run::new(&self.storage, id.clone());
        if !self.exists()? {
            let exclusion = self.runtime.block_on(Exclusion::of(&*self.storage, &id))?;
            let work = Work::empty(&self.scratch, &self.storage)?;
            self.named(&work, Stream::init(work.path(), signing))?;
            let before = Root::new(exclusion);
            let published = run.publish(&work, (&before, None), signing.now);
            if self.runtime.block_on(published)? == Outcome::Done {
                return Ok(true);
            }
        }
        let (root, _) = self.root()?;
        let work = self.work(&root, &Need::All)?;
        self.named(&work, Stream::init(work.path(), signing))?;
        Ok(false)
    }

    /// As [`Stream::keys`].
    pub fn keys(&self) -> Result<Vec<KeyFingerprint>> {
        let (root, _) = self.root()?;
        let work = self.work(&root, &Need::All)?;
        self.named(&work, work.stream()?.keys())
    }

    /// As [`Stream::add_with`]. Deltas take the images before this one, which are fetched.
    pub fn add(&self, dir: &Path, signing: &Signing<'_>, deltas: &Deltas) -> Result<Added> {
        let manifest = crate::stream::manifest_in(dir)?;
        let need = Need::Image(&manifest.product, manifest.serial, deltas.last);
        let mut added = self.change(&need, signing.now, |stream| {
            stream.clone().with_unified(self.unified).add_with(dir, signing, deltas)
        })?;
        let image = added.product.image_path(added.serial);
        added.path = PathBuf::from(format!("{}/{}", self.name(), image.display()));
        Ok(added)
    }

    /// As [`Stream::list`].
    pub fn list(&self, now: SystemTime) -> Result<Vec<Listed>> {
        let (root, _) = self.root()?;
        let work = self.work(&root, &Need::All)?;
        self.named(&work, work.stream()?.list(now))
    }

    /// As [`Stream::show`].
    pub fn show(&self, selector: &Selector, now: SystemTime) -> Result<Shown> {
        let (root, _) = self.root()?;
        let work = self.work(&root, &Need::All)?;
        let found = self.named(&work, work.stream()?.find(selector, now))?;
        let image = found.path.display().to_string();
        self.runtime.block_on(work.bring(&image, &["manifest.json"]))?;
        self.named(&work, work.stream()?.show(selector, now))
    }

    /// How an image came to be, as [`Stream::manifest`].
    pub fn manifest(&self, image: &Listed) -> Result<Manifest> {
        let (root, _) = self.root()?;
        let work = self.work(&root, &Need::All)?;
        self.runtime.block_on(work.bring(&image.path.display().to_string(), &["manifest.json"]))?;
        self.named(&work, work.stream()?.manifest(image))
    }

    /// As [`Stream::remove`].
    pub fn remove(&self, selectors: &[Selector], grace: Duration, signing: &Signing<'_>) -> Result<Pruned> {
        self.change(&Need::All, signing.now, |stream| {
            let images = selectors.iter().map(|selector| {
                stream.find(selector, signing.now).map(|image| (image.product, image.serial))
            });
            stream.remove(&images.collect::<Result<Vec<_>>>()?, grace, signing)
        })
    }

    /// As [`Stream::prune`]; objects that nothing names go as well, once they are older than a day.
    pub fn prune(&self, retention: Retention, grace: Duration, signing: &Signing<'_>) -> Result<Pruned> {
        let pruned =
            self.change(&Need::All, signing.now, |stream| stream.prune(retention, grace, signing))?;
        self.runtime.block_on(clean::clean(&*self.storage))?;
        Ok(pruned)
    }

    /// As [`Stream::plan_prune`].
    pub fn plan_prune(&self, retention: Retention, now: SystemTime) -> Result<Pruned> {
        let (root, _) = self.root()?;
        let work = self.work(&root, &Need::All)?;
        self.named(&work, work.stream()?.plan_prune(retention, now))
    }

    /// Signs the documents anew, with the keys the stream has; when they expire then.
    ///
    /// # Errors
    /// [`Error::Storage`] for other keys: each image would have to be signed where it is.
    pub fn sign(&self, signing: &Signing<'_>) -> Result<chrono::DateTime<chrono::Utc>> {
        self.change(&Need::All, signing.now, |stream| {
            if stream.keys()? != signing.key.fingerprints() {
                let reason = "keys are not changed in a shared storage; sign a stream in a directory with both \
                    keys, and add its images here as a new stream";
                return Err(Error::storage(self.name(), reason));
            }
            stream.sign(signing)
        })
    }

    /// As [`Stream::is_due`].
    pub fn is_due(&self, now: SystemTime) -> Result<bool> {
        let (root, _) = self.root()?;
        let work = self.work(&root, &Need::All)?;
        self.named(&work, work.stream()?.is_due(now))
    }

    /// As [`Stream::verify`]. One image at a time is fetched and hashed.
    pub fn verify(&self, now: SystemTime) -> Result<Report> {
        let (root, _) = self.root()?;
        let work = self.work(&root, &Need::Whole)?;
        let stream = work.stream()?;
        let report = stream.verify_in_turn(now, |path, bring| {
            let image = path.display().to_string();
            match bring {
                Bring::Here => self.runtime.block_on(work.bring(&image, &[])),
                Bring::Away => work.forget(&image),
            }
        });
        self.named(&work, report)
    }

    fn root(&self) -> Result<(Root, Tag)> {
        self.runtime.block_on(read_root(&*self.storage))?.ok_or_else(|| self.none())
    }

    fn none(&self) -> Error {
        let name = self.name();
        Error::storage(&name, format!("not a stream; make it one with: millstream stream init {name}"))
    }

    fn work(&self, root: &Root, need: &Need<'_>) -> Result<Work> {
        self.runtime.block_on(Work::of(root, &self.scratch, &self.storage, need))
    }

    /// Does something to a copy and publishes that; again on a newer copy as long as others are quicker.
    fn change<T>(
        &self,
        need: &Need<'_>,
        now: SystemTime,
        mut act: impl FnMut(&Stream) -> Result<T>,
    ) -> Result<T> {
        let mut run = Run::new(&self.storage, id());
        for _ in 0..TRIES {
            let (root, tag) = self.root()?;
            let work = self.work(&root, need)?;
            let done = self.named(&work, act(&work.stream()?))?;
            let published = run.publish(&work, (&root, Some(&tag)), now);
            if self.runtime.block_on(published)? == Outcome::Done {
                return Ok(done);
            }
        }
        Err(Error::storage(self.name(), "others publish without end; try again later"))
    }

    /// What went wrong in a working copy went wrong with the stream.
    fn named<T>(&self, work: &Work, result: Result<T>) -> Result<T> {
        let rename = |path: PathBuf| match path.strip_prefix(work.path()) {
            Ok(below) => PathBuf::from(format!("{}/{}", self.name(), below.display()).trim_end_matches('/')),
            Err(_) => path,
        };
        result.map_err(|error| match error {
            Error::Tree { path, reason } => Error::Tree {
                path: rename(path),
                reason: reason.replace(&work.path().display().to_string(), &self.name()),
            },
            Error::Image { path, source } => Error::Image { path: rename(path), source },
            error => error,
        })
    }
}

/// A name for one run, 128 random bits.
fn id() -> String {
    token::create().1.to_string()[..32].to_owned()
}
