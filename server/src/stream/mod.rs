//! A stream: a tree of signed images that any static web server can serve.
//!
//! Documents are published together by one rename, see [`layout`]; a reader sees the old set or
//! the new one. One writer works at a time, and each begins by clearing away what a writer before
//! it left half done. Adding an image reads that image and the present documents, nothing else.

mod catalogue;
mod deltas;
mod direct;
mod documents;
mod generation;
mod inspect;
mod layout;
mod lock;
mod pages;
mod place;
mod pushed;
mod repair;
mod retention;
mod retire;
mod select;
mod show;
mod sign;
mod staging;
mod unified;
mod unsigned;
mod upstream;
mod vcdiff;
mod verify;
mod workers;

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, SystemTime};

use chrono::{DateTime, Utc};
use millstream_image::manifest::Manifest;
use millstream_image::openpgp::{KeyFingerprint, Keyring, SKEW, SigningKey};
use millstream_image::simplestreams::{Freshness, INDEX_PATH};
use millstream_image::{Alias, Fingerprint, Product, Serial, Sha256Digest};
use serde::Serialize;

use crate::storage::Address;
use crate::{Error, Result};
pub(crate) use catalogue::images;
use catalogue::{Ahead, Catalogue};
use documents::Documents;
pub(crate) use layout::LOGS;
use lock::Lock;
pub(crate) use place::read_manifest as manifest_in;
use place::{Artefacts, Staged, Terms};
use staging::Claim;
use workers::joined;

pub use deltas::{Deltas, Outcome};
pub(crate) use generation::{current as current_publication, show_publication};
pub(crate) use inspect::{expected_sums, hash};
pub(crate) use layout::{COMBINED, IMAGES, MANIFEST, META, MIRROR, PUSH, SIGNED, SUMS, UNIFIED};
pub(crate) use pages::daily as daily_page;
pub(crate) use pushed::{BESIDE, artefacts, is_artefact};
pub use repair::Repaired;
pub use retention::{GRACE, Pruned, Retention};
pub use select::Selector;
pub use show::Shown;
pub(crate) use upstream::offered_files;
pub(crate) use verify::Bring;
pub use verify::{Problem, Report};

/// How long documents are good for when nothing else is asked: a month in which a publisher may be
/// away before clients refuse the stream as frozen. Each publication starts it anew.
pub const VALIDITY: Duration = Duration::from_hours(30 * 24);

/// Who signs, when, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Signing<'a> {
    /// The stream's key, with those that take over from it, see [`SigningKey::with`].
    pub key: &'a SigningKey,
    /// The time of this publication.
    pub now: SystemTime,
    /// How long the documents are good for; `None` keeps what the stream has.
    pub validity: Option<Duration>,
}

/// A stream's root directory.
#[derive(Clone, Debug)]
pub struct Stream {
    root: PathBuf,
    /// Whether images that are added get a unified archive when they bring none.
    unified: bool,
}

/// What became of an image that was to be added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Added {
    /// Of which product.
    pub product: Product,
    /// Which image.
    pub serial: Serial,
    /// By which LXD, Incus and Millstream know it.
    pub fingerprint: Option<Fingerprint>,
    /// Where it stands.
    pub path: PathBuf,
    /// False when the stream had the very same image already.
    pub new: bool,
    /// Aliases it took over, and the products that had them.
    pub moved_aliases: Vec<(Alias, String)>,
    /// Deltas from earlier images, and why others were left out.
    pub deltas: Vec<Outcome>,
}

/// An image of a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Listed {
    /// Of which product.
    pub product: Product,
    /// Which image.
    pub serial: Serial,
    /// The product's aliases.
    pub aliases: Vec<String>,
    /// By which LXD, Incus and Millstream know it.
    pub fingerprint: Option<Fingerprint>,
    /// Bytes of the compressed root file system.
    pub size: u64,
    /// Directory, from the root of the tree.
    pub path: PathBuf,
    /// Whether it is what the aliases lead to.
    pub newest: bool,
}

impl Stream {
    /// Makes `root` a stream, or finds that it is one; true when it was made. An interrupted
    /// attempt is completed.
    ///
    /// # Errors
    /// [`Error::Tree`] for a directory that holds anything else, belongs to somebody else or has
    /// another key.
    pub fn init(root: &Path, signing: &Signing<'_>) -> Result<(Self, bool)> {
        let stream = Self::at(root);
        prepare(root)?;
        let lock = Lock::exclusive(root)?;
        let new = generation::current(root)?.is_none();
        if new {
            stream.create(signing)?;
        } else {
            stream.check_key(signing.key)?;
            generation::link(root)?;
        }
        drop(lock);
        Ok((stream, new))
    }

    /// Opens a stream that was made before.
    ///
    /// # Errors
    /// [`Error::Tree`] when `root` is none.
    pub fn open(root: &Path) -> Result<Self> {
        check_path(root)?;
        if fs::symlink_metadata(root.join(layout::CURRENT)).is_err() {
            fs::metadata(root).map_err(Error::io(root))?;
            let reason = format!("not a stream; make it one with: millstream stream init {}", root.display());
            return Err(Error::tree(root, reason));
        }
        Ok(Self::at(root))
    }

    fn at(root: &Path) -> Self {
        Self { root: root.to_path_buf(), unified: false }
    }

    /// The same stream; what is added to it gets a unified archive, made of metadata and root file system,
    /// unless it brings one: that is what LXD and Incus import from an address.
    #[must_use]
    pub fn with_unified(self, unified: bool) -> Self {
        Self { unified, ..self }
    }

    /// Whether `root` can become a stream, or is one: what [`Stream::init`] checks first, for
    /// callers that would make a key for it.
    ///
    /// # Errors
    /// As [`Stream::init`].
    pub fn check_root(root: &Path) -> Result<()> {
        prepare(root)?;
        lock::check_owner(root)
    }

    /// The root directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The public key of the stream.
    pub fn keyring(&self) -> Result<Keyring> {
        let path = self.root.join(layout::KEY);
        let bytes = fs::read(&path).map_err(Error::io(&path))?;
        Keyring::from_bytes(&bytes).map_err(Error::image(&path))
    }

    /// The fingerprint clients pin.
    pub fn key_fingerprint(&self) -> Result<KeyFingerprint> {
        let path = self.root.join(layout::KEY);
        let first = self.keyring()?.fingerprints().into_iter().next();
        first.ok_or_else(|| Error::tree(&path, "it holds no key"))
    }

    /// Adds the image in `dir`, a directory that a build finished, and publishes it. The same
    /// image again changes nothing.
    ///
    /// # Errors
    /// [`Error::Refused`] when the image is damaged, incomplete or contradicts the stream; then
    /// the tree is as before.
    pub fn add(&self, dir: &Path, signing: &Signing<'_>) -> Result<Added> {
        self.add_with(dir, signing, &Deltas::NONE)
    }

    /// The same, with deltas from images before. Others may publish while the image is checked, signed
    /// and compared; the lock is held only to look and to publish.
    pub fn add_with(&self, dir: &Path, signing: &Signing<'_>, deltas: &Deltas) -> Result<Added> {
        self.add_as(&Terms::own(Artefacts::All), dir, signing, deltas)
    }

    /// Adds what a mirror brought: an image may lack what its upstream does not have.
    pub(crate) fn add_mirrored(&self, dir: &Path, signing: &Signing<'_>) -> Result<Added> {
        self.add_as(&Terms::own(Artefacts::Some), dir, signing, &Deltas::NONE)
    }

    fn add_as(&self, terms: &Terms<'_>, dir: &Path, signing: &Signing<'_>, deltas: &Deltas) -> Result<Added> {
        let manifest = place::read_manifest(dir)?;
        let mut added = self.adding(&manifest);
        let (product, serial) = (added.product.clone(), added.serial);
        let target = product.image_path(serial);
        let ahead = Ahead::read(&self.root, product.distribution());
        let (claim, mut catalogue) = {
            let (_lock, mut catalogue) = self.write(signing)?;
            // What is listed stands there.
            if added.path.exists() && Self::has(&mut catalogue, dir, &manifest, &mut added)? {
                return Ok(added);
            }
            (Claim::new(&self.root)?, catalogue)
        };
        let (staged, mut listing) = thread::scope(|scope| {
            // What the next publication rests on is read meanwhile.
            let reading = scope.spawn(|| {
                let read = catalogue.take(product.distribution(), ahead);
                documents::read_lxc(&mut catalogue, signing);
                read
            });
            let staged = Staged::take(claim, dir, (manifest, terms.artefacts), Some(signing));
            pages::prepare();
            joined(reading)?;
            staged
        })?;
        added.deltas = deltas::make(&self.root, staged.path(), &catalogue, &mut listing, deltas)?;
        if self.unified {
            unified::make(staged.path(), &mut listing)?;
        }
        let _lock = self.write_again(&mut catalogue, signing)?;
        if Self::has(&mut catalogue, dir, &listing.manifest, &mut added)? {
            return Ok(added); // Somebody else was quicker.
        }
        pages::write(staged.path(), &mut catalogue, &listing, &signing.key.fingerprints())?;
        let refused = |reason: String| place::refused(dir, reason);
        added.moved_aliases = catalogue.insert(listing)?.map_err(refused)?;
        terms.check_aliases(&added).map_err(refused)?;
        staged.place(&self.root, &target)?;
        added.fingerprint = catalogue.version(&product, serial)?.and_then(catalogue::fingerprint);
        added.new = true;
        self.publish_next(&mut catalogue, signing)?;
        place::settled(&self.root)?;
        self.collect_retired(&mut catalogue, signing.now.into())?;
        Ok(added)
    }

    /// What will be said of an image, before anything is done.
    fn adding(&self, manifest: &Manifest) -> Added {
        let (product, serial) = (manifest.product.clone(), manifest.serial);
        Added {
            path: self.root.join(product.image_path(serial)),
            product,
            serial,
            fingerprint: None,
            new: false,
            moved_aliases: Vec::new(),
            deltas: Vec::new(),
        }
    }

    /// Whether the stream has the very image already; another one of its name is an error.
    fn has(catalogue: &mut Catalogue, dir: &Path, manifest: &Manifest, added: &mut Added) -> Result<bool> {
        let Some(version) = catalogue.version(&added.product, added.serial)? else { return Ok(false) };
        if place::read_manifest(&added.path)?.files != manifest.files {
            let reason = format!(
                "the stream has another image as {} {}; build it with another --serial",
                added.product, added.serial
            );
            return Err(place::refused(dir, reason));
        }
        added.fingerprint = catalogue::fingerprint(version);
        Ok(true)
    }

    /// All images, by product, newest first.
    pub fn list(&self, now: SystemTime) -> Result<Vec<Listed>> {
        let mut catalogue = Catalogue::load(&self.root, &self.keyring()?, now)?;
        catalogue.read_all()?;
        Ok(listed(&catalogue))
    }

    /// Files of the tree by digest, for a mirror to use again.
    pub(crate) fn files_by_digest(&self, now: SystemTime) -> Result<BTreeMap<Sha256Digest, PathBuf>> {
        let mut catalogue = Catalogue::load(&self.root, &self.keyring()?, now)?;
        catalogue.read_all()?;
        let items = catalogue.images().flat_map(|(.., version)| version.items.values());
        Ok(items.filter_map(|item| Some((item.sha256?, self.root.join(&item.path)))).collect())
    }

    /// Takes the lock, clears away what was left half done, and reads what is published.
    fn write(&self, signing: &Signing<'_>) -> Result<(Lock, Catalogue)> {
        self.write_as(signing, |stream| stream.check_key(signing.key))
    }

    fn write_as(
        &self,
        signing: &Signing<'_>,
        check: impl FnOnce(&Self) -> Result<()>,
    ) -> Result<(Lock, Catalogue)> {
        let lock = Lock::exclusive(&self.root)?;
        check(self)?;
        let mut catalogue = Catalogue::load(&self.root, &signing.key.keyring(), signing.now)?;
        self.heal(&mut catalogue)?;
        Ok((lock, catalogue))
    }

    /// As [`Self::write`], with a catalogue read before, which is read again if it is not the present
    /// one.
    fn write_again(&self, catalogue: &mut Catalogue, signing: &Signing<'_>) -> Result<Lock> {
        let lock = Lock::exclusive(&self.root)?;
        self.check_key(signing.key)?;
        if generation::current(&self.root)? != Some(catalogue.generation()) {
            *catalogue = Catalogue::load(&self.root, &signing.key.keyring(), signing.now)?;
        }
        self.heal(catalogue)?;
        Ok(lock)
    }

    fn heal(&self, catalogue: &mut Catalogue) -> Result<()> {
        place::heal(&self.root, |path| catalogue.lists(path))?;
        generation::collect(&self.root, catalogue.generation())?;
        generation::link(&self.root)?;
        remove_temporary(&self.root)
    }

    /// Whether these are the stream's keys, all of them: what only some sign, others' clients refuse.
    fn check_key(&self, key: &SigningKey) -> Result<()> {
        let (mut pinned, mut given) = (self.keys()?, key.fingerprints());
        pinned.sort();
        given.sort();
        if pinned == given {
            return Ok(());
        }
        let names = |keys: &[KeyFingerprint]| {
            keys.iter().map(KeyFingerprint::as_str).collect::<Vec<_>>().join(" and ")
        };
        let reason = format!(
            "its clients trust key {}, and the key given is {}; name the right one with --key",
            names(&pinned),
            names(&given)
        );
        Err(Error::tree(&self.root, reason))
    }

    fn create(&self, signing: &Signing<'_>) -> Result<()> {
        let root = &self.root;
        make_directories(root)?;
        self.write_key(signing)?;
        self.publish_next(&mut Catalogue::empty(root), signing)?;
        generation::link(root)
    }

    /// What the next publication says of itself. Its time never goes back, so that clients, which
    /// refuse older documents, are never locked out by a clock that stepped.
    fn next(&self, catalogue: &Catalogue, signing: &Signing<'_>) -> Result<Freshness> {
        let now = DateTime::<Utc>::from(signing.now);
        let before = catalogue.freshness.as_ref();
        if let Some(before) = before
            && before.created > DateTime::<Utc>::from(signing.now + SKEW)
        {
            let reason = format!(
                "it was published at {}, which is in the future; set this machine's clock",
                before.created.to_rfc3339()
            );
            return Err(Error::tree(&self.root, reason));
        }
        let kept = before.and_then(|before| (before.expires - before.created).to_std().ok());
        let validity = signing.validity.or(kept).unwrap_or(VALIDITY);
        let created = before.map_or(now, |before| before.created.max(now));
        let expires = chrono::Duration::from_std(validity).ok().and_then(|v| created.checked_add_signed(v));
        let expires = expires.ok_or_else(|| Error::tree(&self.root, "the validity asked for is too long"))?;
        let (path, generation) = (INDEX_PATH.into(), catalogue.generation() + 1);
        Ok(Freshness { path, created, expires, generation, keys: signing.key.fingerprints() })
    }

    /// Publishes a changed catalogue.
    fn publish_next(&self, catalogue: &mut Catalogue, signing: &Signing<'_>) -> Result<()> {
        let freshness = self.next(catalogue, signing)?;
        catalogue.date(freshness.created);
        self.publish(catalogue, &freshness, signing)
    }

    fn publish(&self, catalogue: &mut Catalogue, freshness: &Freshness, signing: &Signing<'_>) -> Result<()> {
        pages::gather(catalogue)?;
        generation::publish(&self.root, freshness.generation, signing.now, |writer| {
            let names = Documents::render(catalogue, freshness, signing, writer, |catalogue, documents| {
                direct::render(catalogue, documents);
                pages::render(catalogue, freshness, &signing.key.fingerprints(), documents)
            })?;
            // Files are still being written, so that freeing this takes no time of its own.
            catalogue.forget();
            Ok(names)
        })?;
        generation::collect(&self.root, freshness.generation)
    }
}

/// All images of a catalogue, by product, newest first.
fn listed(catalogue: &Catalogue) -> Vec<Listed> {
    let images = catalogue.images().map(|(product, serial, entry, version)| Listed {
        path: product.image_path(serial),
        product,
        serial,
        aliases: entry.alias_list().map(str::to_owned).collect(),
        fingerprint: catalogue::fingerprint(version),
        size: catalogue::size(version),
        newest: entry.serials().max() == Some(serial),
    });
    let mut images: Vec<_> = images.collect();
    images.sort_by(|a, b| (&a.product, b.serial).cmp(&(&b.product, a.serial)));
    images
}

/// Makes the directories of a stream that are missing.
fn make_directories(root: &Path) -> Result<()> {
    for name in [layout::DOCUMENTS, layout::STAGING, layout::IMAGES] {
        let dir = root.join(name);
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o755).create(&dir).map_err(|e| lock::not_writable(root, e))?;
        readable(&dir, 0o755)?;
    }
    Ok(())
}

/// Addresses of shared storages are no paths, though they look like one.
fn check_path(root: &Path) -> Result<()> {
    if Address::parse(root)?.is_some() {
        return Err(Error::tree(
            root,
            "this works on a stream in a directory, not on one in a shared storage",
        ));
    }
    Ok(())
}

/// Makes the root directory, or checks that it holds nothing but an unfinished stream.
fn prepare(root: &Path) -> Result<()> {
    check_path(root)?;
    if fs::metadata(root).is_ok_and(|meta| !meta.is_dir()) {
        return Err(Error::tree(root, "it is a file; a stream is a directory"));
    }
    fs::create_dir_all(root).map_err(|error| lock::not_writable(root, error))?;
    if fs::symlink_metadata(root.join(layout::CURRENT)).is_ok() {
        return Ok(());
    }
    let ours = [
        layout::DOCUMENTS,
        layout::STAGING,
        layout::UNSIGNED,
        layout::IMAGES,
        layout::LOCK,
        layout::KEY,
        layout::MIRROR,
        layout::PUSH,
    ];
    for item in fs::read_dir(root).map_err(Error::io(root))? {
        let name = item.map_err(Error::io(root))?.file_name();
        let name = name.to_string_lossy();
        if !ours.contains(&name.as_ref()) && !name.starts_with(TEMPORARY) {
            let reason = format!("it holds {name:?} and is no stream; choose an empty directory");
            return Err(Error::tree(root, reason));
        }
    }
    Ok(())
}

/// How names begin that the image room's atomic writes use for a moment.
const TEMPORARY: &str = ".tmp-";

fn remove_temporary(root: &Path) -> Result<()> {
    for item in fs::read_dir(root).map_err(Error::io(root))? {
        let item = item.map_err(Error::io(root))?;
        if item.file_name().to_string_lossy().starts_with(TEMPORARY) {
            match fs::remove_file(item.path()) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(Error::io(item.path())(error));
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// Gives a file or directory its mode whatever the umask; one that has it already is not touched.
fn readable(path: &Path, mode: u32) -> Result<()> {
    let meta = fs::metadata(path).map_err(Error::io(path))?;
    if meta.permissions().mode() & 0o7777 == mode {
        return Ok(());
    }
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(Error::io(path))
}
