//! Running commands in containers: the caller's side.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::AsRawFd;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

use super::attach;
use super::config::{self, Settings};
use super::name::ContainerName;
use super::record::{Config, Running, State};
use super::runtime::Runtime;
use super::sealed::{self, Program};
use super::sys::SingleThread;
use super::tuning::Beginning;
use crate::{CancelToken, Error, Result};

/// Most bytes kept of what a command prints.
const CAPTURED: usize = 1 << 20;

/// A command and how it runs. By default: as root, in root's home, with a plain environment,
/// and with the caller's standard streams.
#[derive(Clone, Debug, Default)]
pub struct ExecOptions {
    /// Program and arguments; the program is searched in `PATH`. None: the user's login shell.
    pub argv: Vec<String>,
    /// Added to the plain environment (`PATH`, `HOME`, `USER`, `LANG`), or replacing parts of it.
    pub env: BTreeMap<String, String>,
    /// Where it starts.
    pub cwd: Option<PathBuf>,
    /// User id inside the container.
    pub uid: u32,
    /// Group id inside the container.
    pub gid: u32,
    /// Whether it gets a terminal, connected to the caller's standard input and output, which then
    /// must be one. It is put into raw mode meanwhile.
    pub terminal: bool,
}

impl Runtime {
    /// Runs a command in a running container to its end. Returns its exit code, 128 and the number
    /// for a signal; 127 when there is no such program, 126 when it cannot be executed. The command
    /// ends with the calling thread.
    pub fn exec(&self, name: &ContainerName, options: &ExecOptions) -> Result<i32> {
        let failed = |reason: String| Error::Exec { name: name.to_string(), reason };
        let request = self.exec_request(name, options)?;
        let mut answer = empty_file().map_err(|e| failed(e.to_string()))?;
        let raw = || options.terminal.then(RawTerminal::enter).transpose();
        let code = match SingleThread::check() {
            Ok(single)
                if !sealed::has_the_hosts_root(request.init.pid).map_err(|e| failed(e.to_string()))? =>
            {
                let _raw = raw().map_err(|e| failed(e.to_string()))?;
                let copy = attach::fork(&request, &mut answer, &single);
                copy.and_then(wait).map_err(|e| failed(e.to_string()))?
            }
            _ => {
                return by_program(name, &request, raw, |command| {
                    let mut child = command.spawn().map_err(Error::io(Self::program()))?;
                    child.wait().map_err(Error::io(Self::program()))
                });
            }
        };
        match reason(&mut answer) {
            reason if reason.is_empty() => Ok(code),
            reason => Err(failed(reason)),
        }
    }

    /// As [`exec`](Self::exec), with nothing on standard input, and returns also what the command
    /// prints, on both streams, cut off after 1 MiB.
    ///
    /// # Errors
    /// Also when it runs longer than `limit`, or by `cancel`; it is ended then.
    pub fn exec_captured(
        &self,
        name: &ContainerName,
        options: &ExecOptions,
        limit: Duration,
        cancel: &CancelToken,
    ) -> Result<(i32, Vec<u8>)> {
        let mut output = Vec::new();
        let request = self.exec_request(name, options)?;
        let code = by_program(
            name,
            &request,
            || Ok(None),
            |command| {
                let (reader, writer) = io::pipe().map_err(Error::io("pipe"))?;
                let errors = writer.try_clone().map_err(Error::io("pipe"))?;
                let command = command.stdin(Stdio::null()).stdout(writer).stderr(errors);
                let mut child = command.spawn().map_err(Error::io(Self::program()))?;
                // Our own ends of the pipe, so that it closes when the command's do.
                command.stdout(Stdio::null()).stderr(Stdio::null());
                let program = options.argv.first().cloned().unwrap_or_default();
                let late = Error::Timeout { program, seconds: limit.as_secs() };
                let collected = collect(reader, limit, cancel, &mut output);
                if let Some(reason) = collected {
                    let _ = child.kill();
                    let _ = child.wait();
                    return Err(if matches!(reason, Stop::Late) { late } else { Error::Cancelled });
                }
                child.wait().map_err(Error::io(Self::program()))
            },
        )?;
        Ok((code, output))
    }

    fn exec_request(&self, name: &ContainerName, options: &ExecOptions) -> Result<attach::Request> {
        let directory = self.existing(name)?;
        let state = State::read(&directory)?;
        let Some(running) = state.running.filter(Running::is_alive) else {
            return Err(Error::NotRunning { name: name.to_string() });
        };
        let config = Config::read(&directory)?;
        let settings = self.expand(&config)?;
        Ok(request(&running, &config.cgroup(name), options, &settings))
    }
}

/// The exit code of a copy of this process.
fn wait(copy: Pid) -> io::Result<i32> {
    loop {
        match waitpid(copy, None) {
            Ok(WaitStatus::Exited(_, code)) => return Ok(code),
            Ok(WaitStatus::Signaled(_, signal, _)) => return Ok(128 + signal as i32),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// By a program of ours that is started for it. `prepare` comes right before.
fn by_program(
    name: &ContainerName,
    request: &attach::Request,
    prepare: impl FnOnce() -> io::Result<Option<RawTerminal>>,
    run: impl FnOnce(&mut Command) -> Result<ExitStatus>,
) -> Result<i32> {
    let failed = |reason: String| Error::Exec { name: name.to_string(), reason };
    let mut entry = Entry::of(request).map_err(|e| failed(e.to_string()))?;
    let _raw = prepare().map_err(|e| failed(e.to_string()))?;
    let status = run(&mut entry.command)?;
    let reason = reason(&mut entry.file);
    if !reason.is_empty() {
        return Err(failed(reason));
    }
    Ok(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default()))
}

/// A command that is ready to be started in a container.
pub(super) struct Entry {
    /// Takes the reason back when the command could not be started. The process has it open by its
    /// number here.
    file: File,
    /// The process that enters the container and waits there for it.
    command: Command,
    _program: Program,
}

impl Entry {
    /// `settings` are those of the container.
    pub(super) fn new(
        running: &Running,
        cgroup: &str,
        options: &ExecOptions,
        settings: &Settings,
    ) -> io::Result<Self> {
        Self::of(&request(running, cgroup, options, settings))
    }

    fn of(request: &attach::Request) -> io::Result<Self> {
        let mut file = empty_file()?;
        file.write_all(&serde_json::to_vec(request)?)?;
        let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
        let program = Program::of_process(request.init.pid)?;
        let mut command = Command::new(program.path());
        command.arg(attach::ARGUMENT).arg(path).env_clear();
        Ok(Self { file, command, _program: program })
    }

    /// Runs it without any standard streams; whether it exited with 0 within `limit`.
    pub(super) fn run_quietly(mut self, limit: Duration) -> io::Result<bool> {
        let command = self.command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn()?;
        let begin = Instant::now();
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(status.success());
            }
            if begin.elapsed() >= limit {
                child.kill()?;
                child.wait()?;
                return Ok(false);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Why a command could not be started; empty if it could.
fn reason(answer: &mut File) -> String {
    let mut reason = String::new();
    let _ = answer.rewind().and_then(|()| answer.read_to_string(&mut reason));
    reason
}

/// Why a command was not waited for any longer.
enum Stop {
    Late,
    Cancelled,
}

/// Reads until all writers are gone.
fn collect(
    mut reader: io::PipeReader,
    limit: Duration,
    cancel: &CancelToken,
    output: &mut Vec<u8>,
) -> Option<Stop> {
    let begin = Instant::now();
    let mut buffer = [0; 8 << 10];
    loop {
        if cancel.is_cancelled() {
            return Some(Stop::Cancelled);
        }
        if begin.elapsed() >= limit {
            return Some(Stop::Late);
        }
        let mut fds = [PollFd::new(&reader, PollFlags::IN)];
        let wait = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
        if matches!(poll(&mut fds, Some(&wait)), Ok(0) | Err(_)) {
            continue;
        }
        match reader.read(&mut buffer) {
            Ok(0) | Err(_) => return None,
            Ok(count) => {
                let room = CAPTURED.saturating_sub(output.len());
                output.extend_from_slice(&buffer[..count.min(room)]);
            }
        }
    }
}

fn environment(options: &ExecOptions, settings: BTreeMap<String, String>) -> BTreeMap<String, String> {
    let plain = [
        ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
        ("LANG", "C.UTF-8"),
        ("container", "millstream"),
    ];
    let root = [("HOME", "/root"), ("USER", "root"), ("LOGNAME", "root")];
    let root = root.into_iter().filter(|_| options.uid == 0);
    let mut env: BTreeMap<_, _> =
        plain.into_iter().chain(root).map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    env.extend(settings);
    env.extend(options.env.clone());
    env
}

/// `settings` are those of the container.
fn request(running: &Running, cgroup: &str, options: &ExecOptions, settings: &Settings) -> attach::Request {
    attach::Request {
        init: running.init,
        cgroup: cgroup.to_owned(),
        caller: running.caller.clone(),
        argv: options.argv.clone(),
        env: environment(options, config::environment(settings)),
        cwd: options.cwd.clone(),
        uid: options.uid,
        gid: options.gid,
        terminal: options.terminal,
        beginning: Beginning::of(settings),
    }
}

/// In memory, so that neither arguments nor environment show in a process list.
fn empty_file() -> io::Result<File> {
    Ok(File::from(memfd_create(c"millstream-exec", MemfdFlags::CLOEXEC)?))
}

/// The caller's terminal in raw mode; dropping it restores what was.
pub(super) struct RawTerminal(Termios);

impl RawTerminal {
    pub(super) fn enter() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        // Not flushed: what has been typed ahead is for the command.
        tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        Ok(Self(before))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), OptionalActions::Drain, &self.0);
    }
}
