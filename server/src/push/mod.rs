//! Images that builders elsewhere push to a server, which signs and publishes them.
//!
//! A builder announces an image with sizes and digests of all its files ([`wire`]), sends the files in
//! pieces, and asks for the end: then the image is checked byte for byte and added like one that was
//! built here. Until then no reader sees anything of it. What has come is kept on disk ([`uploads`]), so
//! that either side may be cut off at any moment; [`client`] is the builder's side.

pub mod client;
mod publish;
mod refusal;
mod uploads;
mod wire;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use chrono::{DateTime, Utc};
use millstream_image::manifest::Manifest;
use millstream_image::{Product, Sha256Digest};

use crate::Result;
use crate::config;
use crate::keys::KeyStore;
use crate::stream::{BESIDE, Stream};
use publish::Publications;
pub(crate) use refusal::{Kind, Refusal};
use uploads::{Bounds, Upload, Uploads};
use wire::Outcome;
#[doc(hidden)]
pub use wire::try_announcement;
pub(crate) use wire::{ANNOUNCEMENT, Announcement, PATH, PIECE, Problem, State, Taken};

/// How far a builder's clock may be ahead.
const AHEAD: Duration = Duration::from_hours(24);

/// Whether whoever pushes may publish what lies at a path from the root of the tree.
pub(crate) type May = Arc<dyn Fn(&Path) -> bool + Send + Sync>;

/// What pushes go to.
pub struct Push {
    stream: Stream,
    keys: KeyStore,
    settings: config::Push,
    uploads: Uploads,
    publications: Publications,
    say: Arc<dyn Fn(&str) + Send + Sync>,
}

impl Push {
    /// Takes pushes to `stream`, signed with its keys out of `keys`. `say` is told what was published.
    ///
    /// # Errors
    /// [`Error::Key`] when a key is not there, unless images are to wait for it; [`Error::Tree`] when the
    /// tree is somebody else's.
    pub fn open(
        stream: Stream,
        keys: KeyStore,
        settings: config::Push,
        say: Arc<dyn Fn(&str) + Send + Sync>,
    ) -> Result<Arc<Self>> {
        Stream::check_root(stream.root())?;
        if !settings.unsigned {
            keys.find_all(&stream.keys()?)?;
        }
        let uploads = Uploads::new(stream.root());
        Ok(Arc::new(Self { stream, keys, settings, uploads, publications: Publications::default(), say }))
    }

    /// Begins or resumes an upload, unless the image is here already. May block.
    pub(crate) fn announce(
        &self,
        pusher: &Sha256Digest,
        announcement: Announcement,
        may: &May,
    ) -> Result<State, Refusal> {
        allowed(may, &announcement.product)?;
        let now = SystemTime::now();
        if announcement.serial.time() > DateTime::<Utc>::from(now + AHEAD) {
            let reason = format!("{} is in the future; set the builder's clock", announcement.serial);
            return Err(Refusal::new(Kind::Bad, reason));
        }
        if let Some(state) = self.present(&announcement)? {
            return Ok(state);
        }
        self.uploads.expire(now)?;
        let bounds = Bounds { uploads: self.settings.uploads as usize, size: self.settings.max_size };
        let upload = self.uploads.open(pusher, announcement, bounds, now)?;
        let id = upload.announcement.id(pusher);
        Ok(State::Open { id, offsets: upload.offsets()? })
    }

    /// Appends to a file of an upload; how long it is now. May block.
    pub(crate) fn append(upload: &Pushed, name: &str, offset: u64, bytes: &[u8]) -> Result<u64, Refusal> {
        upload.0.append(name, offset, bytes)
    }

    /// The upload of this name, if it is this pusher's and its product still in an area of theirs.
    pub(crate) fn upload(
        &self,
        pusher: &Sha256Digest,
        id: &Sha256Digest,
        may: &May,
    ) -> Result<Pushed, Refusal> {
        let upload = self.uploads.find(pusher, id)?;
        let upload = upload.ok_or_else(|| {
            Refusal::new(Kind::Missing, "no such upload; it has expired, or is published. Announce it again")
        })?;
        allowed(may, &upload.announcement.product)?;
        Ok(Pushed(Arc::new(upload)))
    }

    /// Where the image is when the tree has it: published, or waiting for signatures.
    fn present(&self, announcement: &Announcement) -> Result<Option<State>, Refusal> {
        let Announcement { product, serial, .. } = announcement;
        let outcome =
            |fingerprint| Outcome { product: product.clone(), serial: *serial, fingerprint, new: false };
        let same = |manifest: &Manifest| {
            let theirs = announcement.files.iter().filter(|(name, _)| !BESIDE.contains(&name.as_str()));
            let theirs = theirs.map(|(name, part)| (name, part.size, part.sha256));
            if theirs.eq(manifest.files.iter().map(|(name, file)| (name, file.size, file.sha256))) {
                return Ok(());
            }
            let reason =
                format!("the stream has another image as {product} {serial}; build it with another --serial");
            Err(Refusal::new(Kind::Conflict, reason))
        };
        if let Some((manifest, fingerprint)) = self.stream.published(product, *serial, SystemTime::now())? {
            same(&manifest)?;
            return Ok(Some(State::Published(outcome(fingerprint))));
        }
        if self.settings.unsigned
            && let Some(manifest) = self.stream.waiting(product, *serial)?
        {
            same(&manifest)?;
            return Ok(Some(State::Waiting(outcome(None))));
        }
        Ok(None)
    }
}

/// An upload of whoever asked for it.
#[derive(Clone, Debug)]
pub(crate) struct Pushed(Arc<Upload>);

/// Removes uploads to the tree `root` that nobody went on with for a day.
pub fn expire(root: &Path, now: SystemTime) -> Result<()> {
    Uploads::new(root).expire(now)
}

fn allowed(may: &May, product: &Product) -> Result<(), Refusal> {
    if may(&product.tree_path()) {
        return Ok(());
    }
    Err(Refusal::new(Kind::Forbidden, format!("{product} is in no area that you may push to")))
}
