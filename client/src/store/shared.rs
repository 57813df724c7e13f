//! A store that its owner, root, lets other users read.
//!
//! `STORE/.shared` says so, and which names there are. The directories can be passed through but not
//! opened: who cannot open a directory cannot lock it, so nobody keeps root waiting. Whoever knows an image's
//! fingerprint, or one of its names, reads its `image.json` and its files. Another user's store has
//! links in place of the files of such an image; see [`Store::link`].

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use millstream_image::{Alias, Fingerprint, atomic};
use serde::{Deserialize, Serialize};

use super::heal::{present, read_record};
use super::{DATABASE, Record, STAGING, Staging, Store, StoredImage, TRASH, index};
use crate::query::ImageRef;
use crate::{Error, Result};

pub(super) const SHARED: &str = ".shared";
const VERSION: u32 = 1;
/// Others pass through.
const OPEN: u32 = 0o711;
const CLOSED: u32 = 0o700;
const FILES: u32 = 0o644;

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Names {
    version: u32,
    aliases: BTreeMap<Alias, Fingerprint>,
}

/// Somebody else's store, for reading.
#[derive(Debug)]
pub struct SharedStore {
    dir: PathBuf,
    names: BTreeMap<Alias, Fingerprint>,
}

impl SharedStore {
    /// The store in `dir`, if root shares it and nobody else can write there.
    pub fn open(dir: &Path) -> Option<Self> {
        let meta = fs::metadata(dir).ok()?;
        if meta.uid() != id_of_root() || meta.mode() & 0o022 != 0 {
            return None;
        }
        let names: Names = serde_json::from_slice(&fs::read(dir.join(SHARED)).ok()?).ok()?;
        (names.version == VERSION).then(|| Self { dir: dir.to_owned(), names: names.aliases })
    }

    /// The image of this fingerprint, if it is here and its files can be read.
    pub fn get(&self, fingerprint: Fingerprint) -> Option<StoredImage> {
        let record = read_record(&self.dir, fingerprint).ok()?;
        // What is not complete yet has no compressed file to read.
        if record.uncompressed.is_some() {
            return None;
        }
        let names = self.names.iter().filter(|(_, image)| **image == fingerprint);
        let aliases = names.map(|(alias, _)| alias.clone()).collect();
        let state = index::State { aliases, last_used: None, looked: None };
        let image = StoredImage::new(&self.dir.join(fingerprint.to_string()), record, state);
        if image.metadata.is_file() && image.rootfs.is_file() { Some(image) } else { None }
    }

    /// The image of this name or whole fingerprint, if it is here.
    pub fn find(&self, name: &ImageRef) -> Option<StoredImage> {
        let named = self.names.get(name.alias()).copied();
        self.get(named.or_else(|| name.fingerprint_prefix()?.parse().ok())?)
    }
}

/// What root's files seem to belong to: in a user namespace, to an id that stands for all it does not have.
fn id_of_root() -> u32 {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let all = read("/proc/self/uid_map").split_whitespace().eq(["0", "0", "4294967295"]);
    if all { 0 } else { read("/proc/sys/kernel/overflowuid").trim().parse().unwrap_or(65534) }
}

impl StoredImage {
    /// Whether its files are another store's, and are not there any more.
    pub fn is_withdrawn(&self) -> bool {
        let withdrawn = |file: &PathBuf| file.is_symlink() && !file.exists();
        withdrawn(&self.metadata) || withdrawn(&self.rootfs)
    }

    /// The error for an image that [is withdrawn](Self::is_withdrawn).
    pub fn expect_files(&self) -> Result<()> {
        if !self.is_withdrawn() {
            return Ok(());
        }
        let reason = "its files were in the system's store, and the administrator has removed them there; \
                      copy it from its remote again, or delete it";
        Err(Error::image(&self.fingerprint, reason))
    }
}

impl Store {
    /// Lets other users read this store, or no longer.
    ///
    /// # Errors
    /// When others cannot come as far as the store's directory.
    pub fn set_shared(&self, shared: bool) -> Result<()> {
        let marker = self.dir().join(SHARED);
        if !shared {
            match fs::remove_file(&marker) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::io(&marker)(error));
                }
                _ => {}
            }
            return set_mode(self.dir(), CLOSED);
        }
        for parent in self.dir().ancestors().skip(1) {
            let mode = fs::metadata(parent).map_err(Error::io(parent))?.mode();
            if mode & 0o001 == 0 {
                let reason = format!("others cannot pass through {}; chmod o+x it first", parent.display());
                return Err(Error::Store { path: self.dir().to_owned(), reason });
            }
        }
        for private in [STAGING, TRASH] {
            set_mode(&self.dir().join(private), CLOSED)?;
        }
        for end in ["", "-wal", "-shm"] {
            let file = self.dir().join(format!("{DATABASE}{end}"));
            if file.exists() {
                set_mode(&file, 0o600)?;
            }
        }
        for fingerprint in present(self.dir())? {
            let _lock = self.lock(fingerprint)?;
            open_up(&self.path(fingerprint))?;
        }
        self.write_names()?;
        set_mode(self.dir(), OPEN)
    }

    /// Whether other users may read it.
    pub fn is_shared(&self) -> bool {
        self.dir().join(SHARED).exists()
    }

    /// Tells others the names there are now.
    pub(super) fn tell_names(&self) -> Result<()> {
        if self.is_shared() { self.write_names() } else { Ok(()) }
    }

    fn write_names(&self) -> Result<()> {
        let names = Names { version: VERSION, aliases: self.aliases()? };
        let path = self.dir().join(SHARED);
        let text = serde_json::to_vec_pretty(&names).map_err(|e| Error::document(SHARED, e))?;
        if fs::read(&path).is_ok_and(|old| old == text) {
            return Ok(());
        }
        Ok(atomic::write(&path, &text)?)
    }

    /// Lets others read an image that is about to appear.
    pub(super) fn share_arrival(&self, dir: &Path) -> Result<()> {
        if self.is_shared() { open_up(dir) } else { Ok(()) }
    }

    /// Makes an image of another store one of this: with links in place of its files.
    pub(crate) fn link(&self, staging: Staging, record: &Record, image: &StoredImage) -> Result<StoredImage> {
        for (name, file) in [(&record.metadata, &image.metadata), (&record.rootfs, &image.rootfs)] {
            let link = staging.dir().join(name);
            match fs::remove_file(&link) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::io(&link)(error));
                }
                _ => symlink(file, &link).map_err(Error::io(&link))?,
            }
        }
        self.commit(staging, record)
    }
}

fn open_up(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir).map_err(Error::io(dir))?.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_file()) {
            set_mode(&entry.path(), FILES)?;
        }
    }
    set_mode(dir, OPEN)
}

fn set_mode(path: &Path, mode: u32) -> Result<()> {
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(Error::io(path))
}
