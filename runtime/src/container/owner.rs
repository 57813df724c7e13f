//! Makes an ordinary user root of one user namespace, in which all their containers live.
//!
//! Each command joins the namespace of those that are at work and of the supervisors of running
//! containers, and makes a new one only when there is none: the kernel lets nobody from another
//! namespace of the same user touch a container. `DIR/.commands.json` names the commands.

use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use nix::sched::{CloneFlags, setns, unshare};
use serde::{Deserialize, Serialize};

use super::process::{Process, boot_id};
use super::record::{Running, State};
use crate::sandbox::userns;
use crate::{Error, Result};

const COMMANDS: &str = ".commands.json";

/// Processes that are in the namespace, in this boot.
#[derive(Default, Serialize, Deserialize)]
struct Commands {
    boot_id: String,
    processes: Vec<Process>,
}

/// Returns at once for root with the right to mount. For everybody else, starts this program again
/// with the same arguments as root of the user namespace of the containers in `dir`, and then
/// does not return. Must be called while the process has a single thread.
///
/// # Errors
/// When the user has no subordinate ids, when `newuidmap` is missing, or when the kernel allows no
/// user namespaces; the message says what to do.
pub fn become_root(dir: &Path) -> Result<()> {
    if userns::is_root()? {
        return Ok(());
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(Error::io(dir))?;
    let path = dir.join(COMMANDS);
    let mut options = File::options();
    options.create(true).truncate(false).read(true).write(true).mode(0o600);
    let mut file = options.open(&path).map_err(Error::io(&path))?;
    // Held until we are inside and have said so.
    file.lock().map_err(Error::io(&path))?;
    let mut text = Vec::new();
    file.read_to_end(&mut text).map_err(Error::io(&path))?;
    let boot_id = boot_id().map_err(Error::io("boot_id"))?;
    let mut commands: Commands = serde_json::from_slice(&text).unwrap_or_default();
    if commands.boot_id != boot_id {
        commands = Commands { boot_id, processes: Vec::new() };
    }
    commands.processes.retain(|process| process.is_alive());
    let mut inside = commands.processes.iter().copied().chain(supervisors(dir));
    if !inside.any(|process| join(process).is_ok()) {
        userns::enter_new()?;
    }
    let failed = |what: &str, e: nix::errno::Errno| userns::failed(format!("{what}: {e}"));
    nix::unistd::setgroups(&[]).map_err(|e| failed("groups", e))?;
    // Mounts, too, can be made only in a namespace that belongs to the user's.
    unshare(CloneFlags::CLONE_NEWNS).map_err(|e| failed("mount namespace", e))?;
    commands.processes.push(Process::of(std::process::id() as i32).map_err(Error::io("/proc/self/stat"))?);
    let text = serde_json::to_vec(&commands).map_err(|e| Error::io(&path)(e.into()))?;
    let written = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(&text));
    written.map_err(Error::io(&path))?;
    Err(userns::restart())
}

fn supervisors(dir: &Path) -> impl Iterator<Item = Process> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let running = entries.filter_map(|entry| State::read(&entry.path()).ok()?.running);
    running.filter(Running::is_alive).map(|running| running.supervisor)
}

fn join(process: Process) -> std::io::Result<()> {
    let namespace = File::open(format!("/proc/{}/ns/user", process.pid))?;
    if !process.is_alive() {
        return Err(std::io::ErrorKind::NotFound.into());
    }
    Ok(setns(namespace.as_fd(), CloneFlags::CLONE_NEWUSER)?)
}
