//! One image on its way into the tree: taken into staging, checked there byte for byte, signed,
//! and renamed into place.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::thread;

use millstream_image::Product;
use millstream_image::atomic;
use millstream_image::digest::CappedReader;
use millstream_image::manifest::Manifest;

use super::catalogue::Listing;
use super::layout::{
    IMAGES, LOG, MANIFEST, META, METADATA, PENDING, ROOTFS, SIGNED, SQUASHFS, STAGING, SUMS,
};
use super::lock::not_writable;
use super::staging::{self, Claim};
use super::workers::{each, joined, queue};
use super::{Added, Signing, generation, inspect, readable};
use crate::{Error, Result};

/// No manifest is larger, in bytes.
const MAX_MANIFEST: u64 = 64 << 20;

/// Which artefacts an image must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Artefacts {
    /// All that LXC, LXD and Incus need.
    All,
    /// A root file system and metadata for at least one of them: what an upstream offers.
    Some,
}

/// On what terms an image is taken.
#[derive(Clone, Copy)]
pub(super) struct Terms<'a> {
    pub(super) artefacts: Artefacts,
    /// The products whose aliases it may take over.
    pub(super) may_take: &'a dyn Fn(&Product) -> bool,
}

impl Terms<'_> {
    /// What the stream's owner adds.
    pub(super) fn own(artefacts: Artefacts) -> Self {
        Self { artefacts, may_take: &|_| true }
    }

    /// Aliases of its own release are a product's due; others it has from its manifest alone.
    pub(super) fn check_aliases(&self, added: &Added) -> std::result::Result<(), String> {
        let due = added.product.aliases([]);
        for (alias, other) in added.moved_aliases.iter().filter(|(alias, _)| !due.contains(alias)) {
            if !other.parse::<Product>().is_ok_and(|other| (self.may_take)(&other)) {
                return Err(format!("alias {alias} leads to {other}, which is not yours to take it from"));
            }
        }
        Ok(())
    }
}

/// An image in staging, complete, checked, signed unless that is to come, and durable.
pub(super) struct Staged(Claim);

/// Reads the manifest of a finished build.
pub(crate) fn read_manifest(dir: &Path) -> Result<Manifest> {
    let path = dir.join(MANIFEST);
    let mut bytes = Vec::new();
    File::open(&path)
        .and_then(|file| CappedReader::new(file, MAX_MANIFEST).read_to_end(&mut bytes))
        .map_err(|error| match error.kind() {
            ErrorKind::NotFound => {
                refused(dir, "it has no manifest.json; give a directory that millstream build or pack made")
            }
            _ => Error::io(&path)(error),
        })?;
    Manifest::parse(&bytes).map_err(Error::image(&path))
}

impl Staged {
    /// Takes the image in `source` into staging, and says how documents will list it. Every check
    /// is made on what lies in staging, which is what will be published.
    pub(super) fn take(
        dir: Claim,
        source: &Path,
        (manifest, artefacts): (Manifest, Artefacts),
        signing: Option<&Signing<'_>>,
    ) -> Result<(Self, Listing)> {
        let names = files(source, &manifest, artefacts)?;
        for name in &names {
            take_file(&source.join(name), &dir.path().join(name)).map_err(|error| match error.kind() {
                ErrorKind::NotFound => refused(source, format!("{name} is missing")),
                _ => Error::io(source.join(name))(error),
            })?;
        }
        inspect::sums(source, dir.path(), &manifest)?;
        inspect::metadata(source, dir.path(), manifest.product.architecture())?;
        inspect::squashfs(source, dir.path())?;
        let items = thread::scope(|scope| {
            // Both read every byte.
            let signed = signing.map(|signing| scope.spawn(|| sign(dir.path(), signing)));
            let items = inspect::items(source, dir.path(), &manifest);
            if let Some(signed) = signed {
                joined(signed)?;
            }
            items
        })?;
        finish(dir.path())?;
        Ok((Self(dir), Listing { manifest, items }))
    }

    /// Where it lies.
    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Renames the image to where it waits for its signatures, a path from the root, durably.
    pub(super) fn queue(self, root: &Path, target: &Path) -> Result<()> {
        let place = root.join(target);
        create_directories(root, target.parent().unwrap_or(target))?;
        atomic::rename(self.0.path(), &place).map_err(Error::image(&place))?;
        self.0.moved();
        Ok(())
    }

    /// Renames the image to `target`, a path from the root. Until [`settled`] says that documents
    /// list it, [`heal`] would take it away again.
    pub(super) fn place(self, root: &Path, target: &Path) -> Result<()> {
        let note = root.join(PENDING);
        let text = target.to_str().ok_or_else(|| Error::tree(root, "an image path is not UTF-8"))?;
        atomic::write(&note, text.as_bytes()).map_err(Error::image(&note))?;
        let place = root.join(target);
        // Here from a publication that was cut off, and listed nowhere.
        discard(root, target)?;
        create_directories(root, target.parent().unwrap_or(target))?;
        atomic::rename(self.0.path(), &place).map_err(Error::image(&place))?;
        self.0.moved();
        Ok(())
    }
}

/// Documents list the pending image now.
pub(super) fn settled(root: &Path) -> Result<()> {
    generation::remove(&root.join(PENDING))
}

/// Clears away what a publisher that was cut off left in staging, and an image it placed when
/// `listed` does not know it.
pub(super) fn heal(root: &Path, listed: impl FnOnce(&Path) -> Result<bool>) -> Result<()> {
    if let Ok(text) = fs::read_to_string(root.join(PENDING)) {
        let target = PathBuf::from(text);
        let inside = target.starts_with(IMAGES)
            && target.components().all(|part| matches!(part, Component::Normal(_)));
        if inside && !listed(&target)? {
            discard(root, &target)?;
        }
        settled(root)?;
    }
    clear_staging(root)
}

/// Clears away what nobody who lives works on; the note of a pending image stays.
pub(super) fn clear_staging(root: &Path) -> Result<()> {
    let dir = root.join(STAGING);
    let items = match fs::read_dir(&dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return fs::create_dir(&dir).map_err(|error| not_writable(root, error));
        }
        items => items.map_err(Error::io(&dir))?,
    };
    let paths = items.flatten().map(|item| item.path());
    let left = paths.filter(|path| *path != root.join(PENDING) && !staging::is_claimed(path));
    for path in left {
        generation::remove(&path)?;
    }
    Ok(())
}

/// Takes an unlisted image out of the tree in one step, then removes it and directories it leaves
/// empty.
pub(super) fn discard(root: &Path, target: &Path) -> Result<()> {
    let place = root.join(target);
    if !place.exists() {
        return Ok(());
    }
    let bin = tempfile::Builder::new().prefix("bin-").tempdir_in(root.join(STAGING));
    let bin = bin.map_err(Error::io(root.join(STAGING)))?;
    fs::rename(&place, bin.path().join("image")).map_err(Error::io(&place))?;
    for parent in target.ancestors().skip(1).take_while(|parent| parent.components().count() > 1) {
        if fs::remove_dir(root.join(parent)).is_err() {
            break; // Others are in it.
        }
    }
    bin.close().map_err(Error::io(root.join(STAGING)))
}

/// The files to take: those of the manifest, itself, and the log.
pub(super) fn files(source: &Path, manifest: &Manifest, artefacts: Artefacts) -> Result<Vec<String>> {
    let has = |name: &&str| manifest.files.contains_key(*name);
    if artefacts == Artefacts::Some
        && !([ROOTFS, SQUASHFS].iter().any(has) && [META].iter().chain(&METADATA).any(has))
    {
        return Err(refused(source, "it needs a root file system, and metadata of LXC, LXD or Incus"));
    }
    for needed in [ROOTFS, META].iter().chain(&METADATA) {
        if artefacts == Artefacts::All && !has(needed) {
            return Err(refused(
                source,
                format!("its manifest does not list {needed}; build it with image among the formats"),
            ));
        }
    }
    for name in manifest.files.keys() {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"._+-".contains(&b);
        let ours = [SUMS, MANIFEST, LOG].contains(&name.as_str());
        if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) || !name.bytes().all(plain) || ours {
            return Err(refused(source, format!("its manifest lists a file named {name:?}")));
        }
    }
    let log = source.join(LOG).exists().then(|| LOG.to_owned());
    Ok(manifest.files.keys().cloned().chain([MANIFEST.to_owned()]).chain(log).collect())
}

/// Takes one file: a reflink where the file system can, else a second name for a file that is ours
/// alone to write, else a copy.
fn take_file(from: &Path, to: &Path) -> io::Result<()> {
    let source = File::open(from)?;
    let meta = source.metadata()?;
    if !meta.is_file() || fs::symlink_metadata(from)?.is_symlink() {
        return Err(io::Error::new(ErrorKind::InvalidInput, "not a plain file"));
    }
    let target = File::create_new(to)?;
    if rustix::fs::ioctl_ficlone(target.as_fd(), source.as_fd()).is_ok() {
        return Ok(());
    }
    drop(target);
    // Only with the mode it will have: changing that would change the builder's file as well.
    let ours = meta.uid() == rustix::process::geteuid().as_raw() && meta.mode() & 0o7777 == 0o644;
    if ours {
        fs::remove_file(to)?;
        if fs::hard_link(from, to).is_ok() {
            return Ok(());
        }
    }
    fs::copy(from, to).map(drop)
}

fn sign(dir: &Path, signing: &Signing<'_>) -> Result<()> {
    for path in SIGNED.map(|name| dir.join(name)).into_iter().filter(|path| path.exists()) {
        let file = File::open(&path).map_err(Error::io(&path))?;
        let signature = signing.key.sign_detached(file, signing.now).map_err(Error::image(&path))?;
        let path = path.with_added_extension("asc");
        fs::write(&path, signature).map_err(Error::io(&path))?;
    }
    Ok(())
}

/// Everything readable by all, and on disk.
fn finish(dir: &Path) -> Result<()> {
    let items = fs::read_dir(dir).map_err(Error::io(dir))?;
    let paths = items.map(|item| item.map(|item| item.path()).map_err(Error::io(dir)));
    let durable = |path: PathBuf| {
        readable(&path, 0o644)?;
        File::open(&path).and_then(|file| file.sync_all()).map_err(Error::io(path))
    };
    each(queue(paths.collect::<Result<Vec<_>>>()?), durable, || readable(dir, 0o755))?;
    atomic::sync_dir(dir).map_err(Error::image(dir))
}

/// Makes the directories of `path` below `root` that are missing.
fn create_directories(root: &Path, path: &Path) -> Result<()> {
    let mut dir = root.to_path_buf();
    for part in path.components() {
        let parent = dir.clone();
        dir.push(part);
        match fs::create_dir(&dir) {
            Ok(()) => {
                readable(&dir, 0o755)?;
                atomic::sync_dir(&parent).map_err(Error::image(&parent))?;
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(Error::io(&dir)(error)),
        }
    }
    Ok(())
}

pub(super) fn refused(dir: &Path, reason: impl Into<String>) -> Error {
    Error::Refused { dir: dir.to_path_buf(), reason: reason.into() }
}
