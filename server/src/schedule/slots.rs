//! Which slots are done: `NAME.slot` holds the time of the last one, `NAME.lock` is held meanwhile.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use millstream_image::atomic;
use rustix::fs::{FlockOperation, flock};

use super::Cron;
use crate::{Error, Result};

/// The schedule's directory.
#[derive(Debug)]
pub struct Slots {
    dir: PathBuf,
}

/// The right to run a job now. It ends with this value, or with the process.
#[must_use]
pub struct Turn {
    slot: DateTime<Utc>,
    file: PathBuf,
    _lock: File,
}

impl Slots {
    /// Opens a directory, which is made when it is not there.
    pub fn open(dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir).map_err(Error::io(dir))?;
        Ok(Self { dir: dir.to_path_buf() })
    }

    /// The slot a job has to run now, if any. A job that was never seen begins with its next one.
    pub fn due(&self, job: &str, schedule: &Cron, now: DateTime<Utc>) -> Result<Option<DateTime<Utc>>> {
        let Some(done) = self.done(job)? else {
            self.write(job, now)?;
            return Ok(None);
        };
        Ok(schedule.last(now).filter(|slot| *slot > done))
    }

    /// Takes the turn for a slot; `None` when the job is under way, or the slot was done meanwhile.
    pub fn begin(&self, job: &str, slot: DateTime<Utc>) -> Result<Option<Turn>> {
        let path = self.dir.join(format!("{job}.lock"));
        let lock = File::options().write(true).create(true).truncate(false).open(&path);
        let lock = lock.map_err(Error::io(&path))?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Ok(None);
        }
        if self.done(job)?.is_some_and(|done| done >= slot) {
            return Ok(None);
        }
        Ok(Some(Turn { slot, file: self.file(job), _lock: lock }))
    }

    /// The last slot that is done. What cannot be read counts as none.
    fn done(&self, job: &str) -> Result<Option<DateTime<Utc>>> {
        let path = self.file(job);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(text.trim().parse().ok()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io(&path)(error)),
        }
    }

    fn file(&self, job: &str) -> PathBuf {
        self.dir.join(format!("{job}.slot"))
    }

    fn write(&self, job: &str, time: DateTime<Utc>) -> Result<()> {
        write(&self.file(job), time)
    }
}

impl Turn {
    /// The slot is done.
    pub fn done(self) -> Result<()> {
        write(&self.file, self.slot)
    }
}

fn write(path: &Path, time: DateTime<Utc>) -> Result<()> {
    atomic::write(path, format!("{}\n", time.to_rfc3339()).as_bytes()).map_err(Error::image(path))
}
