//! What can be told of a root file system before it is packed.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::{Error, Result};

/// Owner of files whose real owner a user namespace does not know.
const OVERFLOW: u32 = 65_534;

/// The newest modification time in the tree, seconds since 1970.
///
/// # Errors
/// When it is no root file system, or one whose files belong to users unknown here.
pub(super) fn newest(root: &Path) -> Result<i64> {
    let top = fs::symlink_metadata(root).map_err(Error::io(root))?;
    if top.uid() == OVERFLOW {
        return Err(Error::Refused(format!(
            "{} belongs to a user that is unknown here; run this as root, or as the user who made it",
            root.display()
        )));
    }
    if !["etc", "usr", "bin"].iter().any(|name| root.join(name).symlink_metadata().is_ok()) {
        return Err(Error::Refused(format!(
            "{} is no root file system: it has neither etc, usr nor bin",
            root.display()
        )));
    }
    let mut newest = top.mtime();
    let mut open = vec![root.to_path_buf()];
    while let Some(directory) = open.pop() {
        for item in fs::read_dir(&directory).map_err(Error::io(&directory))? {
            let item = item.map_err(Error::io(&directory))?;
            let meta = item.metadata().map_err(Error::io(item.path()))?;
            newest = newest.max(meta.mtime());
            if meta.is_dir() {
                open.push(item.path());
            }
        }
    }
    Ok(newest)
}

/// Whether this is root of the whole machine: nobody else can make devices.
pub(super) fn may_make_devices() -> Result<bool> {
    let path = "/proc/self/uid_map";
    let map = fs::read_to_string(path).map_err(Error::io(path))?;
    let whole = map.split_whitespace().eq(["0", "0", "4294967295"]);
    Ok(whole && rustix::process::geteuid().is_root())
}
