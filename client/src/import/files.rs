//! Images in files of this machine.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::Incoming;
use super::check::extension;
use crate::store::Locked;
use crate::{Error, Result};

/// What a build leaves, in the order looked for.
const METADATA: [&str; 2] = ["lxd.tar.xz", "incus.tar.xz"];
const ROOTS: [&str; 2] = ["rootfs.tar.xz", "rootfs.squashfs"];
const UNIFIED: [&str; 4] = ["unified.tar.xz", "unified.tar.zst", "unified.tar.gz", "unified.tar"];

/// Copies an image's files to `dir` under the names the store has for them.
pub(super) fn copy(paths: &[PathBuf], dir: Locked) -> Result<Incoming> {
    let (metadata, rootfs) = match paths {
        [one] if one.is_dir() => in_directory(one)?,
        [one] => (None, one.clone()),
        [metadata, rootfs] => (Some(metadata.clone()), rootfs.clone()),
        _ => return Err(Error::name("import", "expected one file, two, or one directory")),
    };
    let kind = if metadata.is_some() { "rootfs" } else { "unified" };
    let rootfs = copy_as(&rootfs, dir.path(), kind)?;
    let metadata = match metadata {
        Some(path) => copy_as(&path, dir.path(), "lxd")?,
        None => rootfs.clone(),
    };
    Ok(Incoming { dir, metadata, rootfs })
}

/// Metadata and root file system of a directory that a build made; no metadata: a unified image.
fn in_directory(dir: &Path) -> Result<(Option<PathBuf>, PathBuf)> {
    let find = |names: &[&str]| names.iter().map(|name| dir.join(name)).find(|path| path.is_file());
    match (find(&METADATA), find(&ROOTS), find(&UNIFIED)) {
        (Some(metadata), Some(rootfs), _) => Ok((Some(metadata), rootfs)),
        (_, _, Some(unified)) => Ok((None, unified)),
        _ => Err(Error::document(
            dir.display().to_string(),
            "it holds no image: expected lxd.tar.xz and rootfs.tar.xz or rootfs.squashfs, or unified.tar.xz",
        )),
    }
}

fn copy_as(from: &Path, dir: &Path, stem: &str) -> Result<String> {
    if !fs::metadata(from).map_err(Error::io(from))?.is_file() {
        return Err(Error::document(from.display().to_string(), "it is no file"));
    }
    let to = dir.join(stem);
    fs::copy(from, &to).map_err(Error::io(from))?;
    settle(&to, stem)
}

/// Gives a file that has arrived its name and the mode of the store's files, and flushes it.
pub(crate) fn settle(path: &Path, stem: &str) -> Result<String> {
    let name = format!("{stem}{}", extension(path)?);
    let readable = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    fs::set_permissions(path, readable).map_err(Error::io(path))?;
    File::open(path).and_then(|file| file.sync_all()).map_err(Error::io(path))?;
    let to = path.with_file_name(&name);
    fs::rename(path, &to).map_err(Error::io(&to))?;
    Ok(name)
}
