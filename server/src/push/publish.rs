//! The end of an upload: checked, and added to the stream.
//!
//! That may take minutes, longer than a connection may be silent. So it is work of its own, which goes on
//! when whoever asked for it is gone; who asks again is told how it went.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use millstream_image::manifest::Manifest;
use millstream_image::{Product, Sha256Digest};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};

use super::wire::{Outcome, State};
use super::{BESIDE, Kind, May, Push, Pushed, Refusal, Upload};
use crate::stream::{Added, Deltas, Signing, Stream};
use crate::{Error, Result};

/// How long an answer is held back for the end to come.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the end is remembered for whoever asks again.
const MEMORY: Duration = Duration::from_mins(5);
/// Images checked and compressed at once.
const AT_ONCE: usize = 2;

/// Whose upload, and which.
type Key = (Sha256Digest, Sha256Digest);
type End = Result<State, Refusal>;

/// Publications under way, and ended ones that nobody was told of yet.
pub(super) struct Publications {
    ends: Mutex<BTreeMap<Key, watch::Receiver<Option<End>>>>,
    turns: Semaphore,
}

impl Default for Publications {
    fn default() -> Self {
        Self { ends: Mutex::default(), turns: Semaphore::new(AT_ONCE) }
    }
}

impl Push {
    /// Publishes the upload of this name, unless that is under way or done already. Says so when it takes
    /// long. Without the upload it tells how that went which was begun before.
    pub(crate) async fn finish(self: &Arc<Self>, id: Key, upload: Result<Pushed, Refusal>, may: May) -> End {
        let mut end = {
            let mut ends = self.publications.ends.lock().unwrap_or_else(PoisonError::into_inner);
            match ends.get(&id) {
                Some(end) => end.clone(),
                None => ends.entry(id).or_insert(self.begin(id, upload?, may)).clone(),
            }
        };
        match timeout(PATIENCE, end.wait_for(Option::is_some)).await {
            Err(_) => Ok(State::Publishing),
            Ok(Ok(end)) => {
                self.forget(&id);
                end.clone().unwrap_or(Ok(State::Publishing))
            }
            Ok(Err(_)) => {
                self.forget(&id);
                Err(Refusal::new(Kind::Failed, "the server failed; its log says why"))
            }
        }
    }

    fn begin(self: &Arc<Self>, id: Key, upload: Pushed, may: May) -> watch::Receiver<Option<End>> {
        let (sender, receiver) = watch::channel(None);
        let this = Arc::clone(self);
        tokio::spawn(async move {
            let turn = this.publications.turns.acquire().await;
            let publisher = Arc::clone(&this);
            let done = tokio::task::spawn_blocking(move || publisher.publish(&upload.0, &may)).await;
            // Whoever asked may be gone.
            let _told = sender.send(done.ok());
            drop(turn);
            sleep(MEMORY).await;
            this.forget_ended(&id);
        });
        receiver
    }

    fn forget(&self, id: &Key) {
        self.publications.ends.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }

    /// Forgets a publication unless another of the same upload is under way by now.
    fn forget_ended(&self, id: &Key) {
        let mut ends = self.publications.ends.lock().unwrap_or_else(PoisonError::into_inner);
        if ends.get(id).is_some_and(|end| end.borrow().is_some()) {
            ends.remove(id);
        }
    }

    fn publish(&self, upload: &Upload, may: &May) -> End {
        // Another server on the same tree may be at it.
        let Some(_lock) = upload.lock()? else { return Ok(State::Publishing) };
        let manifest = check(upload)?;
        let added = match self.add(upload, &manifest, may) {
            Ok(state) => state,
            Err(error) => return Err(self.refused(upload, error)?),
        };
        upload.remove()?;
        (self.say)(&format!("pushed: {} {}", manifest.product, manifest.serial));
        Ok(added)
    }

    fn add(&self, upload: &Upload, manifest: &Manifest, may: &May) -> Result<State> {
        let outcome = |new, fingerprint| Outcome {
            product: manifest.product.clone(),
            serial: manifest.serial,
            fingerprint,
            new,
        };
        if self.settings.unsigned {
            check_names(upload, manifest, may)?;
            let (_, new) = Stream::add_unsigned(self.stream.root(), &upload.image())?;
            return Ok(State::Waiting(outcome(new, None)));
        }
        let key = self.keys.find_all(&self.stream.keys()?)?;
        let signing = Signing { key: &key, now: SystemTime::now(), validity: None };
        let deltas = Deltas { last: self.settings.deltas as usize, ..Deltas::default() };
        let may_take = |product: &Product| may(&product.tree_path());
        let Added { new, fingerprint, .. } =
            self.stream.add_pushed(&upload.image(), &signing, &deltas, &may_take)?;
        Ok(State::Published(outcome(new, fingerprint)))
    }

    /// What to answer when the stream does not take an image. Files that are not what was announced go, to
    /// be sent again; an image that is no good goes as a whole.
    fn refused(&self, upload: &Upload, error: Error) -> Result<Refusal> {
        let reason = match error {
            Error::Refused { reason, .. } => reason,
            Error::Image { path, source } => {
                format!("{}: {source}", path.file_name().unwrap_or_default().to_string_lossy())
            }
            other => return Ok(other.into()),
        };
        let damaged = upload.drop_damaged(upload.announcement.files.keys().map(String::as_str))?;
        if !damaged.is_empty() {
            return Ok(damage(&damaged));
        }
        let conflict = match self.present(&upload.announcement) {
            Err(refusal) if refusal.kind == Kind::Conflict => Some(refusal),
            _ => None,
        };
        upload.remove()?;
        Ok(conflict.unwrap_or_else(|| Refusal::new(Kind::Unusable, format!("not added: {reason}"))))
    }
}

/// Checks that all has come and the manifest is of what was announced. The files it lists are hashed when
/// the image is added.
fn check(upload: &Upload) -> Result<Manifest, Refusal> {
    let announcement = &upload.announcement;
    let offsets = upload.offsets()?;
    let part = announcement.files.iter().find(|(name, part)| offsets.get(*name) != Some(&part.size));
    if let Some((name, part)) = part {
        let reason = format!("of {name} not all {} bytes are here", part.size);
        return Err(Refusal::new(Kind::Conflict, reason));
    }
    let beside = BESIDE.into_iter().filter(|name| announcement.files.contains_key(*name));
    let damaged = upload.drop_damaged(beside)?;
    if !damaged.is_empty() {
        return Err(damage(&damaged));
    }
    let unusable = |reason: String| -> Result<Manifest, Refusal> {
        upload.remove()?;
        Err(Refusal::new(Kind::Unusable, reason))
    };
    let path = upload.image().join(BESIDE[0]);
    let bytes = fs::read(&path).map_err(Error::io(&path))?;
    let manifest = match Manifest::parse(&bytes) {
        Ok(manifest) => manifest,
        Err(error) => return unusable(error.to_string()),
    };
    if (&manifest.product, manifest.serial) != (&announcement.product, announcement.serial) {
        return unusable("the manifest is of another image than was announced".into());
    }
    let announced = announcement.files.iter().filter(|(name, _)| !BESIDE.contains(&name.as_str()));
    let announced = announced.map(|(name, part)| (name, part.size, part.sha256));
    if !announced.eq(manifest.files.iter().map(|(name, file)| (name, file.size, file.sha256))) {
        return unusable("the manifest lists other files than were announced".into());
    }
    Ok(manifest)
}

/// Whoever signs later does not know who pushed, so other names of the release, which could be those
/// of another product, are for those who may push the whole distribution.
fn check_names(upload: &Upload, manifest: &Manifest, may: &May) -> Result<()> {
    let distribution = Path::new("images").join(manifest.product.distribution());
    if manifest.release_aliases.is_empty() || may(&distribution) {
        return Ok(());
    }
    let reason = "other names of its release are for those who may push to the whole distribution";
    Err(Error::Refused { dir: upload.image(), reason: reason.into() })
}

fn damage(names: &[String]) -> Refusal {
    Refusal::new(Kind::Conflict, format!("damaged on the way: {}; send them again", names.join(", ")))
}
