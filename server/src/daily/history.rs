//! What was built, in SQLite: a row for each build from the moment it begins.
//!
//! Pages and commands ask [`History::latest`], [`History::running`] (with the stage each is in) and
//! [`History::recent`]. A build whose process is gone without saying how it ended is found by its
//! recorder's lock, and recorded as interrupted.

mod table;

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use chrono::{DateTime, Utc};
use millstream_builder::difference::PackageChange;
use millstream_image::{Fingerprint, Serial};
use rusqlite::Connection;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Runs of a product that are kept.
const RUNS: u32 = 400;
/// Age from which a recorder's file that is not locked is no file about to be.
const STALE: std::time::Duration = std::time::Duration::from_hours(1);
/// Logs of a product that are kept.
const LOGS: u32 = 30;

/// How a build ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// A new image is published.
    Built,
    /// The image that is published is what would have been built.
    Unchanged,
    /// It failed; the image before is still published.
    Failed,
    /// The same product was being built by somebody else.
    Busy,
    /// It was asked to stop.
    Cancelled,
    /// Its process was killed, or the machine went down.
    Interrupted,
}

impl Outcome {
    /// In lower case, as lists and JSON have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Built => "built",
            Self::Unchanged => "unchanged",
            Self::Failed => "failed",
            Self::Busy => "busy",
            Self::Cancelled => "cancelled",
            Self::Interrupted => "interrupted",
        }
    }
}

/// A build.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Its number, rising.
    pub id: i64,
    /// Name of the `[[daily]]`.
    pub job: String,
    /// Of which product; when the recipe cannot be read, what the matrix says of it.
    pub product: String,
    /// When it began.
    pub started: DateTime<Utc>,
    /// When it ended; `None` while it runs.
    pub ended: Option<DateTime<Utc>>,
    /// How; `None` while it runs.
    pub outcome: Option<Outcome>,
    /// The stage it is in, or failed in.
    pub stage: Option<String>,
    /// All else.
    #[serde(flatten)]
    pub details: Details,
}

/// What came out of a build.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Details {
    /// Root of the stream.
    pub stream: PathBuf,
    /// The log, from the stream's root; `None` when it was removed since.
    pub log: Option<PathBuf>,
    /// The published image, be it new or as before.
    pub serial: Option<Serial>,
    /// By which LXD, Incus and Millstream know it.
    pub fingerprint: Option<Fingerprint>,
    /// Bytes of each of its files.
    pub sizes: BTreeMap<String, u64>,
    /// Seconds of each stage.
    pub stages: Vec<(String, f64)>,
    /// Whether the boot test was passed; `None` when there was none.
    pub boot_test: Option<bool>,
    /// Packages that are other ones than in the image before.
    pub packages: Vec<PackageChange>,
    /// Why it failed.
    pub reason: Option<String>,
    /// Those the configuration names were told of it.
    pub reported: bool,
}

impl std::ops::Deref for Run {
    type Target = Details;

    fn deref(&self) -> &Details {
        &self.details
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.product, self.outcome.map_or("running", Outcome::name))?;
        if let Some(serial) = self.serial {
            write!(f, " {serial}")?;
        }
        match &self.reason {
            Some(reason) => write!(f, ": {reason}"),
            None => Ok(()),
        }
    }
}

/// Which runs are wanted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted<'a> {
    /// Of this job.
    pub job: Option<&'a str>,
    /// Of this product.
    pub product: Option<&'a str>,
}

/// The history of a machine.
pub struct History {
    dir: PathBuf,
    path: PathBuf,
    db: Mutex<Connection>,
    recorder: Recorder,
}

/// The process that records; its lock dies with it.
struct Recorder {
    name: String,
    path: PathBuf,
    _lock: File,
}

impl Drop for Recorder {
    fn drop(&mut self) {
        let _gone = fs::remove_file(&self.path);
    }
}

impl History {
    /// Opens the history in a directory, which is made when it is not there.
    ///
    /// # Errors
    /// [`Error::History`] when it cannot be read or comes from a newer version.
    pub fn open(dir: &Path) -> Result<Self> {
        let recorders = dir.join("recorders");
        fs::create_dir_all(&recorders).map_err(Error::io(&recorders))?;
        let file = tempfile::Builder::new().prefix("r-").rand_bytes(12).tempfile_in(&recorders);
        let (lock, path) = file.and_then(|file| Ok(file.keep()?)).map_err(Error::io(&recorders))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|e| Error::io(&path)(e.into()))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let recorder = Recorder { name, path, _lock: lock };
        let path = dir.join("history.db");
        let db = table::open(&path)?;
        Ok(Self { dir: dir.to_path_buf(), path, db: Mutex::new(db), recorder })
    }

    /// The directory it is in.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The newest run of each job and product, by these.
    pub fn latest(&self) -> Result<Vec<Run>> {
        self.with(table::latest)
    }

    /// Runs that are under way, the first begun first.
    pub fn running(&self) -> Result<Vec<Run>> {
        self.with(|db| table::select(db, "ended IS NULL ORDER BY id", []))
    }

    /// The newest runs, at most `limit`.
    pub fn recent(&self, wanted: Wanted<'_>, limit: u32) -> Result<Vec<Run>> {
        let which = "(?1 IS NULL OR job = ?1) AND (?2 IS NULL OR product = ?2) ORDER BY id DESC LIMIT ?3";
        self.with(|db| table::select(db, which, (wanted.job, wanted.product, limit)))
    }

    /// One run.
    pub fn run(&self, id: i64) -> Result<Option<Run>> {
        Ok(self.with(|db| table::select(db, "id = ?1", [id]))?.pop())
    }

    /// A build begins.
    pub fn begin(&self, job: &str, product: &str, details: Details) -> Result<Run> {
        let mut run = Run {
            id: 0,
            job: job.into(),
            product: product.into(),
            started: table::seconds(Utc::now()),
            ended: None,
            outcome: None,
            stage: None,
            details,
        };
        run.id = self.with(|db| table::insert(db, &run, &self.recorder.name))?;
        Ok(run)
    }

    /// What is known of a run changed.
    pub fn update(&self, run: &Run) -> Result<()> {
        self.with(|db| table::update(db, run))
    }

    /// A build ended.
    pub fn end(&self, run: &mut Run, outcome: Outcome) -> Result<()> {
        run.ended = Some(table::seconds(Utc::now()));
        run.outcome = Some(outcome);
        self.update(run)
    }

    /// Interrupted runs of a job that nobody was told of.
    pub(super) fn unreported(&self, job: &str) -> Result<Vec<Run>> {
        self.heal()?;
        let runs = self.recent(Wanted { job: Some(job), product: None }, RUNS)?;
        let wanted = |run: &Run| run.outcome == Some(Outcome::Interrupted) && !run.reported;
        Ok(runs.into_iter().filter(wanted).collect())
    }

    /// Records runs whose process is gone as interrupted, and returns them.
    pub fn heal(&self) -> Result<Vec<Run>> {
        let recorders = self.with(table::recorders)?;
        let mut lost = Vec::new();
        for name in recorders.iter().filter(|name| **name != self.recorder.name) {
            let path = self.dir.join("recorders").join(name);
            let alive = match File::open(&path) {
                Ok(file) => flock(&file, FlockOperation::NonBlockingLockExclusive).is_err(),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
                Err(error) => return Err(Error::io(&path)(error)),
            };
            if alive {
                continue;
            }
            let runs = self.with(|db| {
                table::select(db, "ended IS NULL AND recorder = ?1 ORDER BY id", [name.as_str()])
            })?;
            for mut run in runs {
                run.details.reason = Some("its process was killed, or the machine went down".into());
                self.end(&mut run, Outcome::Interrupted)?;
                lost.push(run);
            }
            let _gone = fs::remove_file(&path);
        }
        self.remove_stale();
        Ok(lost)
    }

    /// Removes what killed recorders left that had nothing under way.
    fn remove_stale(&self) {
        for item in fs::read_dir(self.dir.join("recorders")).into_iter().flatten().flatten() {
            let old = item.metadata().and_then(|data| data.modified()).is_ok_and(|time| {
                std::time::SystemTime::now().duration_since(time).is_ok_and(|age| age > STALE)
            });
            let free = |file: File| flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok();
            if old && File::open(item.path()).is_ok_and(free) {
                let _gone = fs::remove_file(item.path());
            }
        }
    }

    /// Forgets old runs of a job, and removes logs before that.
    pub fn prune(&self, job: &str) -> Result<()> {
        for mut run in self.with(|db| table::with_old_logs(db, job, LOGS))? {
            if let Some(log) = run.details.log.take() {
                let _gone = fs::remove_file(run.stream.join(log));
            }
            self.update(&run)?;
        }
        self.with(|db| table::forget(db, job, RUNS))
    }

    fn with<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T> {
        let db = self.db.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        work(&db).map_err(|error| table::fault(&self.path, &error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_found_again_with_all_that_is_known() {
        let dir = tempfile::tempdir().unwrap();
        let history = History::open(dir.path()).unwrap();
        let mut run = history.begin("d", "a:b:amd64:default", Details::default()).unwrap();
        run.stage = Some("pack".into());
        history.update(&run).unwrap();
        assert_eq!(history.running().unwrap(), [run.clone()]);
        run.details = Details {
            serial: Some("20260701_0000".parse().unwrap()),
            sizes: [("rootfs.tar.xz".to_owned(), 5)].into(),
            stages: vec![("pack".into(), 1.5)],
            boot_test: Some(true),
            ..Details::default()
        };
        history.end(&mut run, Outcome::Built).unwrap();
        assert!(history.running().unwrap().is_empty());
        drop(history);
        let history = History::open(dir.path()).unwrap();
        let mut second = history.begin("d", "a:b:amd64:default", Details::default()).unwrap();
        history.end(&mut second, Outcome::Failed).unwrap();
        let other = history.begin("e", "a:b:amd64:cloud", Details::default()).unwrap();
        assert_eq!(history.latest().unwrap(), [second.clone(), other]);
        assert_eq!(history.run(run.id).unwrap(), Some(run.clone()));
        let wanted = Wanted { job: Some("d"), product: None };
        assert_eq!(history.recent(wanted, 9).unwrap(), [second, run]);
        assert_eq!(history.recent(Wanted::default(), 1).unwrap().len(), 1);
    }

    #[test]
    fn a_run_whose_recorder_is_gone_was_interrupted() {
        let dir = tempfile::tempdir().unwrap();
        let (gone, alive) = (History::open(dir.path()).unwrap(), History::open(dir.path()).unwrap());
        let lost = gone.begin("d", "lost", Details::default()).unwrap();
        let runs = alive.begin("d", "runs", Details::default()).unwrap();
        let history = History::open(dir.path()).unwrap();
        assert!(history.heal().unwrap().is_empty(), "both are at work");
        drop(gone);
        let healed = history.heal().unwrap();
        assert_eq!(healed.iter().map(|run| run.id).collect::<Vec<_>>(), [lost.id]);
        assert_eq!(history.run(lost.id).unwrap().unwrap().outcome, Some(Outcome::Interrupted));
        assert_eq!(history.running().unwrap(), [runs]);
    }

    #[test]
    fn old_runs_and_older_logs_go() {
        let dir = tempfile::tempdir().unwrap();
        let history = History::open(dir.path()).unwrap();
        for number in 0..LOGS + 2 {
            let log = dir.path().join(format!("{number}.log"));
            fs::write(&log, "text").unwrap();
            let details = Details {
                stream: dir.path().to_path_buf(),
                log: Some(format!("{number}.log").into()),
                ..Details::default()
            };
            let mut run = history.begin("d", "p", details).unwrap();
            history.end(&mut run, Outcome::Built).unwrap();
        }
        history.prune("d").unwrap();
        let there = |number: u32| dir.path().join(format!("{number}.log")).exists();
        assert!(!there(0) && !there(1) && there(2) && there(LOGS + 1));
        let runs = history.recent(Wanted::default(), 1000).unwrap();
        assert_eq!(runs.iter().filter(|run| run.log.is_some()).count(), LOGS as usize);
        history.with(|db| table::forget(db, "d", 3)).unwrap();
        assert_eq!(history.recent(Wanted::default(), 1000).unwrap().len(), 3);
    }
}
