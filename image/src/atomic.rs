//! Writes that are there whole or not at all: temp file → fsync → rename → fsync of the directory.

use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::{Error, Result};

/// Replaces `path` with `contents`, mode 0644. A reader sees the old file or the new one.
pub fn write(path: &Path, contents: &[u8]) -> Result<()> {
    write_with_mode(path, contents, 0o644)
}

/// As [`write`] with the given mode, which the file has from the first byte on (0600 for secrets).
pub fn write_with_mode(path: &Path, contents: &[u8], mode: u32) -> Result<()> {
    let dir = parent(path);
    let mut temp = tempfile::Builder::new()
        .prefix(".tmp-")
        .permissions(Permissions::from_mode(mode))
        .tempfile_in(dir)
        .map_err(Error::io(dir))?;
    temp.write_all(contents).map_err(Error::io(path))?;
    // The umask may have taken bits away that the caller asked for.
    temp.as_file().set_permissions(Permissions::from_mode(mode)).map_err(Error::io(path))?;
    temp.as_file().sync_all().map_err(Error::io(path))?;
    temp.persist(path).map_err(|e| Error::Io { path: path.into(), source: e.error })?;
    sync_dir(dir)
}

/// Renames a finished file or directory into place and makes the rename durable.
pub fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).map_err(Error::io(to))?;
    sync_dir(parent(to))
}

/// Makes `path` a symbolic link to `target`, replacing what link was there in one step.
pub fn symlink(target: &Path, path: &Path) -> Result<()> {
    let dir = parent(path);
    let temp = tempfile::Builder::new()
        .prefix(".tmp-")
        .make_in(dir, |p| std::os::unix::fs::symlink(target, p))
        .map_err(Error::io(dir))?;
    temp.persist(path).map_err(|e| Error::Io { path: path.into(), source: e.error })?;
    sync_dir(dir)
}

/// Flushes a directory's own entries to disk.
pub fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir).and_then(|d| d.sync_all()).map_err(Error::io(dir))
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_and_keeps_mode() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("secret");
        write_with_mode(&file, b"one", 0o600).unwrap();
        write_with_mode(&file, b"two", 0o600).unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"two");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no temp file stays");
    }

    #[test]
    fn failed_write_leaves_the_old_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("sub/missing");
        assert!(matches!(write(&file, b"x"), Err(Error::Io { .. })));
        let target = dir.path().join("d");
        fs::create_dir(&target).unwrap();
        assert!(write(&target, b"x").is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no temp file stays");
    }

    #[test]
    fn symlink_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("current");
        symlink(Path::new("a"), &link).unwrap();
        symlink(Path::new("b"), &link).unwrap();
        assert_eq!(fs::read_link(&link).unwrap(), Path::new("b"));
    }
}
