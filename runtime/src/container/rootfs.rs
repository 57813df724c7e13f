//! A container's root file system: an overlay over the image that all its containers share.

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, setns, unshare};
use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount,
    mount_change, move_mount, open_tree,
};
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};
use serde::{Deserialize, Serialize};

use super::idmap::IdMap;
use super::ids::Ids;
use super::quota;
use super::sys::{self, SingleThread};
use super::user_namespace;
use crate::mounting::{directory, log};

/// A layer that is never written to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// Its directory.
    pub path: PathBuf,
    /// The host's ids its files have, if these are another container's, which the mount then maps.
    pub ids: Option<IdMap>,
}

/// Where the layers are.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Layers {
    /// The image, never written to.
    pub lower: PathBuf,
    /// Whether the image has its own ids, which the mount then maps; else they are the container's
    /// host ids already.
    pub map_ids: bool,
    /// Whether there is no overlay: `lower` is the root file system itself.
    pub plain: bool,
    /// What was changed before a snapshot or a copy was made, the latest first.
    pub between: Vec<Layer>,
    /// The container's ids on the host.
    pub idmap: IdMap,
    /// Those it has in this run instead, while its files keep those of `idmap`.
    #[serde(default)]
    pub ids: Option<Ids>,
    /// The container's own id, for which what it writes counts.
    pub id: String,
    /// What the container changed.
    pub upper: PathBuf,
    /// The overlay's scratch space, on the same file system.
    pub work: PathBuf,
}

/// What the kernel takes as one value, in bytes.
const LONGEST: usize = 256;

type Step<T> = Result<T, String>;

impl Layers {
    /// Mounts them for containers in `user_namespace` and returns the mount, attached nowhere. The
    /// caller's mounts stay as they are.
    ///
    /// # Errors
    /// Which step failed and why.
    pub fn mount(&self, single: &SingleThread, user_namespace: BorrowedFd<'_>) -> Step<OwnedFd> {
        let failed = |what: &str, error: String| format!("{what}: {error}");
        // The overlay takes only layers that are attached in its mounter's namespace. They are
        // attached in a private one, and live on inside the overlay when that is left again.
        let home = File::open("/proc/self/ns/mnt").map_err(|e| failed("mount namespace", e.to_string()))?;
        unshare(CloneFlags::CLONE_NEWNS).map_err(|e| failed("mount namespace", e.to_string()))?;
        let mounted = self.mount_here(single, user_namespace);
        // Nobody may enter the mounts of a user namespace above.
        if sys::in_first_user_namespace() {
            setns(&home, CloneFlags::CLONE_NEWNS).map_err(|e| failed("mount namespace", e.to_string()))?;
        }
        mounted
    }

    fn mount_here(&self, single: &SingleThread, user_namespace: BorrowedFd<'_>) -> Step<OwnedFd> {
        let step = |what: &Path, error: rustix::io::Errno| format!("{}: {error}", what.display());
        let root = Path::new("/");
        mount_change(root, MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
            .map_err(|e| step(root, e))?;
        if self.plain {
            if let Some(ids) = &self.ids {
                let namespace = user_namespace::make(single, &ids.over(self.idmap))?;
                return map_ids(&self.lower, namespace.as_fd());
            }
            let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
            return open_tree(CWD, &self.lower, flags).map_err(|e| step(&self.lower, e));
        }
        let mut lowers = Vec::new();
        for layer in &self.between {
            lowers.push(self.layer(single, &layer.path, layer.ids.unwrap_or(self.idmap))?);
        }
        lowers.push(if self.map_ids {
            mapped(&self.lower, user_namespace)?
        } else {
            self.layer(single, &self.lower, self.idmap)?
        });
        if let Some(ids) = &self.ids {
            self.map_changes(single, ids)?;
        }
        let (upper, work) = (directory(&self.upper)?, directory(&self.work)?);
        // By descriptor, as a path may hold characters that have a meaning to the overlay.
        let path = |fd: &OwnedFd| format!("/proc/self/fd/{}", fd.as_raw_fd());
        let paths: Vec<_> = lowers.iter().map(path).collect();
        let mut options = vec![("upperdir", path(&upper)), ("workdir", path(&work))];
        let mut flags = Vec::new();
        if sys::in_first_user_namespace() {
            options.push(("redirect_dir", "on".into()));
        } else {
            // Its own attributes are then in a name space that others than the host's root may use.
            // Such attributes could be forged, so that directories cannot be redirected.
            flags.push("userxattr");
        }
        let changes = self.upper.parent().unwrap_or(&self.upper);
        let _room = quota::Unlimited::new(changes, &self.id);
        let _rights = WithoutResources::new().map_err(|e| step(root, e))?;
        overlay(&paths, &options, &flags, &self.lower)
    }

    /// Maps `upper` and `work` as one mount: the overlay wants both on the same one.
    fn map_changes(&self, single: &SingleThread, ids: &Ids) -> Step<()> {
        let Some(both) = self.upper.parent() else { return Err("nowhere to write changes".into()) };
        let (maps, [uid, gid]) = ids.over_with_root(self.idmap);
        // What the kernel left there may belong to an id that is not mapped now.
        let fresh = match fs::remove_dir_all(&self.work) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => fs::create_dir(&self.work),
        };
        fresh
            .and_then(|()| chown(&self.work, Some(uid), Some(gid)))
            .map_err(|e| format!("{}: {e}", self.work.display()))?;
        let changes = mapped(both, user_namespace::make(single, &maps)?.as_fd());
        changes.map(drop).map_err(|e| format!("{e}; this file system keeps a container to its own ids"))
    }

    /// A layer whose files have the ids of `disk`.
    fn layer(&self, single: &SingleThread, path: &Path, disk: IdMap) -> Step<OwnedFd> {
        match &self.ids {
            None if disk == self.idmap => directory(path),
            ids => {
                let ids = ids.clone().unwrap_or_else(|| self.idmap.into());
                mapped(path, user_namespace::make(single, &ids.over(disk))?.as_fd())
            }
        }
    }
}

/// Whoever mounts an overlay lends it its rights for all that is written there. With this one, neither
/// limits of the disk nor the blocks a file system keeps for root would hold against a container.
struct WithoutResources(CapabilitySets);

impl WithoutResources {
    fn new() -> rustix::io::Result<Self> {
        let before = capabilities(None)?;
        let effective = before.effective - CapabilitySet::SYS_RESOURCE;
        set_capabilities(None, CapabilitySets { effective, ..before })?;
        Ok(Self(before))
    }
}

impl Drop for WithoutResources {
    fn drop(&mut self) {
        let _ = set_capabilities(None, self.0);
    }
}

/// An overlay, attached nowhere. Older kernels make it at `place` first.
fn overlay(lowers: &[String], options: &[(&str, String)], flags: &[&str], place: &Path) -> Step<OwnedFd> {
    let failed = |error: rustix::io::Errno| format!("overlay of {} layers: {error}", lowers.len());
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).map_err(failed)?;
    let all = lowers.join(":");
    let one_by_one = all.len() >= LONGEST;
    if one_by_one {
        for lower in lowers {
            fsconfig_set_string(&context, "lowerdir+", lower.as_str()).map_err(failed)?;
        }
    } else {
        fsconfig_set_string(&context, "lowerdir", all.as_str()).map_err(failed)?;
    }
    for (key, value) in options {
        fsconfig_set_string(&context, *key, value.as_str()).map_err(failed)?;
    }
    for flag in flags {
        fsconfig_set_flag(&context, *flag).map_err(failed)?;
    }
    match fsconfig_create(&context) {
        // `lowerdir+` is of Linux 6.5; kernels before say so only here.
        Err(Errno::INVAL) if one_by_one => {
            return overlay_of_old(&all, options, flags, place).map_err(failed);
        }
        other => other.map_err(|e| failed(e) + &log(context.as_fd()))?,
    }
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_NODEV).map_err(failed)
}

/// The same by mount(2), whose options may be a page long altogether.
fn overlay_of_old(
    lowers: &str,
    options: &[(&str, String)],
    flags: &[&str],
    place: &Path,
) -> rustix::io::Result<OwnedFd> {
    let options = options.iter().map(|(key, value)| format!("{key}={value}"));
    let all: Vec<_> = [format!("lowerdir={lowers}")]
        .into_iter()
        .chain(options)
        .chain(flags.iter().map(|flag| (*flag).to_owned()))
        .collect();
    let all = CString::new(all.join(",")).map_err(|_| Errno::INVAL)?;
    mount("overlay", place, "overlay", MountFlags::NODEV, all.as_c_str())?;
    open_tree(CWD, place, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)
}

/// A detached, id-mapped copy of the mount at a directory.
pub fn map_ids(path: &Path, user_namespace: BorrowedFd<'_>) -> Step<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = open_tree(CWD, path, flags).map_err(|e| format!("{}: {e}", path.display()))?;
    sys::set_mount(tree.as_fd(), 0, Some(user_namespace), false)
        .map_err(|e| format!("mapping the ids of {}: {e}", path.display()))?;
    Ok(tree)
}

/// The same, attached over itself.
fn mapped(path: &Path, user_namespace: BorrowedFd<'_>) -> Step<OwnedFd> {
    let mount = map_ids(path, user_namespace)?;
    move_mount(&mount, "", CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .map_err(|e| format!("{}: {e}", path.display()))?;
    Ok(mount)
}
