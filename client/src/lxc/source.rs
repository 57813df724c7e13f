//! Where both files of an image come from: the store, filled from simplestreams, or the cache of a
//! server that has no more than LXC's index.

use std::path::PathBuf;
use std::time::SystemTime;

use chrono::{DateTime, Utc};
use millstream_image::lxc_index::Entry;
use millstream_image::manifest::Manifest;
use millstream_image::{Product, Sha256Digest};
use serde::{Deserialize, Serialize};

use super::index::{self, BuildCache, META, ROOTFS};
use super::meta::Meta;
use super::{Files, Listed, Mode, Wanted};
use crate::arriving::{Arriving, Sink};
use crate::catalogue::{CatalogueImage, RootKind};
use crate::client::Client;
use crate::fetch::Keep;
use crate::query::ImageRef;
use crate::remotes::{Protocol, Remote, RemoteName};
use crate::store::{ATTACHED, Store, StoredImage};
use crate::tree::{Tree, TreePath};
use crate::{Error, Progress, Result};

/// The largest manifest, in bytes.
const MAX_MANIFEST: u64 = 64 << 20;
/// The largest `meta.tar.xz`, in bytes.
const MAX_META: u64 = 4 << 20;

/// Takes the root file system while it comes, as [`Sink`] does.
pub type Unpacking = Box<dyn FnOnce(Arriving) + Send>;

/// How a copy that is here already is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CacheUse {
    /// The server says what is newest; while it is out of reach, a copy that has not expired serves.
    #[default]
    Ask,
    /// The copy here serves whatever its age, if there is one.
    Force,
    /// The copy here goes first.
    Flush,
}

/// How an image came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Came {
    /// From the server, just now.
    Fetched,
    /// It was here already.
    Cached,
    /// It was here already, and the server is out of reach.
    Unasked,
}

impl Client {
    /// The images of a remote that LXC can use, one for each product.
    pub async fn lxc_list(&self, name: &RemoteName, mode: Mode) -> Result<Vec<Listed>> {
        let remotes = self.remotes()?;
        let listed = |product: &Product, build: &str| Listed {
            distribution: product.distribution().to_owned(),
            release: product.release().to_owned(),
            architecture: product.architecture(),
            variant: product.variant().to_owned(),
            build: build.to_owned(),
        };
        if remotes.get(name)?.protocol == Protocol::Lxc {
            let entries = self.lxc_index(name, mode).await?;
            return Ok(entries.iter().map(|entry| listed(&entry.product, &entry.build)).collect());
        }
        if matches!(remotes.get(name)?.protocol, Protocol::Lxd | Protocol::Oci) {
            return Err(lacking(name));
        }
        let catalogue = self.catalogue(name).await?;
        let usable = catalogue.newest().filter(|image| image.root_kind == RootKind::TarXz);
        Ok(usable.map(|image| listed(&image.product, &image.serial)).collect())
    }

    /// Brings both files of an image here, verified. `sink` reads the root file system while it comes, as
    /// with [`Client::fetch_into`].
    pub async fn lxc_fetch(
        &self,
        name: &RemoteName,
        wanted: &Wanted,
        mode: Mode,
        cache: CacheUse,
        mut sink: Option<Unpacking>,
        progress: &dyn Progress,
    ) -> Result<Files> {
        let remotes = self.remotes()?;
        let job = Job { client: self, name, remote: remotes.get(name)?, wanted, mode, progress };
        let given = sink.is_some();
        let files = match job.remote.protocol {
            Protocol::Lxc => job.of_index(cache, &mut sink).await,
            Protocol::Simplestreams => job.of_store(cache, &mut sink).await,
            Protocol::Lxd | Protocol::Oci => return Err(lacking(name)),
        };
        // Foreign simplestreams do not list LXC's metadata; the index beside them may. Where signatures
        // count, only the documents that were signed say what there is.
        match files {
            Err(Error::Image { .. })
                if job.remote.protocol == Protocol::Simplestreams
                    && !job.remote.is_signed()
                    && sink.is_some() == given =>
            {
                let first = files;
                match job.of_index(cache, &mut sink).await {
                    Err(error) if error.is_missing() || matches!(error, Error::Image { .. }) => first,
                    other => other,
                }
            }
            other => other,
        }
    }

    async fn lxc_index(&self, name: &RemoteName, mode: Mode) -> Result<Vec<Entry>> {
        let remotes = self.remotes()?;
        let remote = remotes.get(name)?;
        let tree = self.tree(remote)?;
        let trust = self.trust_file(name);
        index::index(&self.reader(remote, &tree, &trust), mode).await
    }
}

struct Job<'a> {
    client: &'a Client,
    name: &'a RemoteName,
    remote: &'a Remote,
    wanted: &'a Wanted,
    mode: Mode,
    progress: &'a dyn Progress,
}

impl Job<'_> {
    async fn of_store(&self, cache: CacheUse, sink: &mut Option<Unpacking>) -> Result<Files> {
        let store = self.client.store()?;
        let mut here = self.stored(&store)?;
        match (cache, here.as_ref()) {
            (CacheUse::Force, Some((image, files))) => {
                store.touch(image.fingerprint, Utc::now())?;
                return Ok(files.clone());
            }
            (CacheUse::Flush, Some((image, _))) if image.cached => {
                store.delete(image.fingerprint)?;
                here = None;
            }
            _ => {}
        }
        let newest = match self.client.catalogue(self.name).await {
            Err(error) if error.is_passing() => match here {
                Some((image, files)) if !self.is_expired(&files)? => {
                    store.touch(image.fingerprint, Utc::now())?;
                    return Ok(Files { came: Came::Unasked, ..files });
                }
                _ => return Err(error),
            },
            other => other?.resolve(&self.image_ref()?, self.wanted.architecture)?.clone(),
        };
        if newest.root_kind != RootKind::TarXz {
            return Err(Error::image(&newest.product, "it has no rootfs.tar.xz, which LXC needs"));
        }
        let keep = Keep { cached: true, auto_update: false };
        let was_here = store.get(newest.fingerprint)?.is_some();
        let tree = self.client.tree(self.remote)?;
        let attached = attached_path(&store, &newest);
        // First what is small: where it is missing, nothing has been given to the sink.
        let meta = match attached {
            Some(_) => None,
            None => Some(lxc_metadata(&tree, &newest).await?),
        };
        let sink = sink.take().map(|sink| -> Sink { Box::new(|_, rootfs| sink(rootfs)) });
        let image = self.client.fetch_image_into(self.name, &newest, keep, sink, self.progress).await?;
        let meta = match (attached_path(&store, &newest), meta) {
            (Some(path), _) => path,
            (None, Some(meta)) => store.attach(newest.fingerprint, ATTACHED, &meta)?,
            (None, None) => return Err(Error::image(&newest.product, "it was deleted meanwhile; try again")),
        };
        store.touch(image.fingerprint, Utc::now())?;
        let came = if was_here { Came::Cached } else { Came::Fetched };
        Ok(Files { rootfs: image.rootfs, meta, build: newest.serial, came })
    }

    /// The newest image of the store that came from this remote and is what is wanted.
    fn stored(&self, store: &Store) -> Result<Option<(StoredImage, Files)>> {
        let wanted = self.wanted;
        let fits = |image: &StoredImage| {
            let Some(origin) = &image.origin else { return None };
            let product = &origin.product;
            let title = image.properties.get("release_title").map(String::as_str);
            let same = origin.remote == self.name.as_str()
                && product.distribution().eq_ignore_ascii_case(&wanted.distribution)
                && (product.release() == wanted.release || title == Some(&wanted.release))
                && product.architecture() == wanted.architecture
                && product.variant() == wanted.variant;
            let meta = store.attachment(image.fingerprint, ATTACHED).filter(|_| same)?;
            let build = origin.serial.clone();
            Some(Files { rootfs: image.rootfs.clone(), meta, build, came: Came::Cached })
        };
        let images = store.list()?.into_iter();
        let mut found: Vec<_> = images.filter_map(|image| fits(&image).map(|files| (image, files))).collect();
        found.sort_by(|a, b| a.1.build.cmp(&b.1.build));
        Ok(found.pop())
    }

    async fn of_index(&self, usage: CacheUse, sink: &mut Option<Unpacking>) -> Result<Files> {
        let dir = self.client.lxc_cache().join(self.name.as_str());
        let cache = BuildCache { dir: &dir };
        let product = self.product()?;
        let files = |(dir, build): (PathBuf, String), came| Files {
            rootfs: dir.join(ROOTFS),
            meta: dir.join(META),
            build,
            came,
        };
        match usage {
            CacheUse::Force => {
                if let Some(here) = cache.newest(&product) {
                    return Ok(files(here, Came::Cached));
                }
            }
            CacheUse::Flush => cache.flush(&product)?,
            CacheUse::Ask => {}
        }
        let entries = match self.client.lxc_index(self.name, self.mode).await {
            Err(error) if error.is_passing() => {
                let here = cache.newest(&product).map(|here| files(here, Came::Unasked));
                return match here {
                    Some(files) if !self.is_expired(&files)? => Ok(files),
                    _ => Err(error),
                };
            }
            other => other?,
        };
        let Some(entry) = entries.iter().find(|entry| entry.product == product) else {
            let reason = "the server's index has none of that name; --list shows what there is";
            return Err(Error::image(&product, reason));
        };
        let (tree, keyring) = (self.client.tree(self.remote)?, self.remote.trust.keyring()?);
        let reader = (sink, self.progress);
        let (dir, came) = cache.fetch((&tree, keyring), entry, SystemTime::now(), reader).await?;
        let came = if came { Came::Fetched } else { Came::Cached };
        Ok(files((dir, entry.build.clone()), came))
    }

    fn is_expired(&self, files: &Files) -> Result<bool> {
        let now: DateTime<Utc> = Utc::now();
        Ok(Meta::read(&files.meta)?.expiry(self.mode)?.is_some_and(|expiry| expiry < now.timestamp()))
    }

    fn product(&self) -> Result<Product> {
        let Wanted { distribution, release, architecture, variant } = self.wanted;
        Ok(Product::new(distribution, release, *architecture, variant)?)
    }

    fn image_ref(&self) -> Result<ImageRef> {
        let Wanted { distribution, release, variant, .. } = self.wanted;
        format!("{distribution}/{release}/{variant}").parse()
    }
}

/// A remote whose images LXC cannot use.
fn lacking(name: &RemoteName) -> Error {
    Error::remote(name, "it has no metadata of LXC; use a server with simplestreams or LXC's index")
}

fn attached_path(store: &Store, image: &CatalogueImage) -> Option<PathBuf> {
    store.attachment(image.fingerprint, ATTACHED)
}

/// `meta.tar.xz` of an image of our own streams: the signed document vouches for the manifest, and
/// the manifest for this.
async fn lxc_metadata(tree: &Tree, image: &CatalogueImage) -> Result<Vec<u8>> {
    let lacking = || Error::image(&image.product, "the remote's documents do not list its LXC metadata");
    let manifest = image.manifest.as_ref().ok_or_else(lacking)?;
    if manifest.size > MAX_MANIFEST {
        return Err(Error::document(tree.url(&manifest.path), "it is larger than any manifest"));
    }
    let text = stated(tree, &manifest.path, manifest.size, manifest.sha256).await?;
    let manifest_url = tree.url(&manifest.path);
    let parsed = Manifest::parse(&text).map_err(|e| Error::document(&manifest_url, e))?;
    if parsed.product != image.product || parsed.serial.to_string() != image.serial {
        let reason = format!(
            "it is of {} {}, not of {} {}",
            parsed.product, parsed.serial, image.product, image.serial
        );
        return Err(Error::mismatch(manifest_url, reason));
    }
    let meta = parsed.files.get(META).filter(|meta| meta.size <= MAX_META).ok_or_else(lacking)?;
    let dir = manifest.path.as_str().rsplit_once('/').map_or("", |(dir, _)| dir);
    stated(tree, &format!("{dir}/{META}").parse()?, meta.size, meta.sha256).await
}

async fn stated(tree: &Tree, path: &TreePath, size: u64, sha256: Sha256Digest) -> Result<Vec<u8>> {
    let bytes = tree.document(path, size).await?;
    let found = Sha256Digest::of(&bytes);
    if bytes.len() as u64 != size || found != sha256 {
        let reason = format!("{} bytes with SHA-256 {found}, stated are {size} with {sha256}", bytes.len());
        return Err(Error::mismatch(tree.url(path), reason));
    }
    Ok(bytes)
}
