//! Bases: bootstrapped and configured root file systems that builds share.
//!
//! `CACHE/bases/KEY/` holds `rootfs/` and `base.json`. The key is made of all that the tree depends on:
//! the packages with their hashes, the environment their scripts ran in, and the ids the files have
//! on disk, as root of a user namespace has others. `base.json` is written last and states a digest
//! over the tree's names, modes, owners, sizes and times; a tree that says otherwise is removed.
//! A base is never written to: each build works on an overlay of it or on a copy. Whoever uses one
//! holds a shared lock on its directory, whoever removes one an exclusive lock.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use millstream_image::archive::{self, Compression, Devices, ExtractOptions, PackOptions};
use millstream_image::{Sha256Digest, atomic, manifest};
use millstream_runtime::sandbox::mounts::{Overlay, PrivateMounts};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::staging::{self, Staging};
use crate::{Error, Result};

/// Begins the name of a base that is being made.
const MAKING: &str = "making-";
const STAMP: &str = "base.json";

/// What a base depends on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Contents {
    /// `debian:bookworm:amd64`.
    pub(super) name: String,
    /// Its packages, by name.
    pub(super) packages: Vec<manifest::Package>,
    /// Environment of their scripts.
    pub(super) environment: Vec<(String, String)>,
}

/// `base.json`.
#[derive(Debug, Serialize, Deserialize)]
struct Stamp {
    contents: Contents,
    /// Time of the newest package, seconds since 1970.
    time: i64,
    /// Over the tree, see [`tree_digest`].
    tree: Sha256Digest,
}

/// The directory of bases.
pub(super) struct Bases {
    dir: PathBuf,
}

/// A base in use, which nobody removes meanwhile.
pub(super) struct Base {
    root: PathBuf,
    /// Time of its newest package, seconds since 1970.
    pub(super) time: i64,
    _lock: File,
    /// Set for one that could not be put among the others.
    _own: Option<Staging>,
}

impl Contents {
    fn key(&self) -> Result<String> {
        let map = |name: &str| fs::read_to_string(format!("/proc/self/{name}")).unwrap_or_default();
        let text = serde_json::to_string(self).map_err(|e| Error::Internal(e.to_string()))?;
        let all = format!("1\n{}{}{text}", map("uid_map"), map("gid_map"));
        Ok(Sha256Digest::of(all.as_bytes()).to_string())
    }
}

impl Bases {
    pub(super) fn open(cache: &Path) -> Result<Self> {
        let dir = cache.join("bases");
        fs::create_dir_all(&dir).map_err(Error::io(&dir))?;
        Ok(Self { dir })
    }

    /// The base with these contents, if there is a sound one.
    pub(super) fn find(&self, contents: &Contents) -> Result<Option<Base>> {
        let dir = self.dir.join(contents.key()?);
        let Ok(lock) = File::open(&dir) else { return Ok(None) };
        flock(&lock, FlockOperation::LockShared).map_err(|e| Error::io(&dir)(e.into()))?;
        let root = dir.join("rootfs");
        let sound = || -> Option<Stamp> {
            let stamp: Stamp = serde_json::from_slice(&fs::read(dir.join(STAMP)).ok()?).ok()?;
            (stamp.contents == *contents && tree_digest(&root).ok()? == stamp.tree).then_some(stamp)
        };
        if let Some(stamp) = sound() {
            let _ = lock.set_modified(SystemTime::now());
            return Ok(Some(Base { root, time: stamp.time, _lock: lock, _own: None }));
        }
        drop(lock);
        remove(&dir)?;
        Ok(None)
    }

    /// Makes a base: `fill` fills an empty directory and returns the time of the newest package.
    pub(super) fn make(&self, contents: &Contents, fill: impl FnOnce(&Path) -> Result<i64>) -> Result<Base> {
        let staging = Staging::new(&self.dir, MAKING)?;
        let root = staging.path().join("rootfs");
        fs::create_dir(&root).map_err(Error::io(&root))?;
        let time = fill(&root)?;
        let stamp = Stamp { contents: contents.clone(), time, tree: tree_digest(&root)? };
        let text = serde_json::to_vec(&stamp).map_err(|e| Error::Internal(e.to_string()))?;
        atomic::write(&staging.path().join(STAMP), &text)?;
        let dir = self.dir.join(contents.key()?);
        let mut own = None;
        if fs::rename(staging.path(), &dir).is_ok() {
            let _moved = staging.keep();
        } else {
            own = Some(staging);
        }
        // Another build may have made the same one meanwhile; then ours goes.
        if let Some(base) = self.find(contents)? {
            return Ok(base);
        }
        let own =
            own.ok_or_else(|| Error::Internal(format!("{}: the base just made is gone", dir.display())))?;
        let lock = File::open(own.path()).map_err(Error::io(own.path()))?;
        Ok(Base { root: own.path().join("rootfs"), time, _lock: lock, _own: Some(own) })
    }

    /// The packages of a base of the same name used last, for saying what changed.
    pub(super) fn latest(&self, name: &str) -> Option<Vec<manifest::Package>> {
        let stamps = staging::items(&self.dir).into_iter().filter_map(|(path, _)| {
            let modified = fs::metadata(&path).and_then(|meta| meta.modified()).ok()?;
            let stamp: Stamp = serde_json::from_slice(&fs::read(path.join(STAMP)).ok()?).ok()?;
            (stamp.contents.name == name).then_some((modified, stamp.contents.packages))
        });
        stamps.max_by_key(|(modified, _)| *modified).map(|(_, packages)| packages)
    }

    /// Removes those not used for longest until the rest has at most `limit` bytes.
    pub(super) fn prune(&self, limit: u64) -> Result<()> {
        staging::collect(&self.dir, MAKING)?;
        let mut bases: Vec<_> = staging::items(&self.dir)
            .into_iter()
            .filter(|(path, _)| path.join(STAMP).exists())
            .map(|(path, modified)| (modified, size(&path), path))
            .collect();
        bases.sort();
        let mut total: u64 = bases.iter().map(|(_, size, _)| size).sum();
        for (_, size, path) in bases {
            if total <= limit {
                break;
            }
            if remove(&path)? {
                total -= size;
            }
        }
        Ok(())
    }
}

impl Base {
    /// Gives a build a root file system of its own at the empty directory `target`: an overlay, for
    /// which `scratch` is a new directory, or else a copy. The text says which and why.
    pub(super) fn lend(
        &self,
        target: &Path,
        scratch: &Path,
        mounts: Option<&PrivateMounts>,
    ) -> Result<(Option<Overlay>, String)> {
        let Some(mounts) = mounts else {
            self.copy(target)?;
            return Ok((None, "on a copy".into()));
        };
        let (upper, work) = (scratch.join("upper"), scratch.join("work"));
        for directory in [&upper, &work] {
            fs::create_dir_all(directory).map_err(Error::io(directory))?;
        }
        // The overlay's root looks as its upper layer's does.
        let meta = fs::metadata(&self.root).map_err(Error::io(&self.root))?;
        std::os::unix::fs::chown(&upper, Some(meta.uid()), Some(meta.gid())).map_err(Error::io(&upper))?;
        fs::set_permissions(&upper, meta.permissions()).map_err(Error::io(&upper))?;
        File::open(&upper)
            .and_then(|upper| upper.set_modified(meta.modified()?))
            .map_err(Error::io(&upper))?;
        match mounts.overlay(&self.root, &upper, &work, target) {
            Ok(overlay) => Ok((Some(overlay), "on an overlay".into())),
            Err(error) => {
                self.copy(target)?;
                Ok((None, format!("on a copy: {error}")))
            }
        }
    }

    /// Copies it by packing and unpacking, which keeps everything there is to keep.
    fn copy(&self, target: &Path) -> Result<()> {
        let (reader, writer) = std::io::pipe().map_err(Error::io("pipe"))?;
        let options = PackOptions { compression: Compression::None, ..PackOptions::default() };
        let into = ExtractOptions { devices: Devices::Refuse, ..ExtractOptions::default() };
        std::thread::scope(|scope| {
            let packing = scope.spawn(|| archive::pack(&self.root, writer, &options).map(drop));
            let extracted = archive::extract(reader, target, &into);
            let packed = packing.join().map_err(|_| Error::Internal("a copying thread panicked".into()))?;
            extracted?;
            Ok(packed?)
        })
    }
}

/// Removes a base nobody uses; the stamp goes first, so that half a base is none.
fn remove(dir: &Path) -> Result<bool> {
    let Ok(lock) = File::open(dir) else { return Ok(true) };
    if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Ok(false);
    }
    let _ = fs::remove_file(dir.join(STAMP));
    fs::remove_dir_all(dir).map_err(Error::io(dir))?;
    Ok(true)
}

/// Over names, kinds, modes, owners, sizes, times and links of everything below `root`: tells a tree
/// that was cut short or cleaned up by somebody from a whole one, without reading its files.
fn tree_digest(root: &Path) -> Result<Sha256Digest> {
    use std::fmt::Write as _;
    use std::os::unix::ffi::OsStrExt;
    let mut open = vec![PathBuf::new()];
    let mut lines = Vec::new();
    while let Some(directory) = open.pop() {
        let full = root.join(&directory);
        for item in fs::read_dir(&full).map_err(Error::io(&full))? {
            let item = item.map_err(Error::io(&full))?;
            let meta = item.metadata().map_err(Error::io(item.path()))?;
            let path = directory.join(item.file_name());
            let mut line = String::new();
            for byte in path.as_os_str().as_bytes() {
                let _ = write!(line, "{}", std::ascii::escape_default(*byte));
            }
            let size = if meta.is_dir() { 0 } else { meta.size() };
            let _ = write!(line, " {:o} {} {} {size}", meta.mode(), meta.uid(), meta.gid());
            let _ = writeln!(line, " {}.{} {}", meta.mtime(), meta.mtime_nsec(), meta.nlink());
            lines.push(line);
            if meta.is_dir() {
                open.push(path);
            }
        }
    }
    lines.sort_unstable();
    Ok(Sha256Digest::of(lines.concat().as_bytes()))
}

/// Bytes on disk below a directory.
fn size(dir: &Path) -> u64 {
    let items = fs::read_dir(dir).into_iter().flatten().flatten();
    let each = items.filter_map(|item| Some((item.metadata().ok()?, item.path())));
    each.map(|(meta, path)| meta.blocks() * 512 + if meta.is_dir() { size(&path) } else { 0 }).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents(version: &str) -> Contents {
        let package = manifest::Package {
            name: "a".into(),
            version: version.into(),
            architecture: "all".into(),
            sha256: None,
        };
        Contents { name: "d:r:a".into(), packages: vec![package], environment: Vec::new() }
    }

    fn make(bases: &Bases, contents: &Contents) -> Base {
        let fill = |root: &Path| {
            fs::write(root.join("file"), "text").map_err(Error::io(root))?;
            fs::hard_link(root.join("file"), root.join("link")).map_err(Error::io(root))?;
            Ok(7)
        };
        bases.make(contents, fill).unwrap()
    }

    /// Another test that is just starting a program holds a copy of the locks until that runs.
    fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
        for _ in 0..500 {
            if holds() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        panic!("{what}");
    }

    #[test]
    fn a_base_is_found_by_its_contents_until_it_is_damaged() {
        let cache = tempfile::tempdir().unwrap();
        let bases = Bases::open(cache.path()).unwrap();
        assert!(bases.find(&contents("1")).unwrap().is_none());
        let base = make(&bases, &contents("1"));
        assert_eq!(base.time, 7);
        assert!(bases.find(&contents("2")).unwrap().is_none());
        let root = base.root.clone();
        assert!(bases.find(&contents("1")).unwrap().is_some());
        drop(base);
        fs::remove_file(root.join("link")).unwrap();
        eventually("what is damaged goes", || {
            assert!(bases.find(&contents("1")).unwrap().is_none(), "a file is missing");
            !root.exists()
        });
    }

    #[test]
    fn a_copy_keeps_hard_links_and_leaves_the_base_alone() {
        let cache = tempfile::tempdir().unwrap();
        let bases = Bases::open(cache.path()).unwrap();
        let base = make(&bases, &contents("1"));
        let target = cache.path().join("target");
        fs::create_dir(&target).unwrap();
        let (overlay, how) = base.lend(&target, &cache.path().join("scratch"), None).unwrap();
        assert!(overlay.is_none() && how.contains("copy"));
        assert_eq!(fs::metadata(target.join("link")).unwrap().nlink(), 2);
        fs::write(target.join("file"), "other").unwrap();
        assert_eq!(fs::read_to_string(base.root.join("file")).unwrap(), "text");
    }

    #[test]
    fn pruning_takes_the_oldest_and_spares_what_is_in_use() {
        let cache = tempfile::tempdir().unwrap();
        let bases = Bases::open(cache.path()).unwrap();
        let used = make(&bases, &contents("1"));
        drop(make(&bases, &contents("2")));
        assert_eq!(bases.latest("d:r:a").map(|packages| packages.len()), Some(1));
        let pruned = |which: &str| {
            bases.prune(0).unwrap();
            bases.find(&contents(which)).unwrap().is_none()
        };
        eventually("the other goes", || pruned("2"));
        assert!(used.root.exists());
        drop(used);
        eventually("what is used no more goes", || pruned("1"));
    }
}
