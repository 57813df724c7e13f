//! What `limits.kernel.*`, `linux.sysctl.*` and `raw.oci` change: for each process from outside, where
//! the rights to do so are, and for the container's namespaces from inside.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsFd;
use std::path::Path;

use nix::mount::{MsFlags, mount};
use rustix::fs::CWD;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};
use serde::{Deserialize, Serialize};

use super::config::Settings;
use super::config::kernel::{LIMITS, Limit, SYSCTL};
use super::config::oci::{self, Oci};
use super::sys;

type Step<T> = Result<T, String>;

/// What every process of a container begins with.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Beginning {
    limits: Vec<Limit>,
    oom_score_adj: Option<i32>,
    /// Whether set-user-ID programs and file capabilities count for nothing.
    pub no_new_privileges: bool,
}

impl Beginning {
    pub fn of(settings: &Settings) -> Self {
        let oci = read(settings);
        let own =
            settings.iter().filter_map(|(key, value)| Limit::parse(key.strip_prefix(LIMITS)?, value).ok());
        // One each, as a hard limit is not raised again: keys count.
        let all = oci.limits().unwrap_or_default().into_iter().chain(own);
        let limits: BTreeMap<_, _> = all.map(|limit| (limit.name.clone(), limit)).collect();
        let limits = limits.into_values().collect();
        let oci::Process { oom_score_adj, no_new_privileges, .. } = oci.process;
        Self { limits, oom_score_adj, no_new_privileges }
    }

    /// Whether it says how much of this there may be.
    pub fn limits(&self, resource: Resource) -> bool {
        self.limits.iter().any(|limit| limit.resource() == Some(resource))
    }

    /// Gives it to a process that has not begun. Returns what cannot be kept, as with an ordinary user
    /// who wants more than the host's administrator left.
    pub fn give(&self, pid: Pid) -> Vec<String> {
        let mut notes = Vec::new();
        for limit in &self.limits {
            let Some(resource) = limit.resource() else { continue };
            let given = prlimit(Some(pid), resource, wanted(limit));
            notes.extend(given.err().map(|e| format!("{LIMITS}{} is not kept: {e}", limit.name)));
        }
        let path = format!("/proc/{}/oom_score_adj", pid.as_raw_nonzero());
        let given = self.oom_score_adj.map_or(Ok(()), |score| fs::write(path, score.to_string()));
        notes.extend(given.err().map(|e| format!("raw.oci: oomScoreAdj is not kept: {e}")));
        notes
    }

    /// Makes room for it, as long as this process may; the process of the container takes it then.
    pub fn make_room(&self) {
        for (limit, resource) in self.known() {
            let now = getrlimit(resource);
            let above = |most: u64| limit.hard.is_none_or(|hard| hard > most);
            if now.maximum.is_some_and(above) {
                let _ = setrlimit(resource, Rlimit { current: now.current, maximum: limit.hard });
            }
        }
        if let Some(score) = self.oom_score_adj {
            let _ = fs::write("/proc/self/oom_score_adj", score.to_string());
        }
    }

    /// Takes it on, as far as that is possible.
    pub fn take(&self) {
        for (limit, resource) in self.known() {
            let most = getrlimit(resource).maximum;
            let within =
                |value: Option<u64>| most.map_or(value, |most| Some(value.unwrap_or(most).min(most)));
            let _ = setrlimit(resource, Rlimit { current: within(limit.soft), maximum: within(limit.hard) });
        }
    }

    fn known(&self) -> impl Iterator<Item = (&Limit, Resource)> {
        self.limits.iter().filter_map(|limit| Some((limit, limit.resource()?)))
    }
}

fn wanted(limit: &Limit) -> Rlimit {
    Rlimit { current: limit.soft, maximum: limit.hard }
}

/// What was set is read again and again; it has been judged.
fn read(settings: &Settings) -> Oci {
    settings.get("raw.oci").and_then(|text| Oci::parse(text).ok()).unwrap_or_default()
}

/// Sets the parameters of the container's own namespaces. `/proc` is ours still.
pub(super) fn set_parameters(settings: &Settings) -> Step<()> {
    let mut all: BTreeMap<_, _> = read(settings).linux.sysctl;
    let own = settings
        .iter()
        .filter_map(|(key, value)| Some((key.strip_prefix(SYSCTL)?.to_owned(), value.clone())));
    all.extend(own);
    for (name, value) in all {
        let path = Path::new("/proc/sys").join(name.replace('.', "/"));
        fs::write(path, value).map_err(|e| format!("{SYSCTL}{name}: {e}"))?;
    }
    Ok(())
}

/// Mounts file systems in memory. Paths end inside, as the old root is gone.
pub(super) fn mount_memory(settings: &Settings) -> Step<()> {
    for wanted in read(settings).mounts {
        let (flags, options) = wanted.flags()?;
        let place = Path::new(&wanted.destination);
        let failed = |e: String| format!("raw.oci: mounts: {}: {e}", wanted.destination);
        fs::create_dir_all(place).map_err(|e| failed(e.to_string()))?;
        mount(Some("tmpfs"), place, Some("tmpfs"), flags, Some(options.as_str()))
            .map_err(|e| failed(e.to_string()))?;
    }
    Ok(())
}

/// Covers paths and takes the right to write away. What is not there needs nothing.
pub(super) fn cover(settings: &Settings) -> Step<()> {
    const NONE: Option<&str> = None;
    let oci::Linux { masked_paths, readonly_paths, .. } = read(settings).linux;
    let failed = |path: &str, e: nix::errno::Errno| format!("raw.oci: {path}: {e}");
    for path in masked_paths.iter().filter(|path| Path::new(path).exists()) {
        let covered = if Path::new(path).is_dir() {
            let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
            mount(Some("tmpfs"), path.as_str(), Some("tmpfs"), flags, Some("size=0,mode=755"))
        } else {
            mount(Some("/dev/null"), path.as_str(), NONE, MsFlags::MS_BIND, NONE)
        };
        covered.map_err(|e| failed(path, e))?;
    }
    readonly_paths.iter().filter(|path| Path::new(path).exists()).try_for_each(|path| close(path))
}

/// Lays what is there over itself, with all that is mounted below, and nobody writes to that.
fn close(path: &str) -> Step<()> {
    let failed = |e: std::io::Error| format!("raw.oci: {path}: {e}");
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    let tree = open_tree(CWD, path, flags).map_err(|e| failed(e.into()))?;
    sys::set_mount(tree.as_fd(), libc::MOUNT_ATTR_RDONLY, None, true).map_err(failed)?;
    move_mount(&tree, "", CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).map_err(|e| failed(e.into()))
}
