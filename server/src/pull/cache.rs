//! Files on disk: how long each was not asked for, and room for more.

use std::fs::{self, File, FileTimes};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use millstream_image::Sha256Digest;

use super::Pull;
use crate::stream::{IMAGES, MIRROR};
use crate::{Error, Result};

struct Kept {
    used: SystemTime,
    path: PathBuf,
    size: u64,
}

impl Pull {
    /// Notes that a file was asked for. Its time of access says so over restarts, set here because
    /// file systems seldom keep it by themselves.
    pub(crate) fn touch(&self, file: &File) {
        if self.options.cache_size.is_some() {
            let _ = file.set_times(FileTimes::new().set_accessed(SystemTime::now()));
        }
    }

    /// Where a file gathers.
    pub(super) fn gathering(&self, sha256: Sha256Digest) -> PathBuf {
        self.downloads().join(sha256.to_string())
    }

    fn downloads(&self) -> PathBuf {
        self.root().join(MIRROR).join("pull")
    }

    /// Makes room for all that is on its way: removes what was not asked for longest. Blocks.
    pub(super) fn make_room(&self) -> Result<()> {
        let downloads = self.downloads();
        fs::create_dir_all(&downloads).map_err(Error::io(&downloads))?;
        let Some(cap) = self.options.cache_size else { return Ok(()) };
        let _one = self.room.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let (coming, digests) = self.flights.coming();
        let mut kept = Vec::new();
        files(&self.root().join(IMAGES), &mut kept)?;
        files(&downloads, &mut kept)?;
        let under_way = |kept: &Kept| {
            let name = kept.path.file_name().unwrap_or_default().to_string_lossy();
            kept.path.starts_with(&downloads) && digests.iter().any(|digest| name.starts_with(digest))
        };
        kept.retain(|kept| !under_way(kept));
        kept.sort_by_key(|kept| kept.used);
        let mut total = coming.saturating_add(kept.iter().map(|kept| kept.size).sum());
        for Kept { path, size, .. } in kept {
            if total <= cap {
                break;
            }
            remove(&path)?;
            total -= size;
        }
        if total <= cap {
            return Ok(());
        }
        let reason = format!("{total} bytes are on their way, more than the cache's {cap}; give it more");
        Err(Error::tree(self.root(), reason))
    }
}

/// Removes a file, or nothing.
pub(super) fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::io(path)(error)),
        _ => Ok(()),
    }
}

fn files(dir: &Path, found: &mut Vec<Kept>) -> Result<()> {
    for item in fs::read_dir(dir).map_err(Error::io(dir))? {
        let item = item.map_err(Error::io(dir))?;
        let path = item.path();
        // What vanishes meanwhile takes no room.
        let Ok(meta) = item.metadata() else { continue };
        if meta.is_dir() {
            files(&path, found)?;
        } else {
            let used = meta.accessed().unwrap_or(SystemTime::UNIX_EPOCH);
            found.push(Kept { used, path, size: meta.len() });
        }
    }
    Ok(())
}
