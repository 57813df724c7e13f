//! Daily builds: what `[[daily]]` of the configuration asks for, at its times.
//!
//! Each image of a job's matrix is built by a process of its own, `millstream build --stream`, which
//! publishes it only when it is whole; so a build that fails leaves the image of the day before. What
//! became of each is kept in [`history`], logs in the stream's tree under `logs/JOB/ID.log`.

mod child;
pub mod event;
pub mod history;
mod lock;
mod log;
mod notify;
mod push;
mod run;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use chrono::{DateTime, Utc};
use millstream_runtime::CancelToken;

pub use history::{History, Outcome, Run};
pub use lock::{BuildLock, lock};

use crate::config;
use crate::schedule::{self, Cron};
use crate::{Error, Result};

/// What all daily builds of a machine share.
pub struct Builds {
    /// This program, to be started as `PROGRAM build ...`.
    pub program: PathBuf,
    /// Directory of signing keys.
    pub keys: PathBuf,
    /// What was built.
    pub history: Arc<History>,
    /// Told in a line what begins and what came out of it.
    pub say: Arc<dyn Fn(&str) + Send + Sync>,
}

/// A `[[daily]]` of the configuration.
pub struct Job {
    settings: config::Daily,
    /// The stream's root.
    root: PathBuf,
    schedule_name: String,
    builds: Arc<Builds>,
}

impl Job {
    /// All jobs of a configuration. Those that name no stream publish into `default_root`.
    pub fn all(config: &config::Config, default_root: &std::path::Path, builds: &Arc<Builds>) -> Vec<Self> {
        let job = |settings: &config::Daily| Self {
            root: settings
                .stream
                .clone()
                .or_else(|| config.serve.root.clone())
                .unwrap_or_else(|| default_root.to_path_buf()),
            schedule_name: format!("daily-{}", settings.name),
            settings: settings.clone(),
            builds: Arc::clone(builds),
        };
        config.daily.iter().map(job).collect()
    }

    /// The settings.
    pub fn settings(&self) -> &config::Daily {
        &self.settings
    }

    /// Root of the stream it publishes into.
    pub fn root(&self) -> &std::path::Path {
        &self.root
    }

    /// Builds every image of the matrix, `parallel` at the same time; what became of each, in the
    /// order of the matrix. Builds not begun when `cancel` is cancelled are left out.
    ///
    /// # Errors
    /// [`Error::History`] when what happens cannot be recorded.
    pub fn run_now(&self, cancel: &CancelToken) -> Result<Vec<Run>> {
        for mut lost in self.builds.history.unreported(&self.settings.name)? {
            self.report(&mut lost)?;
        }
        let (cells, next) = (self.settings.cells(), AtomicUsize::new(0));
        let workers = (self.settings.parallel as usize).min(cells.len());
        let work = || {
            let mut done = Vec::new();
            while !cancel.is_cancelled() {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let Some(cell) = cells.get(at) else { break };
                let mut run = run::run(self, cell, cancel)?;
                self.report(&mut run)?;
                done.push((at, run));
            }
            Ok::<_, Error>(done)
        };
        let mut done = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
            let mut all = Vec::new();
            for worker in workers {
                let panicked = |_| Error::tree(&self.root, "a build's thread ended by itself");
                all.extend(worker.join().map_err(panicked)??);
            }
            Ok::<_, Error>(all)
        })?;
        done.sort_by_key(|(at, _)| *at);
        self.builds.history.prune(&self.settings.name)?;
        Ok(done.into_iter().map(|(_, run)| run).collect())
    }

    /// Says what became of a build; when it failed, also to whom the configuration names.
    fn report(&self, run: &mut Run) -> Result<()> {
        self.say(&run.to_string());
        if matches!(run.outcome, Some(Outcome::Failed | Outcome::Interrupted)) {
            notify::all(&self.settings, run, &|text| self.say(text));
            run.details.reported = true;
            self.builds.history.update(run)?;
        }
        Ok(())
    }

    fn say(&self, text: &str) {
        (self.builds.say)(&format!("{}: {text}", self.settings.name));
    }
}

impl schedule::Job for Job {
    fn name(&self) -> &str {
        &self.schedule_name
    }

    fn schedule(&self) -> &Cron {
        &self.settings.schedule
    }

    fn run(&self, slot: DateTime<Utc>, cancel: &CancelToken) {
        self.say(&format!("the builds of {} begin", slot.format("%Y-%m-%d %H:%M UTC")));
        if let Err(error) = self.run_now(cancel) {
            self.say(&error.to_string());
        }
    }
}
