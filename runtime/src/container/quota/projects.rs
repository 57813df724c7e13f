//! ext4 and XFS: everything a container changes has its project. New files inherit it, and the kernel
//! lets only the host's root change it. Layers keep it, so that snapshots count as well.

use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use super::super::changes::{self, open};
use super::super::sys;
use super::{number, refused};

/// Whether all of what is at `top` counts for a container.
pub fn is_marked(top: &Path, id: &str) -> bool {
    let found = open(top).and_then(|dir| sys::project(dir.as_fd()));
    found.is_ok_and(|found| found == number(id))
}

/// Gives all that a container has changed its project; the top comes last, as it tells that all have it.
/// Nobody changes it meanwhile.
pub fn mark_all(top: &Path, directory: &Path, id: &str) -> Result<(), String> {
    if is_marked(top, id) {
        return Ok(());
    }
    let mut waiting = children(top)?;
    waiting.push(changes::work(&changes::of(directory)));
    while let Some(path) = waiting.pop() {
        let kind = fs::symlink_metadata(&path).map_err(|e| refused(&path, &e))?.file_type();
        // Others have no blocks, and cannot be opened.
        if kind.is_dir() || kind.is_file() {
            mark(&path, id, kind.is_dir())?;
        }
        if kind.is_dir() {
            waiting.extend(children(&path)?);
        }
    }
    mark(top, id, true)
}

/// Lets one file, or a directory and what will be made in it, count for a container.
fn mark(path: &Path, id: &str, directory: bool) -> Result<(), String> {
    let marked = open(path).and_then(|file| sys::set_project(file.as_fd(), number(id), directory));
    marked.map_err(|error| refused(path, &error))
}

fn children(path: &Path) -> Result<Vec<PathBuf>, String> {
    let entries = fs::read_dir(path).map_err(|error| refused(path, &error))?;
    Ok(entries.flatten().map(|entry| entry.path()).collect())
}
