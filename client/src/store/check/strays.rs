//! What lies in a store and belongs to no image.

use std::fs;
use std::path::Path;
use std::time::SystemTime;

use millstream_image::Fingerprint;

use super::super::heal::{ABANDONED, entries};
use super::super::shared::SHARED;
use super::super::staging::try_lock;
use super::super::{DATABASE, LOCK, STAGING, TRASH, lost};
use crate::problem::{Kind, Mender};
use crate::{Error, Result};

pub(super) fn check(dir: &Path, mender: &mut Mender) -> Result<()> {
    for entry in entries(dir)? {
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let known = match name.as_str() {
            STAGING | TRASH | lost::LOST => is_dir,
            _ => (is_dir && name.parse::<Fingerprint>().is_ok()) || is_file_of_ours(&name),
        };
        if known {
            continue;
        }
        let path = entry.path();
        mender.found(Kind::Stray, &path, "it is no part of the store", || {
            let to = lost::take_away(dir, &path, "it was no part of the store")?;
            Ok::<_, Error>(format!("moved to {}", to.display()))
        });
    }
    under_way(dir, STAGING, "what a download or an import left that was cut short", mender)?;
    under_way(dir, TRASH, "a deletion that was cut short", mender)
}

fn is_file_of_ours(name: &str) -> bool {
    let database =
        name.strip_prefix(DATABASE).is_some_and(|rest| ["", "-wal", "-shm", "-journal"].contains(&rest));
    database || name == LOCK || name == SHARED
}

/// What nobody is at work on. A download that is not old will be resumed.
fn under_way(dir: &Path, which: &str, reason: &str, mender: &mut Mender) -> Result<()> {
    let parent = dir.join(which);
    if !parent.exists() {
        return Ok(());
    }
    for entry in entries(&parent)? {
        let (path, name) = (entry.path(), entry.file_name());
        let Ok(meta) = entry.metadata() else { continue };
        if !meta.is_dir() {
            mender.found(Kind::Stray, &path, "it is no part of the store", || remove(&path));
            continue;
        }
        let image = name.to_str().and_then(|name| name.parse::<Fingerprint>().ok());
        let age = meta.modified().ok().and_then(|time| SystemTime::now().duration_since(time).ok());
        let wanted = image.is_some_and(|image| !dir.join(image.to_string()).exists());
        if which == STAGING && wanted && age.is_none_or(|age| age <= ABANDONED) {
            continue;
        }
        if let Ok(Some(_lock)) = try_lock(&path) {
            mender.found(Kind::Staging, &path, reason, || remove(&path));
        }
    }
    Ok(())
}

fn remove(path: &Path) -> Result<String> {
    let is_dir = fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir());
    let removed = if is_dir { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    removed.map(|()| "removed".into()).map_err(Error::io(path))
}
