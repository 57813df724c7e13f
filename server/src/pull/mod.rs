//! A stream that fills itself: it lists what another server offers, signed with our own key, and
//! fetches each file at its first request.
//!
//! Upstream's documents are verified as a client verifies them; sizes and digests they state are what
//! files are held to. One download serves all who wait for a file, see [`Pull::follow`]; complete and
//! right it is renamed into the tree and served like any other. What is too much for the cache's
//! size leaves again, the longest unused first.

mod cache;
mod derived;
mod flight;
mod table;

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use millstream_client::{CatalogueImage, HttpOptions, Lot, Remote, Upstream};
use millstream_image::Serial;
use millstream_image::openpgp::SigningKey;
use tokio::task::spawn_blocking;

use crate::mirror::{Filter, foreign};
use crate::stream::{Signing, Stream};
use crate::{Error, Result};
use flight::Flights;
pub(crate) use flight::Following;
use table::{Expected, Table};

/// How long until upstream's documents are read again.
pub const REFRESH: Duration = Duration::from_mins(5);

/// Which server, and how much of it is kept.
pub struct Options {
    /// The server images come from.
    pub upstream: Remote,
    /// Which of its images are offered.
    pub filter: Filter,
    /// How it is reached.
    pub http: HttpOptions,
    /// Directory for what was seen of it.
    pub state: PathBuf,
    /// Most bytes of images on disk; without it nothing ever leaves.
    pub cache_size: Option<u64>,
    /// Signs the documents.
    pub key: SigningKey,
    /// Told what went wrong.
    pub say: Arc<dyn Fn(&str) + Send + Sync>,
}

/// A stream that is filled from upstream as clients ask.
pub struct Pull {
    stream: Stream,
    options: Options,
    /// Found out once it answers.
    upstream: tokio::sync::Mutex<Option<Arc<Upstream>>>,
    table: RwLock<Arc<Table>>,
    /// What manifests say beyond the table, by path in the tree.
    learned: Mutex<HashMap<String, Expected>>,
    flights: Flights,
    /// Held while room is made.
    room: Mutex<()>,
}

impl Pull {
    /// Takes a stream that is empty, or was filled this way before. Asks nobody.
    ///
    /// # Errors
    /// [`Error::Tree`] when it has images of its own.
    pub fn open(stream: Stream, options: Options) -> Result<Arc<Self>> {
        let table = Table::read(stream.root())?;
        if table.is_none() && !stream.list(SystemTime::now())?.is_empty() {
            let reason = "it has images of its own; an upstream needs an empty stream";
            return Err(Error::tree(stream.root(), reason));
        }
        Ok(Arc::new(Self {
            stream,
            options,
            upstream: tokio::sync::Mutex::default(),
            table: RwLock::new(Arc::new(table.unwrap_or_default())),
            learned: Mutex::default(),
            flights: Flights::default(),
            room: Mutex::default(),
        }))
    }

    /// The stream's root.
    pub fn root(&self) -> &Path {
        self.stream.root()
    }

    /// Whether upstream was read before, so that there is something to serve without it.
    pub fn is_filled(&self) -> bool {
        !self.table().is_empty()
    }

    /// Reads what upstream offers and publishes it. When that fails, what was published stays, with new
    /// signatures in time.
    pub async fn refresh(self: &Arc<Self>) -> Result<()> {
        let offered = self.offered().await;
        let this = Arc::clone(self);
        let publish = move || match offered {
            Ok((images, lxc)) => this.publish(&images, &lxc),
            Err(error) => {
                if this.is_filled() && this.stream.is_due(SystemTime::now())? {
                    this.stream.sign(&this.signing())?;
                }
                Err(error)
            }
        };
        spawn_blocking(publish).await.map_err(|e| Error::tree(self.root(), e.to_string()))?
    }

    /// Refreshes for ever; failures are said.
    pub async fn keep_fresh(self: Arc<Self>, every: Duration) {
        loop {
            tokio::time::sleep(every).await;
            if let Err(error) = self.refresh().await {
                self.say(&format!("upstream: {error}; what is here is served meanwhile"));
            }
        }
    }

    /// The images that upstream offers, and directories of those that LXC can use.
    async fn offered(&self) -> Result<(Vec<(Serial, CatalogueImage)>, BTreeSet<String>)> {
        let upstream = self.upstream().await?;
        let (offers, refused) = upstream.offers().await?;
        for reason in refused {
            self.say(&format!("not offered: {reason}"));
        }
        let offers = offers.into_iter().filter(|offer| self.options.filter.takes(&offer.product));
        let stated = |offer: millstream_client::Offer| match offer.lot {
            Lot::Stated(image) => foreign::serial(&offer.serial).map(|serial| Ok((serial, *image))),
            Lot::Unstated(_) => {
                let reason = "upstream has LXC's index only, which states no digests; use millstream mirror";
                Some(Err(Error::tree(self.root(), reason)))
            }
        };
        let images = offers.filter_map(stated).collect::<Result<Vec<_>>>()?;
        let lxc = derived::for_lxc(&upstream, &images).await?;
        Ok((images, lxc))
    }

    /// The table first: whatever documents list can then be fetched.
    fn publish(&self, images: &[(Serial, CatalogueImage)], lxc: &BTreeSet<String>) -> Result<()> {
        let (before, table) = (self.table(), Arc::new(Table::of(images)));
        if table != before || !self.is_filled() {
            for path in before.contradicted_by(&table) {
                self.forget(path)?;
            }
            table.write(self.root())?;
            *self.table.write().unwrap_or_else(PoisonError::into_inner) = table;
        }
        self.stream.offer(images, lxc, &self.signing()).map(drop)
    }

    async fn upstream(&self) -> Result<Arc<Upstream>> {
        let mut slot = self.upstream.lock().await;
        if let Some(upstream) = &*slot {
            return Ok(Arc::clone(upstream));
        }
        let Options { upstream, state, http, .. } = &self.options;
        let upstream = Arc::new(Upstream::open(upstream.clone(), state, http).await?);
        *slot = Some(Arc::clone(&upstream));
        Ok(upstream)
    }

    /// What upstream states of a file.
    fn expected(&self, path: &str) -> Option<Expected> {
        let learned = || self.learned.lock().unwrap_or_else(PoisonError::into_inner).get(path).cloned();
        self.table().get(path).cloned().or_else(learned)
    }

    fn table(&self) -> Arc<Table> {
        Arc::clone(&self.table.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn signing(&self) -> Signing<'_> {
        Signing { key: &self.options.key, now: SystemTime::now(), validity: None }
    }

    fn say(&self, text: &str) {
        (self.options.say)(text);
    }
}
