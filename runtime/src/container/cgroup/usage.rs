//! What a container uses, and freezing it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Cgroups, subdirectories};
use crate::{Error, Result};

/// What a container uses now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processes.
    pub processes: Option<u64>,
    /// Bytes, page cache included.
    pub memory: Option<u64>,
    /// The most it had.
    pub memory_peak: Option<u64>,
    /// Processor time.
    pub cpu: Option<Duration>,
    /// Whether all of it is frozen.
    pub frozen: bool,
}

impl Cgroups {
    /// What the container uses now, as far as the host's hierarchies count it.
    pub fn usage(&self) -> Usage {
        let dirs: Vec<_> = self.host.hierarchies.iter().map(|h| self.dir(h)).collect();
        let first = |names: &[&str]| {
            let mut files = dirs.iter().flat_map(|dir| names.iter().map(|name| dir.join(name)));
            files.find_map(|file| fs::read_to_string(file).ok()?.trim().parse::<u64>().ok())
        };
        let v2 = self.v2().ok();
        let read = |name: &str| v2.as_ref().and_then(|dir| fs::read_to_string(dir.join(name)).ok());
        let field = |text: &str, name: &str| {
            text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok())
        };
        let nanoseconds = first(&["cpuacct.usage"]).map(Duration::from_nanos);
        let stat = || field(&read("cpu.stat")?, "usage_usec ").map(Duration::from_micros);
        Usage {
            processes: first(&["pids.current"]).or_else(|| v2.as_deref().map(count)),
            memory: first(&["memory.usage_in_bytes", "memory.current"]),
            memory_peak: first(&["memory.max_usage_in_bytes", "memory.peak"]),
            cpu: nanoseconds.or_else(stat),
            frozen: self.is_frozen(),
        }
    }

    /// Whether all processes are frozen.
    pub fn is_frozen(&self) -> bool {
        let events = self.v2().ok().and_then(|dir| fs::read_to_string(dir.join("cgroup.events")).ok());
        events.is_some_and(|text| text.lines().any(|line| line == "frozen 1"))
    }

    /// Freezes or thaws all processes, which the v2 hierarchy can do whatever controllers it has.
    pub fn freeze(&self, frozen: bool) -> Result<()> {
        let file = self.v2()?.join("cgroup.freeze");
        fs::write(&file, if frozen { "1" } else { "0" }).map_err(Error::io(&file))
    }

    fn v2(&self) -> Result<PathBuf> {
        let v2 = self.host.hierarchies.iter().find(|h| h.v2).map(|h| self.dir(h));
        v2.ok_or_else(|| {
            let how = self.host.own_v2().err().unwrap_or_default();
            Error::NoControlGroup { how }
        })
    }
}

fn count(dir: &Path) -> u64 {
    let here = fs::read_to_string(dir.join("cgroup.procs")).map_or(0, |text| text.lines().count() as u64);
    here + subdirectories(dir).map(|child| count(&child)).sum::<u64>()
}
