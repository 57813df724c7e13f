//! How much of the disk a container may take, where the file system counts: by *project* on ext4 and
//! XFS that are mounted with `prjquota`, by group on btrfs with quotas. Either has a number made of the
//! container's id.

mod groups;
mod projects;

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

pub use self::groups::of as group;
use super::config::devices::Devices;
use super::record::{Base, Config};
use super::runtime::Runtime;
use super::{changes, devices, sys};
use crate::network::Who;

/// Where the administrator's own projects and groups are not.
const FIRST: u32 = 1 << 30;
const HOW: &str = "ext4 (made with -O quota,project) and XFS count when mounted with prjquota, \
                   btrfs after: btrfs quota enable";

/// The limit among a container's devices: the device's name, and bytes.
fn wanted(devices: &Devices) -> Option<(&str, u64)> {
    let (name, device) = devices::root(devices)?;
    Some((name, millstream_image::size::parse(device.get("size")?)?))
}

fn number(id: &str) -> u32 {
    FIRST | (crate::network::tools::hash(id) as u32 & (FIRST - 1))
}

/// Lets a fresh place for changes count for its container, where anything counts.
pub fn mark(directory: &Path, config: &Config) {
    let _ = Place::of(directory, config).mark_all(directory, config);
}

/// Sets the limit of a container that is about to start. Returns why it is not kept.
pub fn limit(directory: &Path, config: &Config, devices: &Devices) -> Option<String> {
    let Some((device, bytes)) = wanted(devices) else {
        forget(directory, config);
        return None;
    };
    let place = Place::of(directory, config);
    let kept = place.mark_all(directory, config).and_then(|()| place.set(config, Some(bytes)));
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
        let place = Place::of(directory, config);
        if !place.is_marked(config) {
            return Some(format!("device {device}: size is looked at with the next start"));
        }
        let set = place.set(config, Some(bytes));
        set.err().map(|reason| format!("device {device}: size is not kept: {reason}"))
    }
}

/// Takes the limit away.
pub fn forget(directory: &Path, config: &Config) {
    let place = Place::of(directory, config);
    if place.is_marked(config) {
        let _ = place.set(config, None);
    }
}

/// The same for a container that goes for good.
pub fn remove(directory: &Path, config: &Config) {
    forget(directory, config);
    // Layers would count on, and blocks shared with them cannot be taken off at once.
    if let Place::Subvolume(changes) = Place::of(directory, config)
        && config.layers.is_empty()
    {
        let _ = groups::remove(&changes, &config.id);
    }
}

/// The bytes a container may take, as the kernel has it.
pub fn of(directory: &Path, config: &Config) -> Option<u64> {
    let place = Place::of(directory, config);
    if place.is_marked(config) { place.limit(config) } else { None }
}

/// What a container writes to, and how that is counted.
enum Place {
    /// Files of a project.
    Files(PathBuf),
    /// A subvolume of a group.
    Subvolume(PathBuf),
}

impl Place {
    fn of(directory: &Path, config: &Config) -> Self {
        let changes = changes::of(directory);
        if matches!(config.base, Base::Plain { .. }) {
            Self::Files(directory.join("rootfs"))
        } else if changes::is_subvolume(&changes) {
            Self::Subvolume(changes)
        } else {
            Self::Files(changes::upper(&changes))
        }
    }

    fn is_marked(&self, config: &Config) -> bool {
        match self {
            Self::Files(top) => projects::is_marked(top, &config.id),
            Self::Subvolume(changes) => groups::of(changes, &config.id).is_some(),
        }
    }

    fn mark_all(&self, directory: &Path, config: &Config) -> Result<(), String> {
        match self {
            Self::Files(top) => projects::mark_all(top, directory, &config.id),
            Self::Subvolume(changes) => {
                groups::mark_all(changes, &config.id).map_err(|error| refused(changes, &error))
            }
        }
    }

    fn set(&self, config: &Config, bytes: Option<u64>) -> Result<(), String> {
        let (place, set) = match self {
            Self::Files(top) => {
                let set = |dir: File| sys::set_disk_limit(dir.as_fd(), number(&config.id), bytes);
                (top, changes::open(top).and_then(set))
            }
            Self::Subvolume(changes) => (changes, groups::set_limit(changes, &config.id, bytes)),
        };
        set.map_err(|error| refused(place, &error))
    }

    fn limit(&self, config: &Config) -> Option<u64> {
        match self {
            Self::Files(top) => sys::disk_limit(changes::open(top).ok()?.as_fd(), number(&config.id)).ok()?,
            Self::Subvolume(changes) => groups::limit(changes, &config.id),
        }
    }
}

/// Takes the limit of changes in a subvolume away until this is dropped: where they have used it up, the
/// kernel gives an overlay no room for what it needs itself, whoever mounts it.
pub struct Unlimited<'a>(Option<(&'a Path, &'a str, u64)>);

impl<'a> Unlimited<'a> {
    pub fn new(changes: &'a Path, id: &'a str) -> Self {
        let limit = changes::is_subvolume(changes).then(|| groups::limit(changes, id)).flatten();
        let lifted = limit.filter(|_| groups::set_limit(changes, id, None).is_ok());
        Self(lifted.map(|bytes| (changes, id, bytes)))
    }
}

impl Drop for Unlimited<'_> {
    fn drop(&mut self) {
        if let Some((changes, id, bytes)) = self.0 {
            let _ = groups::set_limit(changes, id, Some(bytes));
        }
    }
}

fn refused(place: &Path, error: &io::Error) -> String {
    if !sys::in_first_user_namespace() {
        return "only root can limit the disk".into();
    }
    match error.raw_os_error() {
        // Without projects, without quotas, quotas that are off.
        Some(
            libc::ENOTTY | libc::EOPNOTSUPP | libc::ENOSYS | libc::ESRCH | libc::EINVAL | libc::ENOTCONN,
        ) => {
            format!("the file system of {} does not count for containers; {HOW}", place.display())
        }
        _ => format!("{}: {error}", place.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_the_containers_own() {
        assert_ne!(number("a"), number("b"));
        assert!(number("a") >= FIRST && number("a") < FIRST * 2);
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
