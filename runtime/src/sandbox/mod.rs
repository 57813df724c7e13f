//! Runs a program inside a root file system, in namespaces of its own: mounts, processes, host
//! name and IPC.
//!
//! The mounts exist only in the sandbox's mount namespace: the host's table does not change. All
//! processes end with the call, also when the caller is killed, because the namespace's first
//! process dies with its parent. The inside is a fresh start of this very program (see
//! [`crate::init`]), so that callers may have threads.

pub(crate) mod child;
mod emulation;
pub mod mounts;
pub mod userns;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::{CancelToken, Error, Result};

/// First argument of a process that is the inside of a sandbox.
pub(crate) const ARGUMENT: &str = "__sandbox";

/// How long a sandbox that is being ended may take to go.
const GRACE: Duration = Duration::from_secs(10);

/// Exit status by which the inside says that it could not set itself up.
const SETUP_FAILED: i32 = 212;

/// A root file system and what its programs see besides it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sandbox {
    rootfs: PathBuf,
    hostname: String,
    binds: Vec<Bind>,
    network: bool,
    no_fsync: bool,
    resolv_conf: Option<String>,
    interpreter: Option<Interpreter>,
}

/// What runs programs of another processor.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Interpreter {
    /// As in binfmt.d(5).
    line: String,
    /// Whether a user namespace has to be made for it first.
    new_namespace: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Bind {
    source: PathBuf,
    /// Absolute, resolved inside the root file system.
    target: PathBuf,
    read_only: bool,
}

/// A program to run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Exec {
    /// Program and arguments; searched in the `PATH` of `env`.
    pub argv: Vec<String>,
    /// The whole environment.
    pub env: BTreeMap<String, String>,
    /// A script to put into the sandbox and run, with its own `#!` line; `argv` is then its
    /// arguments.
    pub script: Option<String>,
    /// Longest run time in seconds.
    pub timeout: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct Request {
    sandbox: Sandbox,
    exec: Exec,
}

impl Sandbox {
    /// A sandbox in `rootfs`, without network and with the name `localhost`.
    pub fn new(rootfs: &Path) -> Self {
        Self {
            rootfs: rootfs.to_path_buf(),
            hostname: "localhost".into(),
            binds: Vec::new(),
            network: false,
            no_fsync: false,
            resolv_conf: None,
            interpreter: None,
        }
    }

    /// Shows the host's directory or file `source` at `target`, which must exist inside.
    #[must_use]
    pub fn bind(mut self, source: &Path, target: &str, read_only: bool) -> Self {
        self.binds.push(Bind { source: source.into(), target: target.into(), read_only });
        self
    }

    /// Shares the host's network, or has none at all.
    #[must_use]
    pub fn network(mut self, shared: bool) -> Self {
        self.network = shared;
        self
    }

    /// Makes fsync and its like do nothing: a root file system being built is thrown away when
    /// the power fails, so waiting for the disk gains nothing.
    #[must_use]
    pub fn no_fsync(mut self, yes: bool) -> Self {
        self.no_fsync = yes;
        self
    }

    /// Name servers for a root file system whose `/etc/resolv.conf` is a link into `/run`: the file
    /// the link names is made, with this text.
    #[must_use]
    pub fn resolv_conf(mut self, text: &str) -> Self {
        self.resolv_conf = Some(text.to_owned());
        self
    }

    /// Runs programs of another processor by an interpreter of the host's. `line` tells the kernel
    /// which, as in binfmt.d(5), and must have flag F. Holds in this sandbox only, which then is in a
    /// user namespace; needs Linux 6.7.
    #[must_use]
    pub fn interpreter(mut self, line: &str) -> Self {
        self.interpreter = Some(Interpreter { line: line.to_owned(), new_namespace: !userns::inside() });
        self
    }

    /// Runs a program to its end. What it and its children print, on both streams, goes to
    /// `output` as it comes.
    ///
    /// # Errors
    /// When the sandbox cannot be set up, or the program was ended by its timeout or by `cancel`.
    /// A program that fails is no error here: see the status.
    pub fn run(
        &self,
        exec: &Exec,
        cancel: &CancelToken,
        output: &mut dyn FnMut(&[u8]),
    ) -> Result<ExitStatus> {
        let started = Instant::now();
        let (reader, writer) = std::io::pipe().map_err(Error::io("pipe"))?;
        let mut child = self.spawn(exec, writer)?;
        let (sender, chunks) = channel();
        std::thread::spawn(move || {
            let mut reader = reader;
            let mut buffer = [0; 16 << 10];
            while let Ok(count @ 1..) = reader.read(&mut buffer) {
                if sender.send(buffer[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        let mut tail = Vec::new();
        let mut open = true;
        let status = loop {
            match chunks.recv_timeout(if open { Duration::from_millis(100) } else { Duration::ZERO }) {
                Ok(chunk) => {
                    output(&chunk);
                    tail.extend_from_slice(&chunk);
                    tail.drain(..tail.len().saturating_sub(1000));
                }
                // A program may close its output and go on; then only its end is waited for.
                Err(RecvTimeoutError::Disconnected) => {
                    open = false;
                    if let Some(status) = child.try_wait().map_err(Error::io("sandbox"))? {
                        break status;
                    }
                    std::thread::sleep(Duration::from_millis(2));
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
            let late = exec.timeout.filter(|limit| started.elapsed().as_secs() >= *limit);
            if late.is_some() || cancel.is_cancelled() {
                end(&mut child);
                let program = exec.argv.first().map_or("script", String::as_str).to_owned();
                return Err(late.map_or(Error::Cancelled, |seconds| Error::Timeout { program, seconds }));
            }
        };
        if status.code() == Some(SETUP_FAILED) {
            let reason = String::from_utf8_lossy(&tail).trim().to_owned();
            return Err(Error::Setup { rootfs: self.rootfs.clone(), reason });
        }
        Ok(status)
    }

    fn spawn(&self, exec: &Exec, output: std::io::PipeWriter) -> Result<Child> {
        let request = Request { sandbox: self.clone(), exec: exec.clone() };
        let request = serde_json::to_vec(&request).map_err(|e| Error::io("sandbox")(e.into()))?;
        let errors = output.try_clone().map_err(Error::io("pipe"))?;
        let mut child = Command::new("/proc/self/exe")
            .arg(OsString::from(ARGUMENT))
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .map_err(Error::io("/proc/self/exe"))?;
        let sent = child.stdin.take().map(|mut stdin| stdin.write_all(&request));
        if let Some(Err(error)) = sent {
            end(&mut child);
            return Err(Error::io("sandbox")(error));
        }
        Ok(child)
    }
}

/// Ends the namespace's first process: the kernel ends the rest and only then lets the outer
/// process, which waits for it, go. So nothing of the sandbox is left when this returns.
fn end(child: &mut Child) {
    let children = format!("/proc/{0}/task/{0}/children", child.id());
    for pid in std::fs::read_to_string(children).unwrap_or_default().split_whitespace() {
        if let Ok(pid) = pid.parse() {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
    let started = Instant::now();
    while started.elapsed() < GRACE {
        if matches!(child.try_wait(), Ok(Some(_)) | Err(_)) {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let _ = child.kill();
    let _ = child.wait();
}
