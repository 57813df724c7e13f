//! Commands of the host that go with a container's life: `hooks.pre-start`, `hooks.post-start` and
//! `hooks.post-stop`.
//!
//! Only settings name them, never an image. The supervisor runs them, with the rights of whoever
//! started the container, outside of it.

use std::convert::Infallible;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{PidfdFlags, pidfd_open};

use super::config::Settings;
use super::confine::die_with_parent;
use super::supervise::Request;
use super::sys::{self, Fork, SingleThread};

/// What their keys begin with.
pub const PREFIX: &str = "hooks.";
/// Seconds one may take, if `hooks.timeout` says nothing.
const SECONDS: u64 = 20;
/// How often something else is looked after while one runs.
const STEP: Duration = Duration::from_millis(50);
/// Bytes of its output that are kept.
const KEPT: usize = 1024;

/// When one runs.
#[derive(Clone, Copy)]
pub enum Occasion {
    /// Before anything of the container is made. If it fails, the container does not start.
    PreStart,
    /// When its init runs.
    PostStart,
    /// When nothing of it is left.
    PostStop,
}

impl Occasion {
    fn name(self) -> &'static str {
        match self {
            Self::PreStart => "pre-start",
            Self::PostStart => "post-start",
            Self::PostStop => "post-stop",
        }
    }
}

/// The container it is about.
struct About<'a> {
    name: &'a str,
    directory: &'a Path,
    /// Its first process, if it runs.
    init: Option<Pid>,
}

impl Request {
    /// Runs the command of an occasion, if there is one.
    pub(super) fn hook(
        &self,
        occasion: Occasion,
        init: Option<Pid>,
        single: &SingleThread,
        meanwhile: &mut dyn FnMut(),
    ) -> Result<(), String> {
        let about = About { name: &self.name, directory: &self.directory, init };
        run(&self.settings, occasion, &about, single, meanwhile)
    }

    /// What the host does when nothing of it is left; why that went wrong.
    pub(super) fn stopped(&self, single: &SingleThread) -> Option<String> {
        self.hook(Occasion::PostStop, None, single, &mut || {}).err()
    }
}

/// Runs the command set for an occasion, if there is one, and waits, doing something `meanwhile`. The
/// error names the key.
fn run(
    settings: &Settings,
    occasion: Occasion,
    about: &About,
    single: &SingleThread,
    meanwhile: &mut dyn FnMut(),
) -> Result<(), String> {
    let key = format!("{PREFIX}{}", occasion.name());
    let Some(line) = settings.get(&key) else { return Ok(()) };
    let failed = |reason: String| format!("{key}: {reason}");
    let seconds = settings.get("hooks.timeout").and_then(|text| text.parse().ok()).unwrap_or(SECONDS);
    let limit = Duration::from_secs(seconds);
    let (mut output, theirs) = io::pipe().map_err(|e| failed(e.to_string()))?;
    let hook = match sys::fork(single, 0).map_err(|e| failed(e.to_string()))? {
        Fork::Child => {
            drop(output);
            let Err(error) = execute(line, occasion, about, &theirs.into());
            eprintln!("/bin/sh: {error}");
            std::process::exit(127)
        }
        Fork::Parent(hook) => hook,
    };
    drop(theirs);
    let ended = watch(hook, limit, &mut output, meanwhile);
    // With whatever it started and did not wait for, should it have taken too long.
    if !matches!(ended, Ok((true, _))) {
        let _ = killpg(hook, Signal::SIGKILL);
    }
    let status = waitpid(hook, None);
    let (in_time, said) = ended.map_err(|e| failed(e.to_string()))?;
    let said = if said.is_empty() { said } else { format!(": {said}") };
    match status {
        _ if !in_time => Err(failed(format!("it was ended after {} seconds{said}", limit.as_secs()))),
        Ok(WaitStatus::Exited(_, 0)) => Ok(()),
        Ok(WaitStatus::Exited(_, code)) => Err(failed(format!("it ended with status {code}{said}"))),
        Ok(WaitStatus::Signaled(_, signal, _)) => Err(failed(format!("it was ended by {signal}{said}"))),
        other => Err(failed(format!("{other:?}"))),
    }
}

fn execute(line: &str, occasion: Occasion, about: &About, output: &OwnedFd) -> io::Result<Infallible> {
    sys::reset_signals()?;
    die_with_parent().map_err(io::Error::other)?;
    // A session of its own, so that it can be ended with all it has started.
    nix::unistd::setsid()?;
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    rustix::stdio::dup2_stdout(output)?;
    rustix::stdio::dup2_stderr(output)?;
    sys::close_on_exec_from(3)?;
    let mut shell = Command::new("/bin/sh");
    shell
        .args(["-c", line])
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("MILLSTREAM_HOOK", occasion.name())
        .env("MILLSTREAM_NAME", about.name)
        .env("MILLSTREAM_DIRECTORY", about.directory);
    if let Some(init) = about.init {
        let pid = init.to_string();
        shell.env("MILLSTREAM_ROOT", format!("/proc/{pid}/root")).env("MILLSTREAM_PID", pid);
    }
    Err(shell.exec())
}

/// Whether it ended in time, and the end of what it said.
fn watch(
    hook: Pid,
    limit: Duration,
    output: &mut io::PipeReader,
    meanwhile: &mut dyn FnMut(),
) -> io::Result<(bool, String)> {
    let pid = rustix::process::Pid::from_raw(hook.as_raw()).ok_or(io::ErrorKind::NotFound)?;
    let process = pidfd_open(pid, PidfdFlags::empty())?;
    rustix::io::ioctl_fionbio(output.as_fd(), true)?;
    let (begin, mut text, mut open) = (Instant::now(), Vec::new(), true);
    loop {
        let left = limit.saturating_sub(begin.elapsed());
        let mut fds = vec![PollFd::new(&process, PollFlags::IN)];
        if open {
            fds.push(PollFd::from_borrowed_fd(output.as_fd(), PollFlags::IN));
        }
        let step = left.min(STEP).subsec_nanos();
        let timeout = rustix::event::Timespec { tv_sec: 0, tv_nsec: step.into() };
        match poll(&mut fds, Some(&timeout)) {
            Err(rustix::io::Errno::INTR) => continue,
            other => other?,
        };
        meanwhile();
        let ended = !fds[0].revents().is_empty();
        let readable = fds.get(1).is_some_and(|fd| !fd.revents().is_empty());
        if readable {
            open = read(output, &mut text);
        }
        // What it leaves running may hold the pipe open; it is not waited for.
        if ended || left.is_zero() {
            while open && read(output, &mut text) && text.len() < KEPT {}
            let text = String::from_utf8_lossy(&text);
            return Ok((ended, text.trim().replace('\n', "; ").escape_debug().to_string()));
        }
    }
}

/// Reads a piece and keeps the last bytes; false when there is no more for now.
fn read(output: &io::PipeReader, text: &mut Vec<u8>) -> bool {
    let mut buffer = [0; KEPT];
    match rustix::io::read(output, &mut buffer) {
        Ok(count @ 1..) => {
            text.extend_from_slice(&buffer[..count]);
            text.drain(..text.len().saturating_sub(KEPT));
            true
        }
        _ => false,
    }
}
