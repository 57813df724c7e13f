//! Starts a fresh image and looks whether it comes up, works and shuts down.

mod machine;
mod network;
mod up;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use millstream_image::Sha256Digest;
use millstream_runtime::container::{ImageUse, Stopped};
use millstream_runtime::network::programs;
use millstream_runtime::{CancelToken, ContainerName, ImageFiles, Runtime};

use crate::{Error, Result};
use machine::{Machine, failed};

/// Longest script, in bytes; it is handed over as an argument.
const MAX_SCRIPT: usize = 96 << 10;
/// Begins the names of containers that are tests.
const PREFIX: &str = "boot-test-";
/// Lines of the console that an error shows.
const CONSOLE_LINES: usize = 15;

/// How to test.
#[derive(Clone, Debug)]
pub struct BootTest {
    /// The directory of containers, see [`Runtime`]. An ordinary user must be root of the user
    /// namespace of these ([`millstream_runtime::container::become_root`]).
    pub containers: PathBuf,
    /// Run by `/bin/sh` inside when the system is up; it must exit with 0.
    pub script: Option<String>,
    /// Whether it gets a network, which it must configure.
    pub network: bool,
    /// How long the system may take to come up, and again the script to run, and the shutdown.
    pub limit: Duration,
}

impl BootTest {
    /// What passing it means.
    pub fn digest(&self) -> Sha256Digest {
        let script = self.script.as_deref().unwrap_or_default();
        if self.network {
            return Sha256Digest::of(format!("network\0{script}").as_bytes());
        }
        Sha256Digest::of(script.as_bytes())
    }

    /// Looks whether this process may start containers, and removes what an interrupted test left.
    ///
    /// # Errors
    /// When it may not, the script is too long, or there can be no network.
    pub fn prepare(&self) -> Result<()> {
        if self.script.as_ref().is_some_and(|script| script.len() > MAX_SCRIPT) {
            return Err(Error::Refused(format!("the test script is longer than {MAX_SCRIPT} bytes")));
        }
        if self.network {
            programs().map_err(|reason| Error::Refused(format!("a boot test with a network: {reason}")))?;
        }
        let runtime = Runtime::open(&self.containers)?;
        for container in runtime.list()? {
            let owner =
                container.name.as_str().strip_prefix(PREFIX).and_then(|rest| rest.parse::<u32>().ok());
            let gone = owner.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists());
            if gone {
                runtime.discard_owned(&container.name)?;
            }
        }
        Ok(())
    }
}

/// Starts the image in `dir` and tests it. `log` gets what there is to read when it fails. Returns
/// what was found, in a line.
pub(super) fn test(
    dir: &Path,
    test: &BootTest,
    cancel: &CancelToken,
    log: &dyn Fn(&str) -> Result<()>,
) -> Result<String> {
    test.prepare()?;
    let runtime = Runtime::open(&test.containers)?;
    let name: ContainerName = format!("{PREFIX}{}", std::process::id()).parse()?;
    let files = ImageFiles::in_directory(dir)?;
    if runtime.info(&name).is_ok() {
        // A number used again: its owner is this very process, so the other one is gone.
        runtime.discard_owned(&name)?;
    }
    runtime.launch_owned(&name, &files, ImageUse::Automatic, test.network).map_err(not_started)?;
    let machine = Machine { runtime: &runtime, name: &name, cancel, limit: test.limit };
    let found = machine.examine(test);
    let found = match found {
        Err(error @ Error::Runtime(millstream_runtime::Error::Cancelled)) => Err(error),
        Err(error) => {
            log(&machine.evidence())?;
            Err(with_console(error, runtime.console_end(&name, CONSOLE_LINES)))
        }
        passed => passed,
    };
    runtime.discard_owned(&name)?;
    found
}

/// Waits until the system of a running container is up and nothing of it failed. Returns what it is run
/// by.
///
/// # Errors
/// [`Error::BootTest`] says what failed, or was not up within `limit`.
pub fn come_up(
    runtime: &Runtime,
    name: &ContainerName,
    limit: Duration,
    cancel: &CancelToken,
) -> Result<&'static str> {
    Machine { runtime, name, cancel, limit }.come_up()
}

/// An image whose init does not run fails the test; else it is the host that cannot test.
fn not_started(error: millstream_runtime::Error) -> Error {
    match error {
        millstream_runtime::Error::Start { reason, console, .. } => {
            Error::BootTest { reason: format!("it did not start: {reason}"), console }
        }
        other => other.into(),
    }
}

/// The error with the end of the console.
fn with_console(error: Error, lines: Vec<String>) -> Error {
    match error {
        Error::BootTest { reason, .. } => Error::BootTest { reason, console: lines },
        other => Error::BootTest { reason: other.to_string(), console: lines },
    }
}

impl Machine<'_> {
    fn examine(&self, test: &BootTest) -> Result<String> {
        let begin = Instant::now();
        let init = self.come_up()?;
        let mut found = format!("{init} came up in {:.1} s", begin.elapsed().as_secs_f64());
        if test.network {
            found = format!("{found}, network configured ({})", self.network()?);
        }
        if let Some(script) = &test.script {
            let (code, output) = self.sh_within(script, test.limit)?;
            if code != 0 {
                return Err(failed(format!("its script exited with {code}:\n  {}", tail(&output))));
            }
            found += ", script passed";
        }
        let seconds = self.shut_down(test.limit)?;
        Ok(format!("{found}, shut down in {seconds:.1} s"))
    }

    fn shut_down(&self, limit: Duration) -> Result<f64> {
        let begin = Instant::now();
        if self.runtime.stop(self.name, limit)? == Stopped::Killed {
            let limit = limit.as_secs();
            return Err(failed(format!("it did not shut down within {limit} seconds when asked to")));
        }
        let exit = self.runtime.info(self.name)?.last_exit;
        if let Some(exit) = exit.filter(|exit| exit.code != 0) {
            return Err(failed(format!("its init ended with status {} when it was shut down", exit.code)));
        }
        Ok(begin.elapsed().as_secs_f64())
    }
}

fn tail(output: &str) -> String {
    let lines: Vec<_> = output.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n  ")
}
