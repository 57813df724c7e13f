//! What a container's programs find mounted. Runs as the container's root in its mount namespace.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::{chdir, pivot_root};
use rustix::fs::CWD;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};

use super::lxcfs::Lxcfs;
use super::sys;

const NONE: Option<&str> = None;
/// Device nodes every program may expect; the host's, as a user namespace cannot make any.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
/// Files that tell about the host, or act on it.
const HIDDEN_FILES: [&str; 5] =
    ["/proc/kcore", "/proc/keys", "/proc/kmsg", "/proc/sysrq-trigger", "/proc/timer_list"];
const HIDDEN_DIRECTORIES: [&str; 6] = [
    "/sys/firmware",
    "/sys/fs/bpf",
    "/sys/fs/pstore",
    "/sys/kernel/debug",
    "/sys/kernel/security",
    "/sys/kernel/tracing",
];

type Step<T> = Result<T, String>;

/// Makes `root`, a mount attached nowhere, the root, and mounts what belongs into it. Afterwards
/// nothing of the host is reachable. For containers inside, nothing of `/proc` and `/sys` is covered:
/// the kernel lets a user namespace mount these only where they are seen whole.
/// With the host's network, `/sys` is the host's, as the kernel shows it to the owner of its network alone.
pub(crate) fn enter(root: &OwnedFd, nesting: bool, network_of_host: bool) -> Step<()> {
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    step("private mounts", mount(NONE, "/", NONE, private, NONE))?;
    let devices = DEVICES.map(|name| (name, open_device(name)));
    let lxcfs = (!nesting).then(Lxcfs::of_host);
    let sys = network_of_host.then(sys_of_host).transpose()?;
    // A mount point that is there on every host; it is left again at once.
    move_mount(root, "", CWD, "/proc", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .map_err(|e| format!("attaching the root file system: {e}"))?;
    step("root file system", chdir("/proc"))?;
    step("pivot_root", pivot_root(".", "."))?;
    for directory in ["/proc", "/sys", "/dev", "/run"] {
        mount_point(directory)?;
    }
    let plain = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    // The old root is stacked on the new one until these are mounted: a user namespace may only
    // mount what it can see already.
    step("/proc", mount(Some("proc"), "/proc", Some("proc"), plain, NONE))?;
    match &sys {
        Some(sys) => move_mount(sys, "", CWD, "/sys", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
            .map_err(|e| format!("/sys: {e}"))?,
        None => step("/sys", mount(Some("sysfs"), "/sys", Some("sysfs"), plain | MsFlags::MS_RDONLY, NONE))?,
    }
    step("old root", umount2(".", MntFlags::MNT_DETACH))?;
    step("root file system", chdir("/"))?;
    if network_of_host {
        // The host's cgroup2 may be there, over which the kernel mounts no other.
        tmpfs("/sys/fs/cgroup", plain, "size=4k")?;
    }
    step("/sys/fs/cgroup", mount(Some("cgroup2"), "/sys/fs/cgroup", Some("cgroup2"), plain, NONE))?;
    tmpfs("/dev", MsFlags::MS_NOSUID | MsFlags::MS_STRICTATIME, "mode=755,size=1m")?;
    for (name, device) in devices {
        let path = format!("/dev/{name}");
        attach(&device?, &path)?;
    }
    populate_dev().map_err(|e| format!("/dev: {e}"))?;
    let devpts = "newinstance,ptmxmode=0666,mode=620,gid=5";
    let quiet = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    step("/dev/pts", mount(Some("devpts"), "/dev/pts", Some("devpts"), quiet, Some(devpts)))?;
    tmpfs("/dev/shm", MsFlags::MS_NOSUID | MsFlags::MS_NODEV, "mode=1777")?;
    step("/dev/mqueue", mount(Some("mqueue"), "/dev/mqueue", Some("mqueue"), plain, NONE))?;
    tmpfs("/run", MsFlags::MS_NOSUID | MsFlags::MS_NODEV, "mode=755")?;
    if let Some(lxcfs) = lxcfs {
        lxcfs.show();
        hide(&HIDDEN_FILES, &HIDDEN_DIRECTORIES, plain)?;
    } else if network_of_host {
        hide(&[], &HIDDEN_DIRECTORIES, plain)?;
    }
    // As an init finds them on a machine of its own. Nothing is shared with the host.
    step("shared mounts", mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_SHARED, NONE))
}

/// Shows the console's slave as `/dev/console`.
pub(crate) fn console(slave: &OwnedFd) -> Step<()> {
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let tree = open_tree(slave, "", flags).map_err(|e| format!("/dev/console: {e}"))?;
    attach(&tree, "/dev/console")
}

fn step(what: &str, result: nix::Result<()>) -> Step<()> {
    result.map_err(|e| format!("{what}: {e}"))
}

fn tmpfs(path: &str, flags: MsFlags, options: &str) -> Step<()> {
    step(path, mount(Some("tmpfs"), path, Some("tmpfs"), flags, Some(options)))
}

fn open_device(name: &str) -> Step<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    open_tree(CWD, format!("/dev/{name}"), flags).map_err(|e| format!("the host's /dev/{name}: {e}"))
}

fn attach(tree: &OwnedFd, path: &str) -> Step<()> {
    File::create_new(path).map_err(|e| format!("{path}: {e}"))?;
    move_mount(tree, "", CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .map_err(|e| format!("{path}: {e}"))
}

/// A link here would put our mounts elsewhere in the container.
fn mount_point(path: &str) -> Step<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => Err(format!("the image's {path} is not a directory")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir(path).map_err(|e| format!("{path}: {e}"))
        }
        Err(error) => Err(format!("{path}: {error}")),
    }
}

fn populate_dev() -> io::Result<()> {
    let links = [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("ptmx", "pts/ptmx"),
    ];
    for (link, target) in links {
        symlink(target, Path::new("/dev").join(link))?;
    }
    ["/dev/pts", "/dev/shm", "/dev/mqueue"].into_iter().try_for_each(fs::create_dir)
}

/// The kernel guards these against a user namespace as well; this is the second lock.
fn hide(files: &[&str], directories: &[&str], plain: MsFlags) -> Step<()> {
    for file in files.iter().copied().filter(|file| Path::new(file).exists()) {
        step(file, mount(Some("/dev/null"), file, NONE, MsFlags::MS_BIND, NONE))?;
    }
    for directory in directories.iter().copied().filter(|dir| Path::new(dir).exists()) {
        tmpfs(directory, plain | MsFlags::MS_RDONLY, "size=0,mode=755")?;
    }
    Ok(())
}

/// The host's `/sys` with all that is mounted there, which cannot be left out; nobody writes to it.
fn sys_of_host() -> Step<OwnedFd> {
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    let tree = open_tree(CWD, "/sys", flags).map_err(|e| format!("the host's /sys: {e}"))?;
    let closed = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
    sys::set_mount(tree.as_fd(), closed | libc::MOUNT_ATTR_NOEXEC, None, true)
        .map_err(|e| format!("the host's /sys: {e}"))?;
    Ok(tree)
}
