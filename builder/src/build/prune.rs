//! Keeps the cache from growing for ever: after each build, what was not used for longest goes.

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::fs::{FlockOperation, flock};

use super::base::Bases;
use super::finished::Finished;
use crate::{Error, Result, staging};

/// Most bytes of fetched packages and lists.
const PACKAGES: u64 = 8 << 30;
/// Most bytes of bases.
const BASES: u64 = 8 << 30;
/// Most bytes of finished images.
const IMAGES: u64 = 8 << 30;
/// Most logs of failed builds.
pub(super) const LOGS: usize = 50;
/// What was used within this time another build may be about to use.
const IN_USE: Duration = Duration::from_hours(1);

/// Looks after all of `cache`.
pub(super) fn prune(cache: &Path) -> Result<()> {
    packages(&cache.join("packages"), PACKAGES)?;
    Bases::open(cache)?.prune(BASES)?;
    Finished::open(cache)?.prune(IMAGES)
}

/// Removes fetched files not used for longest. Leaves it to the next build when one is fetching.
fn packages(dir: &Path, limit: u64) -> Result<()> {
    let path = dir.join("lock");
    let lock = File::create(&path).map_err(Error::io(&path))?;
    if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Ok(());
    }
    let now = SystemTime::now();
    let mut files: Vec<_> = staging::items(dir)
        .into_iter()
        .filter(|(file, _)| file.is_file() && *file != path)
        .filter_map(|(file, used)| Some((used, file.metadata().ok()?.len(), file)))
        .collect();
    files.sort();
    let mut total: u64 = files.iter().map(|(_, size, _)| size).sum();
    for (used, size, file) in files {
        if total <= limit || now.duration_since(used).is_ok_and(|age| age < IN_USE) {
            break;
        }
        fs::remove_file(&file).map_err(Error::io(&file))?;
        total -= size;
    }
    Ok(())
}

/// Keeps the newest `number` files of a directory.
pub(super) fn newest(dir: &Path, number: usize) {
    let mut files = staging::items(dir);
    files.sort_by_key(|(_, modified)| std::cmp::Reverse(*modified));
    for (file, _) in files.into_iter().skip(number) {
        let _ = fs::remove_file(file);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_packages_go_first_and_fresh_ones_stay() {
        let dir = tempfile::tempdir().unwrap();
        for (name, hours) in [("old", 30), ("older", 40), ("newer", 20), ("fresh", 0)] {
            let file = File::create(dir.path().join(name)).unwrap();
            file.set_len(100).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_hours(hours)).unwrap();
        }
        let left = || {
            let mut names: Vec<_> = staging::items(dir.path())
                .into_iter()
                .map(|(path, _)| path.file_name().unwrap().to_string_lossy().into_owned())
                .filter(|name| name != "lock")
                .collect();
            names.sort();
            names
        };
        packages(dir.path(), 250).unwrap();
        assert_eq!(left(), ["fresh", "newer"]);
        // The lock may for a moment be held by a process that another test is just starting.
        for _ in 0..100 {
            packages(dir.path(), 0).unwrap();
            if left().len() < 2 {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(left(), ["fresh"], "another build may be using it");
    }
}
