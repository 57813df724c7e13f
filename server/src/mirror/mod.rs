//! A tree that holds what another server offers, signed with our own key.
//!
//! Upstream is read and verified as a client reads it. Each image gathers in `.mirror`, is checked
//! byte for byte and added like one that was built here: whatever goes wrong, readers of the tree see
//! the set before or the set after. What upstream no longer offers stays until retention retires it.

mod fetch;
mod filter;
pub(crate) mod foreign;
mod job;

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::path::Path;
use std::time::{Duration, SystemTime};

use futures_util::{StreamExt, stream};
use millstream_client::{Offer, Progress, Upstream};
use millstream_image::{Product, Serial};
use serde::Serialize;

pub use filter::Filter;
pub use job::Job;

use crate::stream::{MIRROR, Pruned, Retention, Signing, Stream};
use crate::{Error, Result};
use fetch::Fetcher;

/// What to mirror, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which images.
    pub filter: Filter,
    /// So many of the newest of each product; the tree keeps no more of them either. All without it.
    pub latest: Option<usize>,
    /// Images fetched at once.
    pub jobs: usize,
    /// How long files of retired images stay.
    pub grace: Duration,
    /// Only say what would be done.
    pub dry_run: bool,
}

/// An image upstream offers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Image {
    /// Of which product.
    pub product: Product,
    /// Which one, in this tree.
    pub serial: Serial,
}

/// An image that did not come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// Which.
    #[serde(flatten)]
    pub image: Image,
    /// Why not.
    pub reason: String,
}

/// What a mirroring did, or would do.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Summary {
    /// Images that were added, or would be.
    pub added: Vec<Image>,
    /// How many the tree had already.
    pub present: usize,
    /// Images that did not come; the next run tries them again.
    pub failed: Vec<Failure>,
    /// What of upstream's documents cannot be used, and why.
    pub refused: Vec<String>,
    /// Older images that left.
    pub pruned: Pruned,
}

/// Brings what `options` asks for from `upstream` into `stream`. An image that fails keeps none of
/// another from coming; the summary says which did. Must run on a multi-threaded runtime.
///
/// # Errors
/// When upstream's documents cannot be read or believed: then nothing is changed.
pub async fn run(
    upstream: &Upstream,
    stream: &Stream,
    signing: &Signing<'_>,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Summary> {
    let (offers, refused) = upstream.offers().await?;
    let mut summary = Summary { refused, ..Summary::default() };
    let wanted = wanted(offers, options, &mut summary.refused);
    let have: Vec<_> = stream.list(SystemTime::now())?;
    let have = |offer: &Offer, serial: Serial| {
        have.iter().any(|image| image.product == offer.product && image.serial == serial)
    };
    let (present, missing): (Vec<_>, Vec<_>) =
        wanted.into_iter().partition(|(offer, serial)| have(offer, *serial));
    summary.present = present.len();
    let image = |offer: &Offer, serial: Serial| Image { product: offer.product.clone(), serial };
    if options.dry_run {
        summary.added = missing.iter().map(|(offer, serial)| image(offer, *serial)).collect();
        return Ok(summary);
    }
    let _lock = lock(stream.root())?;
    let have = stream.files_by_digest(SystemTime::now())?;
    let fetcher = Fetcher { upstream, filter: &options.filter, have, progress };
    let mut coming = stream::iter(missing)
        .map(|(offer, serial)| {
            let dir = fetch::directory(stream.root(), &offer, serial);
            let fetcher = &fetcher;
            async move {
                let brought = fetcher.bring(&offer, serial, &dir).await;
                (image(&offer, serial), dir, brought)
            }
        })
        .buffer_unordered(options.jobs.max(1));
    while let Some((image, dir, brought)) = coming.next().await {
        let signing = Signing { now: SystemTime::now(), ..*signing };
        let added =
            brought.and_then(|()| tokio::task::block_in_place(|| stream.add_mirrored(&dir, &signing)));
        match added {
            Ok(_) => {
                remove(&dir)?;
                summary.added.push(image);
            }
            Err(error) => {
                if matches!(error, Error::Refused { .. } | Error::Image { .. }) {
                    remove(&dir)?;
                }
                summary.failed.push(Failure { image, reason: error.to_string() });
            }
        }
    }
    drop(coming);
    summary.pruned = tokio::task::block_in_place(|| retire(stream, signing, options))?;
    Ok(summary)
}

/// The images to have, the newest of each product first.
fn wanted(offers: Vec<Offer>, options: &Options, refused: &mut Vec<String>) -> Vec<(Offer, Serial)> {
    let mut products: BTreeMap<Product, BTreeMap<Serial, Offer>> = BTreeMap::new();
    for offer in offers.into_iter().filter(|offer| options.filter.takes(&offer.product)) {
        match foreign::serial(&offer.serial) {
            Some(serial) => {
                products.entry(offer.product.clone()).or_default().entry(serial).or_insert(offer);
            }
            None => refused.push(format!("{} {:?}: not the name of a version", offer.product, offer.serial)),
        }
    }
    let latest = options.latest.unwrap_or(usize::MAX);
    let newest = |serials: BTreeMap<Serial, Offer>| {
        serials.into_iter().rev().take(latest).map(|(serial, offer)| (offer, serial))
    };
    products.into_values().flat_map(newest).collect()
}

/// Takes out what is more than the newest that are asked for, of the products that are mirrored.
fn retire(stream: &Stream, signing: &Signing<'_>, options: &Options) -> Result<Pruned> {
    let now = SystemTime::now();
    let retention = Retention { newest: options.latest, days: None };
    let listed = stream.list(now)?;
    let mut leaving = Vec::new();
    for images in listed.chunk_by(|a, b| a.product == b.product) {
        let product = &images[0].product;
        if options.filter.takes(product) {
            let serials: Vec<_> = images.iter().map(|image| image.serial).collect();
            let retired = retention.retires(&serials, now.into());
            leaving.extend(retired.into_iter().map(|serial| (product.clone(), serial)));
        }
    }
    if leaving.is_empty() {
        return Ok(Pruned::default());
    }
    stream.remove(&leaving, options.grace, &Signing { now, ..*signing })
}

/// One mirroring of a tree at a time.
fn lock(root: &Path) -> Result<File> {
    let dir = root.join(MIRROR);
    fs::create_dir_all(&dir).map_err(Error::io(&dir))?;
    let path = dir.join("lock");
    let file = File::create(&path).map_err(Error::io(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            Err(Error::tree(root, "another mirroring of this tree is under way; wait for its end"))
        }
        Err(TryLockError::Error(error)) => Err(Error::io(&path)(error)),
    }
}

fn remove(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io(dir)(error)),
        _ => Ok(()),
    }
}
