//! A fresh image that runs: asking it, and reading its console.

use std::time::{Duration, Instant};

use millstream_runtime::container::{ExecOptions, Init};
use millstream_runtime::{CancelToken, ContainerName, Runtime};

use crate::{Error, Result};

/// How long any look at the system may take.
const LOOK: Duration = Duration::from_secs(30);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(250);

pub(super) struct Machine<'a> {
    pub(super) runtime: &'a Runtime,
    pub(super) name: &'a ContainerName,
    pub(super) cancel: &'a CancelToken,
    /// How long it may take to come up.
    pub(super) limit: Duration,
}

impl Machine<'_> {
    /// Looks at the system until it gives an answer; `late` says what was missing within `limit`.
    pub(super) fn wait<T>(
        &self,
        limit: Duration,
        mut look: impl FnMut() -> Result<Option<T>>,
        late: impl FnOnce() -> Result<String>,
    ) -> Result<T> {
        let begin = Instant::now();
        loop {
            if let Some(found) = look()? {
                return Ok(found);
            }
            self.cancel.check()?;
            self.pid()?;
            if begin.elapsed() > limit {
                return Err(failed(late()?));
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// The process id of its init on the host.
    pub(super) fn pid(&self) -> Result<i32> {
        self.runtime.info(self.name)?.pid.ok_or_else(|| failed("its init ended by itself"))
    }

    pub(super) fn init(&self) -> Result<Init> {
        self.pid().map(Init::of)
    }

    pub(super) fn has(&self, program: &str) -> bool {
        self.sh(&format!("command -v {program}")).is_ok_and(|(code, _)| code == 0)
    }

    /// Exit code and output of a script inside.
    pub(super) fn sh(&self, script: &str) -> Result<(i32, String)> {
        self.sh_within(script, LOOK)
    }

    pub(super) fn sh_within(&self, script: &str, limit: Duration) -> Result<(i32, String)> {
        let argv = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
        let options = ExecOptions { argv, ..ExecOptions::default() };
        let (code, output) = self.runtime.exec_captured(self.name, &options, limit, self.cancel)?;
        Ok((code, String::from_utf8_lossy(&output).into_owned()))
    }

    /// Programs and arguments of all processes, each process ending in an empty word.
    pub(super) fn words(&self) -> Result<Vec<String>> {
        let (_, text) =
            self.sh("for p in /proc/[0-9]*/cmdline; do cat $p; printf '\\0'; done 2>/dev/null")?;
        Ok(text.split('\0').map(str::to_owned).collect())
    }

    pub(super) fn console(&self) -> String {
        let log = self.runtime.console_log(self.name, false).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    /// What the system says about itself.
    pub(super) fn evidence(&self) -> String {
        let script = "systemctl --failed --no-pager 2>/dev/null
            systemctl --failed --no-legend --plain 2>/dev/null | while read -r unit rest; do
                systemctl status --no-pager --lines=50 \"$unit\"
            done
            journalctl -b --no-pager -p warning -n 100 2>/dev/null
            rc-status --nocolor 2>/dev/null
            tail -n 100 /var/log/boot 2>/dev/null";
        let (_, said) = self.sh(script).unwrap_or_default();
        format!("the system under test:\n{said}\n==> its console:\n{}", self.console())
    }
}

pub(super) fn failed(reason: impl Into<String>) -> Error {
    Error::BootTest { reason: reason.into(), console: Vec::new() }
}
