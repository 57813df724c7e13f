//! Asks a running container to shut down, in its init's own way.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use super::exec::{Entry, ExecOptions};
use super::init::{HALT_SIGNAL, Init, Shutdown, signal};
use super::process;
use super::record::{Config, Running};

/// How long the command may take that tells an init; it does not wait for the shutdown.
const TELL: Duration = Duration::from_secs(5);

/// The signal that a container's image names, if it does.
pub(super) fn wanted(config: &Config) -> Option<i32> {
    config.properties.get(HALT_SIGNAL).and_then(|text| signal(text))
}

/// Asks `init`, a descriptor for the first process of this run, whose control groups are named
/// `cgroup`. Takes at most `limit`, and does not wait for what comes of it.
///
/// # Errors
/// Only of the signal: a command that fails is replaced by one.
pub(super) fn ask(
    running: &Running,
    cgroup: &str,
    init: &OwnedFd,
    wanted: Option<i32>,
    limit: Duration,
) -> io::Result<()> {
    let pid = running.init.pid;
    match Init::of(pid).shutdown(pid, wanted) {
        Shutdown::Signal(number) => process::send(init, number),
        Shutdown::Command(argv, otherwise) => {
            let argv = argv.iter().map(|&word| word.to_owned()).collect();
            let options = ExecOptions { argv, ..ExecOptions::default() };
            let entry = Entry::new(running, cgroup, &options, &[].into());
            match entry.and_then(|entry| entry.run_quietly(limit.min(TELL))) {
                Ok(true) => Ok(()),
                _ => process::send(init, otherwise),
            }
        }
    }
}
