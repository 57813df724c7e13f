//! `lost+found`: what a repair takes out of sight, each in a directory with a note of why.

use std::fs;
use std::path::{Path, PathBuf};

use millstream_image::atomic;
use tempfile::TempDir;

use crate::{Error, Result};

/// Below the store, and below the directory of unpacked images.
pub const LOST: &str = "lost+found";
const NOTE: &str = "why.txt";

/// A new directory of `STORE/lost+found`, closed to other users, with a note. It goes if nothing is put
/// into it.
fn place(store: &Path, why: &str) -> Result<TempDir> {
    use std::os::unix::fs::DirBuilderExt;
    let lost = store.join(LOST);
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&lost).map_err(Error::io(&lost))?;
    let dir =
        tempfile::Builder::new().prefix("").rand_bytes(8).tempdir_in(&lost).map_err(Error::io(&lost))?;
    atomic::write(&dir.path().join(NOTE), format!("{why}\n").as_bytes())?;
    atomic::sync_dir(&lost)?;
    Ok(dir)
}

/// Moves a file or directory of the store there, by one rename. Returns where it is now.
pub fn take_away(store: &Path, path: &Path, why: &str) -> Result<PathBuf> {
    let dir = place(store, why)?;
    let to = dir.path().join(path.file_name().unwrap_or_default());
    fs::rename(path, &to).map_err(Error::io(path))?;
    atomic::sync_dir(dir.path())?;
    if let Some(parent) = path.parent() {
        atomic::sync_dir(parent)?;
    }
    let kept = dir.keep();
    Ok(kept.join(to.file_name().unwrap_or_default()))
}

/// Copies files of the store there that are about to be replaced. Returns their directory.
pub(super) fn copy_away(store: &Path, files: &[PathBuf], why: &str) -> Result<PathBuf> {
    let dir = place(store, why)?;
    for file in files.iter().filter(|file| file.exists()) {
        let to = dir.path().join(file.file_name().unwrap_or_default());
        fs::copy(file, &to).map_err(Error::io(file))?;
        fs::File::open(&to).and_then(|file| file.sync_all()).map_err(Error::io(&to))?;
    }
    atomic::sync_dir(dir.path())?;
    Ok(dir.keep())
}
