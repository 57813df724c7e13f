//! A container's root file system: an overlay over the image that all its containers share.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, setns, unshare};
use rustix::fs::CWD;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags,
    fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount_change, move_mount,
    open_tree,
};
use serde::{Deserialize, Serialize};

use super::idmap::IdMap;
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
            let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
            return open_tree(CWD, &self.lower, flags).map_err(|e| step(&self.lower, e));
        }
        let mut lowers = Vec::new();
        for layer in &self.between {
            lowers.push(match layer.ids.filter(|ids| *ids != self.idmap) {
                None => directory(&layer.path)?,
                Some(ids) => {
                    let map = format!("{} {} {}\n", ids.base, self.idmap.base, ids.count);
                    let namespace = user_namespace::make(single, &map)?;
                    mapped(&layer.path, namespace.as_fd())?
                }
            });
        }
        lowers.push(if self.map_ids {
            mapped(&self.lower, user_namespace)?
        } else {
            directory(&self.lower)?
        });
        let (upper, work) = (directory(&self.upper)?, directory(&self.work)?);
        let overlay = |error: rustix::io::Errno| format!("overlay: {error}");
        let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).map_err(overlay)?;
        // By descriptor, as a path may hold characters that have a meaning to the overlay.
        let path = |fd: &OwnedFd| format!("/proc/self/fd/{}", fd.as_raw_fd());
        let all = lowers.iter().map(path).collect::<Vec<_>>().join(":");
        if all.len() < LONGEST {
            fsconfig_set_string(&context, "lowerdir", all).map_err(overlay)?;
        } else {
            for lower in &lowers {
                fsconfig_set_string(&context, "lowerdir+", path(lower)).map_err(|e| {
                    format!("overlay of {} layers: {e}; Linux has that since 6.5", lowers.len())
                })?;
            }
        }
        for (key, layer) in [("upperdir", &upper), ("workdir", &work)] {
            fsconfig_set_string(&context, key, path(layer)).map_err(overlay)?;
        }
        if sys::in_first_user_namespace() {
            fsconfig_set_string(&context, "redirect_dir", "on").map_err(overlay)?;
        } else {
            // Its own attributes are then in a name space that others than the host's root may use.
            // Such attributes could be forged, so that directories cannot be redirected.
            fsconfig_set_flag(&context, "userxattr").map_err(overlay)?;
        }
        fsconfig_create(&context).map_err(|e| overlay(e) + &log(context.as_fd()))?;
        fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_NODEV).map_err(overlay)
    }
}

/// A detached, id-mapped copy of the mount at a directory.
pub fn map_ids(path: &Path, user_namespace: BorrowedFd<'_>) -> Step<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = open_tree(CWD, path, flags).map_err(|e| format!("{}: {e}", path.display()))?;
    sys::map_mount_ids(tree.as_fd(), user_namespace)
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
