//! Snapshots of containers that run. An overlay cannot change its layers while it is mounted, so what
//! the container has changed is copied while all of it stands still, which takes btrfs no time.

use std::fs;
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::cgroup::{Caller, Cgroups, Host};
use super::lock::DirLock;
use super::name::ContainerName;
use super::record::{Config, LayerRef, Running, new_id};
use super::runtime::{Runtime, STAGING};
use super::{changes, sys, tree_copy};
use crate::{Error, Result};

/// First argument of the process that lets a container go on.
pub(crate) const ARGUMENT: &str = "__thaw";
/// How long all processes of a container may take to stand still.
const FREEZING: Duration = Duration::from_secs(10);

/// A copy of what a container has changed, in a directory that goes when this is dropped.
pub(super) struct Copied {
    staging: PathBuf,
    id: String,
    #[allow(dead_code, reason = "held so that nobody collects the directory")]
    lock: Option<DirLock>,
}

impl Copied {
    /// What is to become of it: a layer of this name.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Where it is now.
    pub fn changes(&self) -> PathBuf {
        changes::of(&self.staging)
    }
}

impl Drop for Copied {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.staging);
    }
}

impl Runtime {
    /// Copies what a running container has changed since the last layer, if anything. Its `config`
    /// becomes that of a container which rests on the copy; the container goes on as it was. Needs the
    /// lock.
    pub(super) fn copy_changes(
        &self,
        name: &ContainerName,
        directory: &Path,
        config: &mut Config,
        running: &Running,
    ) -> Result<Option<Copied>> {
        self.keep_image(directory, config)?;
        let id = new_id()?;
        let staging = self.dir().join(format!("{STAGING}{id}"));
        fs::create_dir(&staging).map_err(Error::io(&staging))?;
        let lock = DirLock::exclusive(&staging)?;
        let copied = Copied { staging, id, lock };
        let frozen = Frozen::new(name, &config.cgroup(name), running)?;
        let (changes, copy) = (changes::of(directory), copied.changes());
        let upper = changes::upper(&changes);
        let changed = fs::read_dir(&upper).map_err(Error::io(&upper))?.next().is_some();
        let durable = changed && changes::snapshot(&changes, &copy, &config.id);
        if changed && !durable {
            fs::create_dir(&copy).map_err(Error::io(&copy))?;
            tree_copy::copy(&upper, &changes::upper(&copy))?;
        }
        drop(frozen);
        if !changed {
            return Ok(None);
        }
        if durable {
            changes::settle(&copy)?;
        } else {
            tree_copy::flush(&copied.staging)?;
        }
        config.layers.insert(0, LayerRef { id: copied.id.clone(), idmap: config.idmap });
        Ok(Some(copied))
    }
}

/// A container that stands still, and goes on when this is dropped or this process ends.
struct Frozen {
    groups: Cgroups,
    /// None: it was paused before, and stays so.
    thaw: Option<Child>,
}

impl Frozen {
    fn new(name: &ContainerName, cgroup: &str, running: &Running) -> Result<Self> {
        let groups = running.groups(cgroup)?;
        if groups.is_frozen() {
            return Ok(Self { groups, thaw: None });
        }
        let program = Runtime::program();
        let caller = serde_json::to_string(&running.caller).map_err(|e| Error::io(program)(e.into()))?;
        let thaw = Command::new(program)
            .args([ARGUMENT, cgroup, &caller])
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Ctrl-C is not for it.
            .process_group(0)
            .spawn()
            .map_err(Error::io(program))?;
        let frozen = Self { groups, thaw: Some(thaw) };
        frozen.groups.freeze(true)?;
        let begin = Instant::now();
        while !frozen.groups.is_frozen() {
            if begin.elapsed() > FREEZING {
                return Err(Error::NotFrozen { name: name.to_string(), seconds: FREEZING.as_secs() });
            }
            sleep(Duration::from_millis(1));
        }
        Ok(frozen)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        if let Some(child) = &mut self.thaw {
            let _ = self.groups.freeze(false);
            drop(child.stdin.take());
            let _ = child.wait();
        }
    }
}

/// Waits for the end of its caller, however that comes, and lets the container go on.
pub(crate) fn main() -> ! {
    sys::close_inherited();
    let mut args = std::env::args().skip(2);
    let _ = io::stdin().read(&mut [0]);
    let thaw = || -> Option<()> {
        let (cgroup, caller) = (args.next()?, args.next()?);
        let caller: Option<Caller> = serde_json::from_str(&caller).ok()?;
        Host::discover(caller.as_ref()).ok()?.container(&cgroup).freeze(false).ok()
    };
    std::process::exit(i32::from({ thaw }().is_none()))
}
