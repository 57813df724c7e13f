//! How much of the disk a container may take, where the file system counts by *project*: ext4 and XFS
//! that are mounted with `prjquota`.
//!
//! Everything a container changes has its project, a number made of its id. New files inherit it, and
//! the kernel lets only the host's root change it. Layers keep it, so that snapshots count as well.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::config::devices::Devices;
use super::record::{Base, Config};
use super::runtime::Runtime;
use super::{devices, sys};
use crate::network::Who;

/// Where the administrator's own projects are not.
const FIRST: u32 = 1 << 30;
const HOW: &str = "ext4 (made with -O quota,project) and XFS count when mounted with prjquota";

/// The limit among a container's devices: the device's name, and bytes.
fn wanted(devices: &Devices) -> Option<(&str, u64)> {
    let (name, device) = devices::root(devices)?;
    Some((name, millstream_image::size::parse(device.get("size")?)?))
}

fn project(id: &str) -> u32 {
    FIRST | (crate::network::tools::hash(id) as u32 & (FIRST - 1))
}

/// Lets a fresh place for changes count for its container, where anything counts.
pub fn mark(config: &Config, places: [&Path; 2]) {
    for place in places {
        let _ = mark_one(place, config, true);
    }
}

/// Sets the limit of a container that is about to start. Returns why it is not kept.
pub fn limit(directory: &Path, config: &Config, devices: &Devices) -> Option<String> {
    let Some((device, bytes)) = wanted(devices) else {
        forget(directory, config);
        return None;
    };
    let kept = mark_all(directory, config).and_then(|()| set(directory, config, bytes));
    kept.err().map(|reason| format!("device {device}: size is not kept: {reason}"))
}

impl Runtime {
    /// Changes the limit of a container that runs. Returns why it is not kept.
    pub(super) fn follow_size(&self, who: &Who, devices: &Devices) -> Option<String> {
        let directory = &self.dir().join(who.name);
        let config = &Config::read(directory).ok()?;
        let Some((device, bytes)) = wanted(devices) else {
            forget(directory, config);
            return None;
        };
        if !is_marked(directory, config) {
            return Some(format!("device {device}: size is looked at with the next start"));
        }
        set(directory, config, bytes)
            .err()
            .map(|reason| format!("device {device}: size is not kept: {reason}"))
    }
}

/// Takes the limit away.
pub fn forget(directory: &Path, config: &Config) {
    if is_marked(directory, config)
        && let Ok(dir) = open(&top(directory, config))
    {
        let _ = sys::set_disk_limit(dir.as_fd(), project(&config.id), None);
    }
}

/// The bytes a container may take, as the kernel has it.
pub fn of(directory: &Path, config: &Config) -> Option<u64> {
    let dir = is_marked(directory, config).then(|| open(&top(directory, config)).ok())??;
    sys::disk_limit(dir.as_fd(), project(&config.id)).ok()?
}

fn set(directory: &Path, config: &Config, bytes: u64) -> Result<(), String> {
    let place = top(directory, config);
    let set = open(&place).and_then(|dir| sys::set_disk_limit(dir.as_fd(), project(&config.id), Some(bytes)));
    set.map_err(|error| refused(&place, &error))
}

fn refused(place: &Path, error: &io::Error) -> String {
    if !sys::in_first_user_namespace() {
        return "only root can limit the disk".into();
    }
    match error.raw_os_error() {
        // Without projects, without quotas, quotas that are off.
        Some(libc::ENOTTY | libc::EOPNOTSUPP | libc::ENOSYS | libc::ESRCH | libc::EINVAL) => {
            format!("the file system of {} does not count by projects; {HOW}", place.display())
        }
        _ => format!("{}: {error}", place.display()),
    }
}

fn is_marked(directory: &Path, config: &Config) -> bool {
    let found = open(&top(directory, config)).and_then(|dir| sys::project(dir.as_fd()));
    found.is_ok_and(|found| found == project(&config.id))
}

/// What it writes to.
fn top(directory: &Path, config: &Config) -> PathBuf {
    directory.join(if matches!(config.base, Base::Plain { .. }) { "rootfs" } else { "upper" })
}

/// Gives all that a container has changed its project; the top comes last, as it tells that all have it.
/// Nobody changes it meanwhile.
fn mark_all(directory: &Path, config: &Config) -> Result<(), String> {
    if is_marked(directory, config) {
        return Ok(());
    }
    let top = top(directory, config);
    let mut waiting = children(&top)?;
    waiting.push(directory.join("work"));
    while let Some(path) = waiting.pop() {
        let kind = fs::symlink_metadata(&path).map_err(|e| refused(&path, &e))?.file_type();
        // Others have no blocks, and cannot be opened.
        if kind.is_dir() || kind.is_file() {
            mark_one(&path, config, kind.is_dir())?;
        }
        if kind.is_dir() {
            waiting.extend(children(&path)?);
        }
    }
    mark_one(&top, config, true)
}

fn mark_one(path: &Path, config: &Config, directory: bool) -> Result<(), String> {
    let marked = open(path).and_then(|file| sys::set_project(file.as_fd(), project(&config.id), directory));
    marked.map_err(|error| refused(path, &error))
}

fn children(path: &Path) -> Result<Vec<PathBuf>, String> {
    let entries = fs::read_dir(path).map_err(|error| refused(path, &error))?;
    Ok(entries.flatten().map(|entry| entry.path()).collect())
}

/// Never through a link, and never waiting for the other end of something.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn projects_are_the_containers_own() {
        assert_ne!(project("a"), project("b"));
        assert!(project("a") >= FIRST && project("a") < FIRST * 2);
    }

    #[test]
    fn the_limit_is_the_root_devices() {
        let device = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        let root = device(&[("type", "disk"), ("path", "/"), ("size", "10MiB")]);
        let other = device(&[("type", "disk"), ("path", "/srv"), ("source", "/srv")]);
        let both = Devices::from([("a".into(), other), ("root".into(), root)]);
        assert_eq!(wanted(&both), Some(("root", 10 << 20)));
        assert_eq!(wanted(&Devices::new()), None);
    }
}
