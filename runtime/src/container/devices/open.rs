//! Opens what the host gives, on the host's side.
//!
//! A process of its own does it, in mounts of its own, so that nothing shows on the host. Its child, in
//! a user namespace, copies each mount: for the kernel they come from somebody more privileged then, so
//! that a container can neither make them writable nor look below what is mounted in them.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, chown};
use std::path::{Path, PathBuf};

use nix::sys::wait::waitpid;
use rustix::fs::{
    AtFlags, CWD, Dev, FileType, Mode, OFlags, ResolveFlags, chmodat, makedev, mknodat, openat2, statat,
};
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, mount, mount_change, move_mount,
    open_tree,
};
use serde::{Deserialize, Serialize};

use super::super::channel::Channel;
use super::super::confine::die_with_parent;
use super::super::ids::Ids;
use super::super::sys::{self, Fork, SingleThread};
use super::place::Placement;
use super::{Disk, Mount, Node, What};

/// Where trees are put while they are copied: a directory of every host.
const PLACE: &str = "/proc";

type Step<T> = Result<T, String>;

/// What could be opened.
#[derive(Default)]
pub struct Opened {
    /// Where each is to go, and the mount.
    pub trees: Vec<(Placement, OwnedFd)>,
    /// What was left out as the host has none, and why.
    pub notes: Vec<String>,
}

/// What the process that opens says.
#[derive(Serialize, Deserialize)]
enum Message {
    Tree(Placement),
    Done(Vec<String>),
    Failed(String),
}

/// Opens all for a container with these ids, `namespace` being its user namespace. The error names the
/// device.
pub fn open(mounts: &[Mount], ids: &Ids, namespace: BorrowedFd<'_>, single: &SingleThread) -> Step<Opened> {
    let mut opened = Opened::default();
    if mounts.is_empty() {
        return Ok(opened);
    }
    let (ours, theirs) = Channel::pair().map_err(|e| format!("socket: {e}"))?;
    let helper = match sys::fork(single, libc::CLONE_NEWNS).map_err(|e| format!("mount namespace: {e}"))? {
        Fork::Child => {
            drop(ours);
            let done = help(mounts, ids, namespace, single, &theirs);
            let last = done.map_or_else(Message::Failed, Message::Done);
            std::process::exit(i32::from(theirs.send(&last, None).is_err()))
        }
        Fork::Parent(helper) => helper,
    };
    drop(theirs);
    let ended = loop {
        match ours.receive() {
            Ok(Some((Message::Tree(placement), Some(tree)))) => opened.trees.push((placement, tree)),
            Ok(Some((Message::Done(notes), _))) => break Ok(notes),
            Ok(Some((Message::Failed(reason), _))) => break Err(reason),
            _ => break Err("the process that opens devices ended early".into()),
        }
    };
    let _ = waitpid(helper, None);
    opened.notes = ended?;
    Ok(opened)
}

/// What is there, before it is put where it is copied.
enum Found {
    Tree {
        tree: OwnedFd,
        directory: bool,
    },
    /// A node to be made.
    Make {
        kind: FileType,
        number: Dev,
        mode: u32,
        owner: (u32, u32),
    },
}

fn help(
    mounts: &[Mount],
    ids: &Ids,
    namespace: BorrowedFd<'_>,
    single: &SingleThread,
    channel: &Channel,
) -> Step<Vec<String>> {
    die_with_parent()?;
    // What a container mounts below a device must not come back to the host.
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .map_err(|e| format!("private mounts: {e}"))?;
    let (mut found, mut notes) = (Vec::new(), Vec::new());
    for mount in mounts {
        let one = match &mount.what {
            What::Disk(disk) => open_disk(disk, namespace),
            What::Node(node) => open_node(node, ids),
        };
        match one {
            Ok(one) => found.push((mount, one)),
            Err(reason) if mount.optional => notes.push(format!("no device {}: {reason}", mount.device)),
            Err(reason) => return Err(format!("device {}: {reason}", mount.device)),
        }
    }
    mount("tmpfs", PLACE, "tmpfs", MountFlags::NOSUID | MountFlags::NOEXEC, c"mode=755")
        .map_err(|e| format!("a place for devices: {e}"))?;
    let mut placements = Vec::new();
    for (number, (mount, one)) in found.into_iter().enumerate() {
        let directory = matches!(&one, Found::Tree { directory: true, .. });
        put(one, &place(number)).map_err(|e| format!("device {}: {e}", mount.device))?;
        let (device, path) = (mount.device.clone(), mount.path.clone());
        placements.push(Placement { device, path, directory });
    }
    let child = match sys::fork(single, libc::CLONE_NEWUSER | libc::CLONE_NEWNS) {
        Ok(Fork::Child) => {
            let sent = die_with_parent().and_then(|()| send(placements, channel));
            std::process::exit(i32::from(
                sent.is_err_and(|e| channel.send(&Message::Failed(e), None).is_ok()),
            ))
        }
        Ok(Fork::Parent(child)) => child,
        Err(error) => return Err(format!("user namespace: {error}")),
    };
    waitpid(child, None).map_err(|e| format!("waiting: {e}"))?;
    Ok(notes)
}

fn place(number: usize) -> PathBuf {
    Path::new(PLACE).join(number.to_string())
}

fn send(placements: Vec<Placement>, channel: &Channel) -> Step<()> {
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    for (number, placement) in placements.into_iter().enumerate() {
        let tree =
            open_tree(CWD, place(number), flags).map_err(|e| format!("device {}: {e}", placement.device))?;
        channel.send(&Message::Tree(placement), Some(&tree)).map_err(|e| format!("socket: {e}"))?;
    }
    Ok(())
}

fn put(found: Found, at: &Path) -> io::Result<()> {
    match found {
        Found::Tree { tree, directory } => {
            if directory {
                fs::create_dir(at)?;
            } else {
                File::create_new(at)?;
            }
            Ok(move_mount(&tree, "", CWD, at, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
        }
        Found::Make { kind, number, mode, owner } => {
            mknodat(CWD, at, kind, Mode::from(0o600), number)?;
            chown(at, Some(owner.0), Some(owner.1))?;
            // Whatever the umask is.
            Ok(chmodat(CWD, at, Mode::from(mode), AtFlags::empty())?)
        }
    }
}

fn open_disk(disk: &Disk, namespace: BorrowedFd<'_>) -> Step<Found> {
    let source = &disk.source;
    let failed = |error: Errno| format!("{}: {error}", source.display());
    // Whoever can put a link on the way, as a container below another of its disks, could choose
    // what is shown.
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let there =
        openat2(CWD, source, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve).map_err(|e| {
            let real = if e == Errno::LOOP { fs::canonicalize(source).ok() } else { None };
            real.map_or_else(
                || failed(e),
                |real| {
                    format!("{} leads over a symbolic link; set source={}", source.display(), real.display())
                },
            )
        })?;
    let kind = FileType::from_raw_mode(statat(&there, "", AtFlags::EMPTY_PATH).map_err(failed)?.st_mode);
    if !matches!(kind, FileType::Directory | FileType::RegularFile | FileType::Socket | FileType::Fifo) {
        return Err(format!(
            "{} is no directory, file or socket; unix-char and unix-block are for device nodes",
            source.display()
        ));
    }
    let mut flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    if disk.recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    let tree = open_tree(&there, "", flags).map_err(|e| match e {
        Errno::INVAL if !disk.recursive => format!(
            "{} has file systems mounted below it that an ordinary user cannot leave out; set recursive=true",
            source.display()
        ),
        _ => failed(e),
    })?;
    let readonly = if disk.readonly { libc::MOUNT_ATTR_RDONLY } else { 0 };
    sys::set_mount(tree.as_fd(), libc::MOUNT_ATTR_NODEV | readonly, None, disk.recursive)
        .map_err(|e| format!("{}: {e}", source.display()))?;
    if disk.shift {
        sys::set_mount(tree.as_fd(), 0, Some(namespace), disk.recursive).map_err(|e| no_shift(source, &e))?;
    }
    Ok(Found::Tree { tree, directory: kind == FileType::Directory })
}

fn no_shift(source: &Path, error: &io::Error) -> String {
    let hint = if sys::in_first_user_namespace() {
        "its file system cannot map ids; without shift, its files are those of the host's users"
    } else {
        "shift needs root of the host; raw.idmap gives a container your own id"
    };
    format!("{}: {error}: {hint}", source.display())
}

fn open_node(node: &Node, ids: &Ids) -> Step<Found> {
    let source = &node.source;
    let kind = if node.block { "block" } else { "character" };
    let real = fs::metadata(source);
    let number = match (&real, node.number) {
        (_, Some((major, minor))) => makedev(major, minor),
        (Ok(real), None) => {
            let right = if node.block {
                real.file_type().is_block_device()
            } else {
                real.file_type().is_char_device()
            };
            if !right {
                return Err(format!("{} is no {kind} device", source.display()));
            }
            real.rdev()
        }
        (Err(error), None) => return Err(format!("{}: {error}", source.display())),
    };
    if sys::in_first_user_namespace() {
        let mode = node.mode.or(real.ok().map(|real| real.mode() & 0o777)).unwrap_or(0o660);
        let (uid, gid) = (node.uid.unwrap_or(0), node.gid.unwrap_or(0));
        let no_id = |what: &str, id: u32| format!("the container has no {what} {id}");
        let owner =
            (ids.uid(uid).ok_or_else(|| no_id("uid", uid))?, ids.gid(gid).ok_or_else(|| no_id("gid", gid))?);
        let kind = if node.block { FileType::BlockDevice } else { FileType::CharacterDevice };
        return Ok(Found::Make { kind, number, mode, owner });
    }
    // Without root nobody makes nodes; the host's is shown as it is.
    if node.mode.is_some() || node.uid.is_some() || node.gid.is_some() {
        return Err(
            "mode, uid and gid need root of the host; without it, a node is as the host has it".into()
        );
    }
    if !real.is_ok_and(|real| real.rdev() == number) {
        return Err(format!(
            "{}: the host has no such {kind} device, and making one needs root",
            source.display()
        ));
    }
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = open_tree(CWD, source, flags).map_err(|e| format!("{}: {e}", source.display()))?;
    Ok(Found::Tree { tree, directory: false })
}
