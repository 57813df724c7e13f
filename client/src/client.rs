//! All of it behind one value.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use millstream_image::{Alias, Architecture};

use crate::arriving::Sink;
use crate::cache::DocumentCache;
use crate::catalogue::{Catalogue, CatalogueImage};
use crate::documents::{self, Reader};
use crate::fetch::{self, Keep};
use crate::http::{HttpClient, HttpOptions};
use crate::query::{ImageName, ImageRef, Place, names_product};
use crate::remotes::{Protocol, Remote, RemoteName, Remotes, Trust};
use crate::settings::Settings;
use crate::store::{SharedStore, Store, StoredImage};
use crate::tree::Tree;
use crate::trust::TrustFile;
use crate::{Error, Progress, Result, api, oci};

/// Where a client keeps things, and how it speaks HTTP.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// The table of remotes, a JSON file.
    pub remotes: PathBuf,
    /// What was set for all images, a JSON file.
    pub settings: PathBuf,
    /// What was seen of each remote. Losing it loses the protection against rollback.
    pub trust: PathBuf,
    /// The image store.
    pub store: PathBuf,
    /// A store of root's that is read where root shares it.
    pub shared: Option<PathBuf>,
    /// Documents that never change; may be deleted at any time.
    pub documents: PathBuf,
    /// Images of servers that have LXC's index only; may be deleted at any time.
    pub lxc: PathBuf,
    /// Layers of registries' images on their way; may be deleted at any time.
    pub oci: PathBuf,
    /// Further authorities, pace of servers.
    pub http: HttpOptions,
    /// Architecture that names without one mean.
    pub architecture: Architecture,
}

impl ClientConfig {
    /// The usual places below a user's directories for settings, data and cache.
    pub fn new(config: &Path, data: &Path, cache: &Path) -> Self {
        Self {
            remotes: config.join("remotes.json"),
            settings: config.join("settings.json"),
            trust: data.join("trust"),
            store: data.join("images"),
            shared: None,
            documents: cache.join("documents"),
            lxc: cache.join("lxc"),
            oci: cache.join("oci"),
            http: HttpOptions::default(),
            architecture: Architecture::host(),
        }
    }
}

/// What a name turned out to mean.
#[derive(Clone, Debug)]
pub enum Resolved {
    /// An image of the store.
    Local(Box<StoredImage>),
    /// An image a remote offers; it may be in the store already.
    Remote(RemoteName, Box<CatalogueImage>),
}

/// Finds, verifies, fetches and keeps images. Holds no global state: several may live side by
/// side, in one process or in many.
#[derive(Debug)]
pub struct Client {
    pub(crate) config: ClientConfig,
    pub(crate) store: Mutex<Option<Arc<Store>>>,
}

impl Client {
    /// A client; touches nothing yet.
    pub fn new(config: ClientConfig) -> Self {
        Self { config, store: Mutex::new(None) }
    }

    /// The store, opened at first use.
    pub fn store(&self) -> Result<Arc<Store>> {
        let mut slot = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(store) = &*slot {
            return Ok(store.clone());
        }
        let store = Arc::new(Store::open(&self.config.store)?);
        *slot = Some(store.clone());
        Ok(store)
    }

    /// Fetches from addresses of no remote.
    pub(crate) fn http(&self) -> Result<HttpClient> {
        HttpClient::new(&self.config.http)
    }

    /// The remotes as the file has them now.
    pub fn remotes(&self) -> Result<Remotes> {
        Remotes::load(&self.config.remotes)
    }

    /// What was set for all images, as the file has it now.
    pub fn settings(&self) -> Result<Settings> {
        Settings::load(&self.config.settings)
    }

    /// Changes what is set for all images.
    pub fn change_settings(&self, change: impl FnOnce(&mut Settings) -> Result<()>) -> Result<()> {
        Settings::update(&self.config.settings, change)
    }

    /// What a remote offers, verified now.
    pub async fn catalogue(&self, name: &RemoteName) -> Result<Catalogue> {
        let remotes = self.remotes()?;
        let remote = remotes.get(name)?;
        let (catalogue, trust) = self.read(name, remote).await?;
        if trust != remote.trust {
            Remotes::update(&self.config.remotes, |remotes| {
                // Unless the user has changed it meanwhile.
                if let Some(found) = remotes.remotes.get_mut(name).filter(|found| *found == remote) {
                    found.trust = trust;
                }
                Ok(())
            })?;
        }
        Ok(catalogue)
    }

    /// What a name means. Without a remote: an alias or fingerprint of the store, else an image of
    /// the default remote. In `local:` also the newest image here of the product named, which needs
    /// no server.
    pub async fn resolve(&self, name: &ImageName) -> Result<Resolved> {
        let remote = match &name.place {
            Place::Local => {
                let store = self.store()?;
                let mut found = store.find(&name.image)?.or_else(|| self.find_shared(&name.image));
                if found.is_none() {
                    found = self.stored_product(&name.image)?;
                }
                let stored = found.map_or_else(|| store.resolve(&name.image), Ok)?;
                return Ok(Resolved::Local(Box::new(stored)));
            }
            Place::Remote(remote) => remote.clone(),
            Place::Anywhere => {
                let here = self.store()?.find(&name.image)?;
                if let Some(image) = here.or_else(|| self.find_shared(&name.image)) {
                    return Ok(Resolved::Local(Box::new(image)));
                }
                self.remotes()?.default.ok_or_else(|| {
                    let reason = "it is not in the local store, and there is no default remote; \
                                  type: millstream remote add NAME URL, or remote set-default NAME";
                    Error::image(&name.image, reason)
                })?
            }
        };
        let catalogue = self.catalogue(&remote).await?;
        let image = catalogue.resolve(&name.image, self.config.architecture)?.clone();
        Ok(Resolved::Remote(remote, Box::new(image)))
    }

    /// Brings the image a name means into the store, if it is not there, and returns it. Dropping the
    /// future at any point leaves the store as it was, and what has come for the next call.
    pub async fn fetch(&self, name: &ImageName, keep: Keep, progress: &dyn Progress) -> Result<StoredImage> {
        self.fetch_into(name, keep, None, progress).await
    }

    /// As [`Client::fetch`], while `sink` reads the root file system as it comes: it has returned when
    /// this does. An image that is here already, or is no tar archive, is not given to it.
    pub async fn fetch_into(
        &self,
        name: &ImageName,
        keep: Keep,
        sink: Option<Sink>,
        progress: &dyn Progress,
    ) -> Result<StoredImage> {
        match self.resolve(name).await? {
            Resolved::Local(image) => self.keep(*image, keep).await,
            Resolved::Remote(remote, image) => {
                self.fetch_image_into(&remote, &image, keep, sink, progress).await
            }
        }
    }

    /// As [`Client::fetch`], of an image already found.
    pub async fn fetch_image(
        &self,
        name: &RemoteName,
        image: &CatalogueImage,
        keep: Keep,
        progress: &dyn Progress,
    ) -> Result<StoredImage> {
        self.fetch_image_into(name, image, keep, None, progress).await
    }

    /// As [`Client::fetch_into`], of an image already found.
    pub async fn fetch_image_into(
        &self,
        name: &RemoteName,
        image: &CatalogueImage,
        keep: Keep,
        sink: Option<Sink>,
        progress: &dyn Progress,
    ) -> Result<StoredImage> {
        let remotes = self.remotes()?;
        let tree = self.tree(remotes.get(name)?)?;
        let store = self.store()?;
        let names = fetch::forget_withdrawn(&store, image.fingerprint)?;
        if let Some(shared) = self.shared().and_then(|shared| shared.get(image.fingerprint)) {
            let record = fetch::record(name.as_str(), image, keep);
            let stored = fetch::link(&store, &shared, Some(record), keep).await?;
            names.iter().try_for_each(|name| store.add_alias(name, stored.fingerprint, false))?;
            return store.get(stored.fingerprint)?.map_or(Ok(stored), Ok);
        }
        let job = fetch::Job { store: &store, tree: &tree, remote: name.as_str(), image, keep, progress };
        let stored = job.run(sink).await?;
        names.iter().try_for_each(|name| store.add_alias(name, stored.fingerprint, false))?;
        Ok(stored)
    }

    /// Makes an image that a local name means one of this client's own store, if it is in root's.
    pub async fn keep(&self, image: StoredImage, keep: Keep) -> Result<StoredImage> {
        image.expect_files()?;
        let store = self.store()?;
        match store.get(image.fingerprint)? {
            Some(stored) => fetch::keep_longer(&store, stored, keep),
            None => fetch::link(&store, &image, None, keep).await,
        }
    }

    fn find_shared(&self, name: &ImageRef) -> Option<StoredImage> {
        self.shared()?.find(name)
    }

    fn shared(&self) -> Option<SharedStore> {
        SharedStore::open(self.config.shared.as_deref()?)
    }

    /// Gives a stored image names; `replace` takes them from other images.
    pub fn add_aliases(&self, image: &StoredImage, aliases: &[Alias], replace: bool) -> Result<()> {
        let store = self.store()?;
        aliases.iter().try_for_each(|alias| store.add_alias(alias, image.fingerprint, replace))
    }

    /// The newest image of the store whose product a name says.
    fn stored_product(&self, name: &ImageRef) -> Result<Option<StoredImage>> {
        let readings = name.readings(self.config.architecture);
        let answers = |image: &StoredImage| {
            let Some(product) = image.origin.as_ref().map(|origin| &origin.product) else { return false };
            let title = image.properties.get("release_title").map_or(product.release(), String::as_str);
            readings.iter().any(|(name, arch)| {
                let releases = [product.release(), title];
                *arch == product.architecture()
                    && names_product(name, product.distribution(), &releases, product.variant())
            })
        };
        let images = self.store()?.list()?;
        Ok(images.into_iter().filter(answers).max_by_key(|image| image.created))
    }

    /// The catalogue, and whom to trust from now on: a stream whose key changes names the new one in
    /// documents that the old one signed.
    pub(crate) async fn read(&self, name: &RemoteName, remote: &Remote) -> Result<(Catalogue, Trust)> {
        match remote.protocol {
            Protocol::Simplestreams => {}
            Protocol::Lxd => return Ok((api::catalogue(&self.tree(remote)?).await?, remote.trust.clone())),
            Protocol::Oci => return Err(Error::remote(name, oci::NO_LIST)),
            Protocol::Lxc => {
                let reason = "this server has LXC's index only, whose images have no fingerprints; use it \
                              with lxc-create -t millstream";
                return Err(Error::remote(name, reason));
            }
        }
        let trust = self.trust_file(name);
        let mut first_error = None;
        // A mirror that is down, frozen or lies is passed over: all of what it said is dropped.
        for tree in remote.trees(&self.config.http)? {
            match self.read_at(remote, &tree, &trust).await {
                Ok(found) => return Ok(found),
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        Err(first_error.unwrap_or_else(|| Error::remote(name, "it has no servers")))
    }

    /// What one server of a remote says, and the keys that count from now on.
    async fn read_at(&self, remote: &Remote, tree: &Tree, trust: &TrustFile) -> Result<(Catalogue, Trust)> {
        let reading = self.reader(remote, tree, trust).read().await?;
        if reading.keys.is_empty() || !remote.is_signed() || remote.trust.pins(&reading.keys) {
            return Ok((Catalogue::of_parts(reading.parts), remote.trust.clone()));
        }
        // A key that cannot be had now will be had later; nothing is lost by waiting.
        let offered = documents::offered_key(tree).await.unwrap_or_default();
        let Some(followed) = remote.trust.follow(&reading.keys, offered)? else {
            return Ok((Catalogue::of_parts(reading.parts), remote.trust.clone()));
        };
        // Once more, so that what is remembered was seen with the keys that count from now on.
        let remote = Remote { trust: followed, ..remote.clone() };
        let reading = self.reader(&remote, tree, trust).read().await?;
        Ok((Catalogue::of_parts(reading.parts), remote.trust))
    }

    /// The remote's tree at the remote itself.
    pub(crate) fn tree(&self, remote: &Remote) -> Result<Tree> {
        let trees = remote.trees(&self.config.http)?;
        trees.into_iter().next().ok_or_else(|| Error::remote(&remote.url, "it has no servers"))
    }

    pub(crate) fn reader<'a>(
        &'a self,
        remote: &'a Remote,
        tree: &'a Tree,
        trust: &'a TrustFile,
    ) -> Reader<'a> {
        let cache = DocumentCache(&self.config.documents);
        Reader { remote, tree, trust, cache, now: SystemTime::now() }
    }

    pub(crate) fn lxc_cache(&self) -> &Path {
        &self.config.lxc
    }

    pub(crate) fn trust_file(&self, name: &RemoteName) -> TrustFile {
        TrustFile::new(&self.config.trust, name)
    }
}
