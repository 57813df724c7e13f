//! Mounts only this process and its children see, and the overlay a build works on.

use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, unshare};
use rustix::fs::{CWD, XattrFlags, removexattr, setxattr};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, UnmountFlags,
    fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount_change, move_mount,
    unmount,
};

use crate::mounting::{directory, log};
use crate::{Error, Result};

/// Says that this process has a mount namespace of its own: what it mounts is not in the host's
/// table and goes with its last process.
#[derive(Debug)]
pub struct PrivateMounts(());

impl PrivateMounts {
    /// Leaves the caller's mount namespace for a copy, into which the host's later mounts still come.
    /// Must be called while the process has a single thread and the right to mount, so after
    /// [`become_root`](super::userns::become_root).
    ///
    /// # Errors
    /// When the process has threads already, or the kernel refuses.
    pub fn enter() -> Result<Self> {
        let tasks = Path::new("/proc/self/task");
        if fs::read_dir(tasks).map_err(Error::io(tasks))?.count() != 1 {
            let busy = std::io::Error::other("the process has several threads already");
            return Err(Error::io("mount namespace")(busy));
        }
        unshare(CloneFlags::CLONE_NEWNS).map_err(|e| Error::io("mount namespace")(e.into()))?;
        let flags = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
        mount_change("/", flags).map_err(|e| Error::io("/")(e.into()))?;
        Ok(Self(()))
    }

    /// Mounts `upper` over `lower` at `target`. `work` is scratch space beside `upper`; all must be
    /// directories that exist, and nobody may write to `lower` meanwhile.
    ///
    /// Hard links of `lower` stay links when one of their names is written to. What is not asked
    /// for is sync: after a crash of the machine, `upper` is worth nothing.
    ///
    /// # Errors
    /// When the kernel or a file system cannot do this; the message says which step.
    pub fn overlay(&self, lower: &Path, upper: &Path, work: &Path, target: &Path) -> Result<Overlay> {
        let failed = |reason: String| Error::Setup { rootfs: target.into(), reason };
        let notes = Notes::at(upper).map_err(|e| failed(format!("{}: {e}", upper.display())))?;
        mount(lower, upper, work, target, notes).map_err(failed)?;
        let mounted = Overlay { target: target.into() };
        // Asked for what a file system cannot do, the kernel does without it.
        if !keeps_links(target) {
            return Err(failed("overlay: this file system cannot keep hard links".into()));
        }
        Ok(mounted)
    }
}

/// A mounted overlay; dropping it unmounts it.
#[derive(Debug)]
pub struct Overlay {
    target: PathBuf,
}

impl Drop for Overlay {
    fn drop(&mut self) {
        let _ = unmount(&self.target, UnmountFlags::DETACH);
    }
}

/// Where an overlay notes what it cannot express in files.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Notes {
    /// In attributes only the machine's root may set.
    Trusted,
    /// In those of users, as root of a user namespace has to. The kernel then refuses to rename
    /// directories of the lower layer; programs move their contents instead.
    User,
}

impl Notes {
    /// Finds out by doing it.
    fn at(upper: &Path) -> Result<Self, Errno> {
        let works = |name: &str| {
            setxattr(upper, name, b"", XattrFlags::empty()).and_then(|()| removexattr(upper, name))
        };
        works("trusted.millstream")
            .map(|()| Self::Trusted)
            .or_else(|_| works("user.millstream").map(|()| Self::User))
    }
}

/// Whether the overlay that was just mounted keeps hard links when it copies up.
fn keeps_links(target: &Path) -> bool {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let last = table.lines().rfind(|line| line.contains(" - overlay "));
    let by_default =
        fs::read_to_string("/sys/module/overlay/parameters/index").is_ok_and(|text| text.starts_with('Y'));
    // Shown is only what differs from the default.
    last.is_some_and(|line| {
        let place = line.split(' ').nth(4).unwrap_or_default().replace("\\040", " ");
        let options = line.rsplit(' ').next().unwrap_or_default();
        let has = |option: &str| options.split(',').any(|word| word == option);
        Path::new(&place) == target && (has("index=on") || by_default && !has("index=off"))
    })
}

fn mount(lower: &Path, upper: &Path, work: &Path, target: &Path, notes: Notes) -> Result<(), String> {
    let failed = |error: Errno| format!("overlay: {error}");
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).map_err(failed)?;
    let set = |key: &str, value: &str| {
        fsconfig_set_string(&context, key, value).map_err(|e| format!("overlay: {key}: {e}"))
    };
    let layers = [("lowerdir", lower), ("upperdir", upper), ("workdir", work)];
    let layers = layers
        .into_iter()
        .map(|(key, path)| Ok((key, directory(path)?)))
        .collect::<Result<Vec<_>, String>>()?;
    for (key, layer) in &layers {
        // By descriptor, as a path may hold characters that have a meaning to the overlay.
        set(key, &format!("/proc/self/fd/{}", layer.as_raw_fd()))?;
    }
    set("index", "on")?;
    if notes == Notes::Trusted {
        set("redirect_dir", "on")?;
        set("metacopy", "off")?;
    } else {
        fsconfig_set_flag(&context, "userxattr").map_err(failed)?;
    }
    // Since Linux 5.10; without it a build is slower, not wrong.
    let _ = fsconfig_set_flag(&context, "volatile");
    fsconfig_create(&context).map_err(|e| failed(e) + &log(context.as_fd()))?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NODEV;
    let mounted = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes).map_err(failed)?;
    move_mount(&mounted, "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).map_err(failed)
}
