//! Control groups of a container, in every hierarchy the host has: v1, v2, or both (hybrid).
//!
//! A container `ID` gets `millstream/ID` below the root of each. It sees only the v2 one, which
//! is its own from there on; limits are set from outside on whichever hierarchy has the controller.
//! Hosts that mount no v2 hierarchy have one all the same: it is opened without mounting it.
//!
//! The root is that of the mount, whatever group the caller is in: every command finds a container
//! there, and a container outlives the service or session that started it. In a control group
//! namespace, the root of the mount is that of the subtree delegated to it, and nothing is made
//! outside. Controllers are only passed on there if no process is left in its root.
//!
//! An ordinary user gets the group the command was started in, where that was delegated. In other
//! hierarchies a container stays where its caller is, without limits.

mod disks;
mod host;
mod limits;
mod usage;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use self::host::Hierarchy;
pub use self::host::{Caller, Controllers, Host};
pub use self::usage::Usage;
use super::sys;
use crate::{Error, Result};

/// Directory of all containers below the root of a hierarchy.
const PARENT: &str = "millstream";
/// Where the processes of a delegated group go, as the kernel passes controllers on only from groups
/// without any.
const CALLER: &str = ".caller";
/// The v2 controllers that limit containers.
const LIMITING: [&str; 5] = ["cpu", "cpuset", "io", "memory", "pids"];
/// Below the container's own: where commands run by `exec` go. Systemd may give controllers to its
/// children, and then its own directory takes no processes any more.
const EXEC: &str = ".exec";
/// What the owner of a delegated v2 directory may write.
const DELEGATED: [&str; 3] = ["cgroup.procs", "cgroup.subtree_control", "cgroup.threads"];
/// How long ended processes may take to leave.
const PATIENCE: Duration = Duration::from_secs(5);

/// One container's directories.
pub struct Cgroups {
    host: Host,
    id: String,
}

impl Cgroups {
    /// Makes the directories; the v2 one can be administered by the host's id `owner`.
    pub fn create(&self, owner: u32) -> Result<()> {
        for hierarchy in &self.host.hierarchies {
            let dir = self.dir(hierarchy);
            if hierarchy.v2 && self.host.caller().is_some() {
                make_room(&hierarchy.root);
            }
            make(&dir).map_err(Error::io(&dir))?;
            if hierarchy.v2 {
                chown(&dir, Some(owner), Some(owner)).map_err(Error::io(&dir))?;
                for name in DELEGATED {
                    let file = dir.join(name);
                    chown(&file, Some(owner), Some(owner)).map_err(Error::io(&file))?;
                }
                offer_controllers(&hierarchy.root);
                offer_controllers(&hierarchy.root.join(PARENT));
            } else if hierarchy.controllers.iter().any(|c| c == "cpuset") {
                inherit_cpuset(&hierarchy.root.join(PARENT)).map_err(Error::io(&dir))?;
                inherit_cpuset(&dir).map_err(Error::io(&dir))?;
            }
        }
        Ok(())
    }

    /// Moves a process into them.
    pub fn join(&self, pid: i32) -> Result<()> {
        for hierarchy in &self.host.hierarchies {
            let file = self.dir(hierarchy).join("cgroup.procs");
            fs::write(&file, pid.to_string()).map_err(Error::io(&file))?;
        }
        Ok(())
    }

    /// Opens what a process writes its id into to join as a command run by `exec`, also after it
    /// has left the host's mounts behind. The move is decided by the rights of whoever opened them.
    pub fn open_for_exec(&self) -> Result<Vec<File>> {
        let open = |hierarchy: &Hierarchy| {
            let mut dir = self.dir(hierarchy);
            if hierarchy.v2 {
                dir.push(EXEC);
                make(&dir).map_err(Error::io(&dir))?;
            }
            let file = dir.join("cgroup.procs");
            OpenOptions::new().write(true).open(&file).map_err(Error::io(&file))
        };
        self.host.hierarchies.iter().map(open).collect()
    }

    /// Removes them, with all directories below, once nobody is in them any more. What is still
    /// there after a second is killed.
    pub fn remove(&self) -> Result<()> {
        for hierarchy in &self.host.hierarchies {
            let dir = self.dir(hierarchy);
            let start = Instant::now();
            while let Err(error) = remove_tree(&dir) {
                if start.elapsed() > PATIENCE {
                    return Err(Error::io(&dir)(error));
                }
                if start.elapsed() > Duration::from_secs(1) {
                    kill_all(&dir);
                }
                sleep(Duration::from_millis(2));
            }
            // The last container takes the parent away; others keep it.
            let _ = fs::remove_dir(hierarchy.root.join(PARENT));
        }
        Ok(())
    }

    fn dir(&self, hierarchy: &Hierarchy) -> PathBuf {
        hierarchy.root.join(PARENT).join(&self.id)
    }
}

fn make(dir: &Path) -> io::Result<()> {
    // The parent may be taken away between two steps, by the end of the last other container.
    for _ in 0..100 {
        match fs::create_dir_all(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
    }
    fs::create_dir_all(dir)
}

/// Lets the children of a v2 directory use the controllers it has. Some may be refused, as those
/// a v1 hierarchy holds: then limits are set there.
fn offer_controllers(dir: &Path) {
    let Ok(controllers) = fs::read_to_string(dir.join("cgroup.controllers")) else { return };
    for controller in controllers.split_ascii_whitespace() {
        let _ = fs::write(dir.join("cgroup.subtree_control"), format!("+{controller}"));
    }
}

/// Moves the processes of a delegated group into one below it, if it has controllers to pass on.
/// One that stays costs the limits, nothing else.
fn make_room(group: &Path) {
    let read = |name: &str| fs::read_to_string(group.join(name)).unwrap_or_default();
    let has_some = |file| read(file).split_ascii_whitespace().any(|c| LIMITING.contains(&c));
    if !has_some("cgroup.controllers") || has_some("cgroup.subtree_control") {
        return;
    }
    let leaf = group.join(CALLER);
    if make(&leaf).is_ok() {
        for pid in read("cgroup.procs").lines() {
            let _ = fs::write(leaf.join("cgroup.procs"), pid);
        }
    }
}

/// A new v1 cpuset is empty and takes no process until it has been filled.
fn inherit_cpuset(dir: &Path) -> io::Result<()> {
    for name in ["cpuset.cpus", "cpuset.mems"] {
        let file = dir.join(name);
        if fs::read_to_string(&file)?.trim().is_empty() {
            let parent = dir.parent().unwrap_or(dir);
            fs::write(&file, fs::read_to_string(parent.join(name))?)?;
        }
    }
    Ok(())
}

fn subdirectories(dir: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path())
}

fn remove_tree(dir: &Path) -> io::Result<()> {
    for child in subdirectories(dir) {
        remove_tree(&child)?;
    }
    match fs::remove_dir(dir) {
        // What cannot be written to says so even of what is not there.
        Err(error) if error.kind() != io::ErrorKind::NotFound && dir.exists() => Err(error),
        _ => Ok(()),
    }
}

fn kill_all(dir: &Path) {
    subdirectories(dir).for_each(|child| kill_all(&child));
    for pid in fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default().lines() {
        if let Ok(pid @ 1..) = pid.parse::<i32>() {
            let _ =
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
    }
}

/// Writes a process id into files opened by [`Cgroups::open_for_exec`]. An ordinary user may be
/// refused, who calls from another group than the container was started in: then the process stays
/// where the caller is.
pub fn enter(files: &mut [File], pid: i32) -> io::Result<()> {
    let confined = !sys::in_first_user_namespace();
    files.iter_mut().try_for_each(|file| match file.write_all(pid.to_string().as_bytes()) {
        Err(error) if confined && error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        other => other,
    })
}
