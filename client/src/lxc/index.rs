//! Servers with nothing but LXC's index: images known by their build's name alone.
//!
//! Where the remote is pinned to a key, index and files each need their detached signature. It says
//! who made a file, not which image it belongs to: only simplestreams binds the two.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use chrono::{DateTime, Utc};
use millstream_image::lxc_index::{self, COMPAT_LEVEL, Entry};
use millstream_image::openpgp::{Keyring, Verified};
use millstream_image::{Product, Sha256Digest, atomic};
use tokio::task::spawn_blocking;

use super::{Mode, Unpacking};
use crate::arriving::{self, Publisher};
use crate::documents::Reader;
use crate::remotes::lock_dir_of;
use crate::tree::{Tree, TreePath};
use crate::trust::{Sight, check_clock};
use crate::{Error, Progress, Result};

/// The largest index, in bytes.
const MAX_INDEX: u64 = 4 << 20;
const MAX_SIGNATURE: u64 = 64 << 10;
/// The largest files of an image, in bytes.
const MAX_ROOTFS: u64 = 16 << 30;
const MAX_META: u64 = 4 << 20;

pub(super) const ROOTFS: &str = "rootfs.tar.xz";
pub(super) const META: &str = "meta.tar.xz";

/// Fetches and checks the index for a mode.
pub(crate) async fn index(reader: &Reader<'_>, mode: Mode) -> Result<Vec<Entry>> {
    let plain = format!("meta/1.0/index-{}", mode.name());
    match one(reader, &format!("{plain}.{COMPAT_LEVEL}").parse()?).await {
        Err(error) if error.is_missing() => one(reader, &plain.parse()?).await,
        other => other,
    }
}

async fn one(reader: &Reader<'_>, path: &TreePath) -> Result<Vec<Entry>> {
    let url = reader.tree.url(path);
    let text = match reader.remote.trust.keyring()? {
        None => reader.tree.document(path, MAX_INDEX).await?,
        // Index and signature are two requests: a publication may have come between them.
        Some(keyring) => match signed(reader, &keyring, path).await {
            Err(Error::Signature { .. }) => signed(reader, &keyring, path).await?,
            other => other?,
        },
    };
    let text = String::from_utf8(text).map_err(|_| Error::document(&url, "it is not text"))?;
    let entries = lxc_index::parse(&text).map_err(|e| Error::document(&url, e))?;
    // It becomes the name of a directory.
    if let Some(bad) = entries.iter().find(|entry| entry.build.starts_with('.')) {
        return Err(Error::document(url, format!("{} has a build named {:?}", bad.product, bad.build)));
    }
    Ok(entries)
}

async fn signed(reader: &Reader<'_>, keyring: &Keyring, path: &TreePath) -> Result<Vec<u8>> {
    let pinned = keyring.fingerprints();
    let before = reader.trust.load(&pinned)?;
    let text = reader.tree.document(path, MAX_INDEX).await?;
    let url = reader.tree.url(path);
    let signature = signature(reader.tree, path).await?;
    let refused = |e: millstream_image::Error| Error::Signature { url: url.clone(), reason: e.to_string() };
    let Verified { signers, created, .. } =
        keyring.verify_detached(text.as_slice(), &signature, reader.now).map_err(refused)?;
    let created: DateTime<Utc> = created.into();
    check_clock(created, reader.now.into()).map_err(|reason| Error::Expired { url: url.clone(), reason })?;
    let sight = Sight { signers, created, generation: None, sha256: Sha256Digest::of(&text) };
    reader.compare(&before, path, &sight)?;
    reader.trust.record(&pinned, BTreeMap::from([(path.to_string(), sight)]))?;
    Ok(text)
}

async fn signature(tree: &Tree, path: &TreePath) -> Result<Vec<u8>> {
    let path: TreePath = format!("{path}.asc").parse()?;
    match tree.document(&path, MAX_SIGNATURE).await {
        Err(error) if error.is_missing() => Err(Error::Signature {
            url: tree.url(&path),
            reason: "there is no signature here, but this remote must be signed".into(),
        }),
        other => other,
    }
}

/// Images of one remote that has no fingerprints, by product and build.
pub(super) struct BuildCache<'a> {
    /// The directory of the remote.
    pub dir: &'a Path,
}

impl BuildCache<'_> {
    fn product(&self, product: &Product) -> PathBuf {
        let architecture = product.architecture();
        [product.distribution(), product.release(), architecture.debian(), product.variant()]
            .iter()
            .fold(self.dir.to_owned(), |dir, part| dir.join(part))
    }

    /// The newest build here, with its name.
    pub(super) fn newest(&self, product: &Product) -> Option<(PathBuf, String)> {
        let builds = fs::read_dir(self.product(product)).ok()?;
        let names = builds.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let newest = names.filter(|name| !name.starts_with('.')).max()?;
        Some((self.product(product).join(&newest), newest))
    }

    /// Removes what is here of a product.
    pub(super) fn flush(&self, product: &Product) -> Result<()> {
        let dir = self.product(product);
        match fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io(&dir)(error)),
            _ => Ok(()),
        }
    }

    /// The directory of a build, fetched and checked if it is not here. Other builds of the product
    /// go.
    pub(super) async fn fetch(
        &self,
        (tree, keyring): (&Tree, Option<Keyring>),
        entry: &Entry,
        now: SystemTime,
        (sink, progress): (&mut Option<Unpacking>, &dyn Progress),
    ) -> Result<(PathBuf, bool)> {
        let dir = self.product(&entry.product);
        let place = dir.join(&entry.build);
        let lock = place.clone();
        let _lock =
            spawn_blocking(move || lock_dir_of(&lock)).await.map_err(|e| Error::Setup(e.to_string()))??;
        if place.is_dir() {
            return Ok((place, false));
        }
        let staging = tempfile::Builder::new().prefix(".new-").tempdir_in(&dir).map_err(Error::io(&dir))?;
        let (publisher, reading) = match sink.take() {
            Some(sink) => {
                let (publisher, arriving) = arriving::pair();
                (Some(publisher), Some(spawn_blocking(move || sink(arriving))))
            }
            None => (None, None),
        };
        let from = (tree, keyring.as_ref());
        let fetched = fetch_files(from, entry, staging.path(), (now, progress), publisher).await;
        if let Some(reading) = reading {
            reading.await.map_err(|e| Error::Setup(format!("unpacking was stopped: {e}")))?;
        }
        fetched?;
        atomic::sync_dir(staging.path())?;
        for old in fs::read_dir(&dir).map_err(Error::io(&dir))?.flatten() {
            if old.path() != staging.path() {
                drop(fs::remove_dir_all(old.path()));
            }
        }
        atomic::rename(&staging.keep(), &place)?;
        fs::set_permissions(&place, std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .map_err(Error::io(&place))?;
        Ok((place, true))
    }
}

/// Brings both files of a build into `dir`, each checked where there is a key to check with. Whoever has the
/// publisher's other end reads the root file system while it comes, to its end only when it was right.
pub(crate) async fn fetch_files(
    (tree, keyring): (&Tree, Option<&Keyring>),
    entry: &Entry,
    dir: &Path,
    (now, progress): (SystemTime, &dyn Progress),
    publisher: Option<Publisher>,
) -> Result<()> {
    // First what is small.
    for (name, cap, publisher) in [(META, MAX_META, None), (ROOTFS, MAX_ROOTFS, publisher.as_ref())] {
        let what = (name, cap, publisher);
        fetch_file((tree, keyring), entry, what, &dir.join(name), (now, progress)).await?;
    }
    if let Some(publisher) = publisher {
        publisher.right();
    }
    Ok(())
}

async fn fetch_file(
    (tree, keyring): (&Tree, Option<&Keyring>),
    entry: &Entry,
    (name, cap, publisher): (&str, u64, Option<&Publisher>),
    file: &Path,
    (now, progress): (SystemTime, &dyn Progress),
) -> Result<()> {
    let path: TreePath = format!("{}/{name}", entry.path.trim_matches('/')).parse()?;
    tree.download_unstated(&path, file, cap, publisher, progress).await?;
    let Some(keyring) = keyring.cloned() else { return Ok(()) };
    let signature = signature(tree, &path).await?;
    let (file, url) = (file.to_owned(), tree.url(&path));
    let verify = move || verify(&keyring, &file, &signature, url, now);
    spawn_blocking(verify).await.map_err(|e| Error::Setup(e.to_string()))?
}

fn verify(keyring: &Keyring, file: &Path, signature: &[u8], url: String, now: SystemTime) -> Result<()> {
    let data = File::open(file).map_err(Error::io(file))?;
    match keyring.verify_detached(data, signature, now) {
        Ok(_) => Ok(()),
        Err(error) => Err(Error::Signature { url, reason: error.to_string() }),
    }
}
