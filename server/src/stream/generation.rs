//! Publications on disk: written aside, put before readers by one rename, cleared away later.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::sync::mpsc::{self, Sender};
use std::time::{Duration, SystemTime};

use millstream_image::atomic;

use super::documents::{self, Names};
use super::layout::{BY_HASH, CURRENT, DOCUMENTS, LINKS};
use super::workers::each;
use crate::{Error, Result};

/// How long a product document can be fetched by its hash after a newer one took its place.
pub(super) const GRACE: Duration = Duration::from_hours(24);
/// So many replaced product documents are kept at most; a burst of publications must not fill the
/// disk.
const KEPT: usize = 64;
/// So many publications before the present one stay, for readers in the middle of opening a file.
const PREVIOUS: u64 = 2;

/// The number `current` leads to; `None` before the first publication.
pub(crate) fn current(root: &Path) -> Result<Option<u64>> {
    let link = root.join(CURRENT);
    match fs::read_link(&link) {
        Ok(target) => number(&target).map(Some).ok_or_else(|| {
            Error::tree(&link, format!("leads to {}, not to a publication", target.display()))
        }),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io(&link)(error)),
    }
}

/// Writes publication `number` durably and then shows it to readers. Files are written while `render`
/// makes others.
pub(super) fn publish(
    root: &Path,
    number: u64,
    now: SystemTime,
    render: impl FnOnce(Sender<documents::File>) -> Result<Names>,
) -> Result<()> {
    let dir = root.join(DOCUMENTS).join(number.to_string());
    remove(&dir)?;
    create_directories(&dir)?;
    let (writer, files) = mpsc::channel();
    let put = |(path, contents): documents::File| {
        let path = dir.join(path);
        create_parent(&path)?;
        write(&path, &contents)
    };
    let names = each(files, put, || {
        let names = render(writer)?;
        for path in &names.kept {
            let (from, to) = (root.join(CURRENT).join(path), dir.join(path));
            create_parent(&to)?;
            fs::hard_link(&from, &to).map_err(Error::io(&from))?;
        }
        Ok(names)
    })?;
    for (name, target) in &names.links {
        let name = dir.join(name);
        create_parent(&name)?;
        fs::hard_link(dir.join(target), &name).map_err(Error::io(&name))?;
    }
    carry_over(root, &dir, &names.replaced, now)?;
    sync_directories(&dir)?;
    let link = root.join(CURRENT);
    atomic::symlink(Path::new(&number.to_string()), &link).map_err(Error::image(&link))
}

/// Makes the links readers follow, where they are missing.
pub(super) fn link(root: &Path) -> Result<()> {
    for (name, target) in LINKS {
        let path = root.join(name);
        if fs::read_link(&path).is_ok_and(|found| found == Path::new(target)) {
            continue;
        }
        atomic::symlink(Path::new(target), &path).map_err(Error::image(&path))?;
    }
    Ok(())
}

/// Shows readers publication `number`, which is complete: how a copy made elsewhere becomes a stream.
pub(crate) fn show_publication(root: &Path, number: u64) -> Result<()> {
    let link = root.join(CURRENT);
    atomic::symlink(Path::new(&number.to_string()), &link).map_err(Error::image(&link))?;
    self::link(root)
}

/// Removes publications nobody reads any more, and those that never came to be.
pub(super) fn collect(root: &Path, current: u64) -> Result<()> {
    let documents = root.join(DOCUMENTS);
    for item in fs::read_dir(&documents).map_err(Error::io(&documents))? {
        let path = item.map_err(Error::io(&documents))?.path();
        if path == root.join(CURRENT) {
            continue;
        }
        let kept = path.file_name().and_then(|name| number(Path::new(name)));
        if !kept.is_some_and(|n| n <= current && n + PREVIOUS >= current) {
            remove(&path)?;
        }
    }
    Ok(())
}

/// Links the product documents of earlier publications into a new one while readers of an earlier
/// index may still ask for them. The time of a replaced document says when it was replaced.
fn carry_over(root: &Path, dir: &Path, replaced: &[String], now: SystemTime) -> Result<()> {
    let old = root.join(CURRENT).join(BY_HASH);
    let listing = match fs::read_dir(&old) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        listing => listing.map_err(Error::io(&old))?,
    };
    let mut found = Vec::new();
    for item in listing {
        let item = item.map_err(Error::io(&old))?;
        let name = Path::new(BY_HASH).join(item.file_name());
        if dir.join(&name).exists() {
            continue; // Listed now.
        }
        if replaced.iter().any(|replaced| Path::new(replaced) == name) {
            let file = File::options().append(true).open(item.path());
            file.and_then(|file| file.set_modified(now)).map_err(Error::io(item.path()))?;
            found.push((now, name));
            continue;
        }
        let since = item.metadata().and_then(|m| m.modified()).map_err(Error::io(item.path()))?;
        if now.duration_since(since).is_ok_and(|age| age > GRACE) {
            continue;
        }
        found.push((since, name));
    }
    found.sort_by(|a, b| b.cmp(a));
    for (_, name) in found.into_iter().take(KEPT) {
        let path = dir.join(&name);
        create_parent(&path)?;
        fs::hard_link(root.join(CURRENT).join(&name), &path).map_err(Error::io(&path))?;
    }
    Ok(())
}

fn number(name: &Path) -> Option<u64> {
    let text = name.to_str()?;
    text.parse().ok().filter(|n: &u64| n.to_string() == text)
}

/// Writes a new file durably; its name is so once its directory is.
pub(super) fn write(path: &Path, contents: &[u8]) -> Result<()> {
    let mut file = File::create_new(path).map_err(Error::io(path))?;
    file.write_all(contents).and_then(|()| file.sync_all()).map_err(Error::io(path))?;
    super::readable(path, 0o644)
}

/// Makes the directory a file will be in.
fn create_parent(path: &Path) -> Result<()> {
    path.parent().map_or(Ok(()), create_directories)
}

/// Makes a directory and those above, where they are missing; others may do so at the same time.
fn create_directories(dir: &Path) -> Result<()> {
    let missing: Vec<_> = dir.ancestors().take_while(|dir| !dir.exists()).collect();
    for dir in missing.into_iter().rev() {
        match fs::create_dir(dir) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(Error::io(dir)(error)),
            _ => super::readable(dir, 0o755)?,
        }
    }
    Ok(())
}

/// Flushes the names in `dir` and below, and its own name.
fn sync_directories(dir: &Path) -> Result<()> {
    let mut open = vec![dir.to_path_buf()];
    while let Some(dir) = open.pop() {
        for item in fs::read_dir(&dir).map_err(Error::io(&dir))? {
            let item = item.map_err(Error::io(&dir))?;
            if item.file_type().map_err(Error::io(item.path()))?.is_dir() {
                open.push(item.path());
            }
        }
        atomic::sync_dir(&dir).map_err(Error::image(&dir))?;
    }
    let parent = dir.parent().unwrap_or(dir);
    atomic::sync_dir(parent).map_err(Error::image(parent))
}

/// Removes a file, link or directory, or nothing.
pub(super) fn remove(path: &Path) -> Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::io(path)(error)),
        _ => Ok(()),
    }
}
