//! `[[mirror]]` of the configuration: `millstream mirror` in a process of its own, at its times. That
//! process may be stopped at any moment; the next run goes on from there.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use millstream_runtime::CancelToken;
use rustix::process::{Pid, Signal, kill_process};

use crate::config;
use crate::schedule::{self, Cron};
use crate::{Error, Result};

/// How often the process is looked after.
const TICK: Duration = Duration::from_millis(50);
/// How long it may take to stop.
const PATIENCE: Duration = Duration::from_secs(10);

/// A `[[mirror]]`.
pub struct Job {
    settings: config::Mirror,
    schedule_name: String,
    program: PathBuf,
    say: Arc<dyn Fn(&str) + Send + Sync>,
}

impl Job {
    /// All of a configuration. `program` is this one, `say` is told what fails.
    pub fn all(config: &config::Config, program: &Path, say: &Arc<dyn Fn(&str) + Send + Sync>) -> Vec<Self> {
        let job = |settings: &config::Mirror| Self {
            schedule_name: format!("mirror-{}", settings.name),
            settings: settings.clone(),
            program: program.to_path_buf(),
            say: Arc::clone(say),
        };
        config.mirror.iter().map(job).collect()
    }

    /// Mirrors, and says when that fails; whether all images came.
    ///
    /// # Errors
    /// When there can be no such process.
    pub fn run_now(&self, cancel: &CancelToken) -> Result<bool> {
        let status = self.run_process(cancel).map_err(Error::io(&self.program))?;
        if !status.success() && !cancel.is_cancelled() {
            (self.say)(&format!("{}: mirroring failed: {status}", self.settings.name));
        }
        Ok(status.success())
    }

    fn run_process(&self, cancel: &CancelToken) -> std::io::Result<ExitStatus> {
        let mut command = Command::new(&self.program);
        // Ctrl-C of a terminal is ours to pass on.
        let mut child =
            command.args(self.settings.arguments()).stdin(Stdio::null()).process_group(0).spawn()?;
        let mut stopping: Option<Instant> = None;
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(status);
            }
            match stopping {
                None if cancel.is_cancelled() => {
                    stopping = Some(Instant::now());
                    kill_process(Pid::from_child(&child), Signal::TERM)?;
                }
                Some(since) if since.elapsed() > PATIENCE => child.kill()?,
                _ => {}
            }
            std::thread::sleep(TICK);
        }
    }
}

impl schedule::Job for Job {
    fn name(&self) -> &str {
        &self.schedule_name
    }

    fn schedule(&self) -> &Cron {
        &self.settings.schedule
    }

    fn run(&self, _: DateTime<Utc>, cancel: &CancelToken) {
        if let Err(error) = self.run_now(cancel) {
            (self.say)(&format!("{}: {error}", self.settings.name));
        }
    }
}
