//! A process that has a container's root file system in hand and is the container's root, but is not
//! in the container: for its files, also while it is stopped.
//!
//! Whatever lies in the container, a path is resolved within its root, and the process has no more
//! rights over the host than the container has. What it reads and writes on the host's side comes
//! and goes through its standard streams.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use nix::sched::{CloneFlags, setns};
use rustix::fs::{Mode, OFlags, open};
use serde::{Deserialize, Serialize};

use super::confine::{become_root, die_with_parent};
use super::files::{self, Work};
use super::ids::Ids;
use super::lock::DirLock;
use super::name::ContainerName;
use super::process::Process;
use super::record::{Config, Running, State};
use super::rootfs::Layers;
use super::runtime::Runtime;
use super::sys::{self, SingleThread};
use super::user_namespace;
use crate::{Error, Result};

/// First argument of such a process.
pub(crate) const ARGUMENT: &str = "__visit";
/// Bytes of a message.
const LARGEST: u32 = 1 << 20;

#[derive(Serialize, Deserialize)]
struct Request {
    /// The first process of a container that runs; else its layers are mounted.
    init: Option<Process>,
    layers: Layers,
    work: Work,
}

/// The caller's side of such a process, which ends with this.
pub(super) struct Visit {
    #[allow(dead_code, reason = "ends when dropped")]
    child: Killed,
    #[allow(dead_code, reason = "held so that a stopped container stays so")]
    lock: Option<DirLock>,
    /// To it.
    pub input: BufWriter<ChildStdin>,
    /// From it.
    pub output: BufReader<ChildStdout>,
}

impl Runtime {
    /// Starts one for this work.
    pub(super) fn visit(&self, name: &ContainerName, work: Work) -> Result<Visit> {
        let directory = self.existing(name)?;
        let running = State::read(&directory)?.running.filter(Running::is_alive);
        let (lock, config) = match &running {
            Some(_) => (None, Config::read(&directory)?),
            None => self.stopped(name).map(|(_, lock, config)| (Some(lock), config))?,
        };
        let layers = self.layers(&directory, &config);
        let init = running.map(|running| running.init);
        let visit = Self::spawn_visit(&Request { init, layers, work })?;
        Ok(Visit { lock, ..visit })
    }

    /// Starts one for layers that nobody else uses meanwhile.
    pub(super) fn visit_layers(layers: Layers, work: Work) -> Result<Visit> {
        Self::spawn_visit(&Request { init: None, layers, work })
    }

    fn spawn_visit(request: &Request) -> Result<Visit> {
        let failed = Error::io(Self::program());
        let start = || -> io::Result<Visit> {
            let mut child = Command::new(Self::program())
                .arg(ARGUMENT)
                .env_clear()
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()?;
            let pipes = child.stdin.take().zip(child.stdout.take());
            let (stdin, stdout) = pipes.ok_or(io::ErrorKind::BrokenPipe)?;
            let (mut input, output) = (BufWriter::new(stdin), BufReader::new(stdout));
            send(&mut input, request)?;
            input.flush()?;
            Ok(Visit { child: Killed(child), lock: None, input, output })
        };
        start().map_err(failed)
    }
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The process itself.
pub(crate) fn main() -> ! {
    sys::close_inherited();
    let (mut input, mut output) = (io::stdin().lock(), BufWriter::new(io::stdout().lock()));
    let done = receive::<Request>(&mut input)
        .map_err(|e| e.to_string())
        .and_then(|request| enter(&request).map(|root| (root, request.work)))
        .and_then(|(root, work)| files::work(&root, &work, &mut input, &mut output));
    let last = done.map_or_else(files::Message::Failed, |()| files::Message::Done);
    let sent = send(&mut output, &last).and_then(|()| output.flush());
    std::process::exit(i32::from(sent.is_err()))
}

/// The container's root file system, after this process has become its root.
fn enter(request: &Request) -> std::result::Result<OwnedFd, String> {
    let single = SingleThread::check().map_err(|e| format!("threads: {e}"))?;
    die_with_parent()?;
    let (root, namespace) = if let Some(init) = request.init {
        of_running(init).map_err(|e| format!("its first process: {e}"))?
    } else {
        let namespace = user_namespace::make(&single, &Ids::from(request.layers.idmap).proc_texts())?;
        (request.layers.mount(&single, namespace.as_fd())?, namespace)
    };
    setns(namespace, CloneFlags::CLONE_NEWUSER).map_err(|e| format!("its user namespace: {e}"))?;
    become_root()?;
    die_with_parent()?;
    Ok(root)
}

fn of_running(init: Process) -> io::Result<(OwnedFd, OwnedFd)> {
    let proc = format!("/proc/{}", init.pid);
    let root =
        open(format!("{proc}/root"), OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let namespace = File::open(format!("{proc}/ns/user"))?.into();
    // Looked at after opening: they are those of the right process.
    if init.is_alive() { Ok((root, namespace)) } else { Err(io::Error::other("it has just stopped")) }
}

/// Writes a message: its length, then its text.
pub(super) fn send(to: &mut impl Write, message: &impl Serialize) -> io::Result<()> {
    let text = serde_json::to_vec(message)?;
    let length = u32::try_from(text.len()).ok().filter(|length| *length <= LARGEST);
    let length = length.ok_or_else(|| io::Error::other("a path or a link is too long"))?;
    to.write_all(&length.to_le_bytes())?;
    to.write_all(&text)
}

/// Reads one.
pub(super) fn receive<T: serde::de::DeserializeOwned>(from: &mut (impl Read + ?Sized)) -> io::Result<T> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length);
    if length > LARGEST {
        return Err(io::Error::other("the message is too long"));
    }
    let mut text = vec![0; length as usize];
    from.read_exact(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}
