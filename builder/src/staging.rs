//! Private directories of one build. They go with it; what a build that was killed left behind is
//! collected by the next one in the same place.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{FlockOperation, flock};

use crate::{Error, Result};

/// A directory without a lock is younger than this when its builder is just about to take it.
const YOUNG: Duration = Duration::from_mins(1);

/// Says so when there is something at `out` already, which is never written over.
pub(crate) fn must_be_new(out: &Path) -> Result<()> {
    if out.symlink_metadata().is_err() {
        return Ok(());
    }
    Err(Error::Refused(format!("{} exists already; choose another --out or remove it", out.display())))
}

/// A directory that is locked while its builder lives.
pub struct Staging {
    dir: tempfile::TempDir,
    _lock: File,
}

impl Staging {
    /// Makes one in `parent`, with a name that begins with `prefix`.
    ///
    /// # Errors
    /// When the place cannot be written to.
    pub fn new(parent: &Path, prefix: &str) -> Result<Self> {
        fs::create_dir_all(parent).map_err(Error::io(parent))?;
        collect(parent, prefix)?;
        let dir = tempfile::Builder::new().prefix(prefix).tempdir_in(parent).map_err(Error::io(parent))?;
        let lock = File::open(dir.path()).map_err(Error::io(dir.path()))?;
        flock(&lock, FlockOperation::LockExclusive).map_err(|e| Error::io(dir.path())(e.into()))?;
        Ok(Self { dir, _lock: lock })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The directory, which now stays.
    pub(crate) fn keep(self) -> PathBuf {
        self.dir.keep()
    }
}

/// Removes directories whose builder is gone: its lock went with it.
pub(crate) fn collect(parent: &Path, prefix: &str) -> Result<()> {
    for item in fs::read_dir(parent).map_err(Error::io(parent))?.flatten() {
        if !item.file_name().to_string_lossy().starts_with(prefix) {
            continue;
        }
        let path = item.path();
        let (Ok(directory), Ok(meta)) = (File::open(&path), path.symlink_metadata()) else { continue };
        let age = meta.modified().ok().and_then(|time| SystemTime::now().duration_since(time).ok());
        let old = age.is_some_and(|age| age > YOUNG);
        if meta.is_dir() && old && flock(&directory, FlockOperation::NonBlockingLockExclusive).is_ok() {
            fs::remove_dir_all(&path).map_err(Error::io(&path))?;
        }
    }
    Ok(())
}

/// The directories and files in a directory, with the time they were last used.
pub(crate) fn items(dir: &Path) -> Vec<(PathBuf, SystemTime)> {
    let items = fs::read_dir(dir).into_iter().flatten().flatten();
    items.filter_map(|item| Some((item.path(), item.metadata().ok()?.modified().ok()?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_nobody_holds_is_collected() {
        let parent = tempfile::tempdir().unwrap();
        let held = Staging::new(parent.path(), "build-").unwrap();
        for name in ["build-dead", "other-dead"] {
            fs::create_dir_all(parent.path().join(name).join("deep")).unwrap();
        }
        let _young = Staging::new(parent.path(), "build-").unwrap();
        assert!(parent.path().join("build-dead").exists(), "it may be about to be locked");
        let hour_ago = SystemTime::now() - Duration::from_hours(1);
        for item in fs::read_dir(parent.path()).unwrap().flatten() {
            File::open(item.path()).unwrap().set_modified(hour_ago).unwrap();
        }
        let _next = Staging::new(parent.path(), "build-").unwrap();
        assert!(!parent.path().join("build-dead").exists());
        assert!(held.path().exists() && parent.path().join("other-dead").exists());
    }
}
