//! System calls no library wraps as needed here. The only `unsafe` code of containers.
#![allow(unsafe_code)]

pub mod btrfs;

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;

use nix::unistd::Pid;

/// Outcome of [`fork`], as the process that continues sees it.
pub enum Fork {
    /// The caller; the child's id.
    Parent(Pid),
    /// The new process.
    Child,
}

/// Says that this process has one thread, as those started by this program for containers do.
pub struct SingleThread(());

impl SingleThread {
    /// Looks. Whoever holds the answer starts no threads afterwards.
    pub fn check() -> io::Result<Self> {
        match fs::read_dir("/proc/self/task")?.count() {
            1 => Ok(Self(())),
            _ => Err(io::Error::other("a process with several threads cannot be copied")),
        }
    }
}

/// Starts a copy of this process, in new namespaces when `flags` (`CLONE_NEW…`) say so. With other
/// threads, the copy could meet locks that nobody will ever release.
pub fn fork(_: &SingleThread, flags: libc::c_int) -> io::Result<Fork> {
    let flags = libc::c_long::from(flags | libc::SIGCHLD);
    // SAFETY: without CLONE_VM and with no stack given this is fork(2), and the process has
    // a single thread. The unused arguments are null in the order of every architecture.
    match unsafe { libc::syscall(libc::SYS_clone, flags, 0_usize, 0_usize, 0_usize, 0_usize) } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Fork::Child),
        pid => Ok(Fork::Parent(Pid::from_raw(pid as libc::pid_t))),
    }
}

/// Ends a copy of a process: what the original has yet to write, it writes itself.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: nothing of this process is used any more.
    unsafe { libc::_exit(code) }
}

/// Gives the kernel back what is free of the heap.
pub fn release_memory() {
    // SAFETY: what is allocated stays.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0)
    };
}

/// Whether this process is in the user namespace of the machine itself, which has a fixed inode.
pub fn in_first_user_namespace() -> bool {
    const INODE: u64 = 0xEFFF_FFFD;
    fs::metadata("/proc/self/ns/user").is_ok_and(|namespace| namespace.ino() == INODE)
}

/// This process's user as the host, or the namespace above, knows it.
pub fn outer_uid() -> u32 {
    let uid = nix::unistd::geteuid().as_raw();
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let extent = |line: &str| {
        let mut numbers = line.split_ascii_whitespace().map(|word| word.parse::<u32>().ok());
        let (inside, outside, count) = (numbers.next()??, numbers.next()??, numbers.next()??);
        uid.checked_sub(inside).filter(|offset| *offset < count).map(|offset| outside + offset)
    };
    map.lines().find_map(extent).unwrap_or(uid)
}

/// Gives a detached mount attributes (`MOUNT_ATTR_…`) and the id map of a user namespace; the mounts
/// below it too, if `recursive`.
pub fn set_mount(
    tree: BorrowedFd<'_>,
    attributes: u64,
    user_namespace: Option<BorrowedFd<'_>>,
    recursive: bool,
) -> io::Result<()> {
    let attributes = libc::mount_attr {
        attr_set: attributes | user_namespace.map_or(0, |_| libc::MOUNT_ATTR_IDMAP),
        attr_clr: 0,
        propagation: 0,
        userns_fd: user_namespace.map_or(0, |namespace| namespace.as_raw_fd() as u64),
    };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a C string, the structure is valid for the size given, and both
    // descriptors are open for the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attributes,
            size_of_val(&attributes),
        )
    };
    outcome(result)
}

/// Sends a signal by its number, which may be a real-time one.
pub fn pidfd_send_signal(process: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: the descriptor is open for the call, and a null siginfo is allowed.
    outcome(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, process.as_raw_fd(), signal, 0_usize, 0) })
}

/// Leaves the caller's session keyring for a new, empty one.
pub fn new_session_keyring() -> io::Result<()> {
    const JOIN_SESSION_KEYRING: libc::c_long = 1;
    // SAFETY: a null name asks for an anonymous keyring; nothing else is read.
    outcome(unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, 0_usize) })
}

/// Installs a seccomp filter, without `no_new_privs`: the caller needs CAP_SYS_ADMIN in its user
/// namespace.
pub fn set_seccomp_filter(program: &[libc::sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(io::Error::other)?,
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: the kernel copies `len` instructions from `filter`, which outlives the call.
    outcome(unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) })
}

/// Brings an interface of this network namespace up.
pub fn interface_up(name: &str) -> io::Result<()> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    // SAFETY: ifreq is plain data for which zeros are a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().take(libc::IFNAMSIZ - 1).zip(name.as_bytes()) {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads an ifreq.
    outcome(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) }.into())
}

/// Closes every descriptor but the standard ones: what the caller had open must not reach a
/// container. For the very start of a program, when none of them has an owner yet.
pub fn close_inherited() {
    // SAFETY: no value of this program owns a descriptor yet. Old kernels refuse; then those
    // without close-on-exec are still marked before anything of a container is executed.
    unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) };
}

/// Marks every descriptor from `first` on to be closed by exec.
pub fn close_on_exec_from(first: libc::c_uint) -> io::Result<()> {
    // SAFETY: descriptors are only marked, none is closed under its owner.
    let result =
        unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    outcome(result)
}

/// Sets every signal to its default and unblocks all: what the caller ignored or blocked must not
/// reach a container.
pub fn reset_signals() -> io::Result<()> {
    for signal in 1..=libc::SIGRTMAX() {
        // SAFETY: SIG_DFL is always a valid disposition. Signals that have none (KILL, STOP and the
        // C library's own) are refused, which is as good.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    nix::sys::signal::SigSet::empty().thread_set_mask().map_err(Into::into)
}

/// As the kernel has it for `FS_IOC_FSGETXATTR`.
#[repr(C)]
struct Attributes {
    flags: u32,
    sizes: [u32; 2],
    project: u32,
    more: [u32; 3],
}

const GET_ATTRIBUTES: rustix::ioctl::Opcode = rustix::ioctl::opcode::read::<Attributes>(b'X', 31);
const SET_ATTRIBUTES: rustix::ioctl::Opcode = rustix::ioctl::opcode::write::<Attributes>(b'X', 32);
/// What is made in such a directory has its project.
const INHERIT: u32 = 0x200;

fn attributes(file: BorrowedFd<'_>) -> io::Result<Attributes> {
    // SAFETY: the operation fills in the structure, whose size is part of its number.
    unsafe {
        let get = rustix::ioctl::Getter::<GET_ATTRIBUTES, Attributes>::new();
        rustix::ioctl::ioctl(file, get).map_err(Into::into)
    }
}

/// The project a file system counts a file or directory for.
pub fn project(file: BorrowedFd<'_>) -> io::Result<u32> {
    attributes(file).map(|found| found.project)
}

/// Gives a file, or a directory and what will be made in it, another project.
pub fn set_project(file: BorrowedFd<'_>, project: u32, directory: bool) -> io::Result<()> {
    let mut wanted = attributes(file)?;
    wanted.project = project;
    wanted.flags |= if directory { INHERIT } else { 0 };
    // SAFETY: the operation reads the structure, whose size is part of its number.
    unsafe {
        let set = rustix::ioctl::Setter::<SET_ATTRIBUTES, Attributes>::new(wanted);
        rustix::ioctl::ioctl(file, set).map_err(Into::into)
    }
}

/// Quotas of projects, on the file system of a file: `quotactl_fd`, of Linux 5.14.
fn quota(
    file: BorrowedFd<'_>,
    command: libc::c_int,
    project: u32,
    quota: &mut libc::dqblk,
) -> io::Result<()> {
    const PROJECTS: libc::c_int = 2;
    let command = libc::QCMD(command, PROJECTS);
    // SAFETY: the structure is the one that both commands used here read or fill in.
    outcome(unsafe {
        libc::syscall(libc::SYS_quotactl_fd, file.as_raw_fd(), command, project, std::ptr::from_mut(quota))
    })
}

/// Limits what a project takes to so many bytes, or not at all.
pub fn set_disk_limit(file: BorrowedFd<'_>, project: u32, bytes: Option<u64>) -> io::Result<()> {
    // SAFETY: plain data for which zeros are a value.
    let mut wanted: libc::dqblk = unsafe { std::mem::zeroed() };
    wanted.dqb_bhardlimit = bytes.map_or(0, |bytes| bytes.div_ceil(QUOTA_BLOCK));
    wanted.dqb_valid = libc::QIF_BLIMITS;
    quota(file, libc::Q_SETQUOTA, project, &mut wanted)
}

/// The bytes a project may take, if they are limited.
pub fn disk_limit(file: BorrowedFd<'_>, project: u32) -> io::Result<Option<u64>> {
    // SAFETY: plain data for which zeros are a value.
    let mut found: libc::dqblk = unsafe { std::mem::zeroed() };
    quota(file, libc::Q_GETQUOTA, project, &mut found)?;
    Ok(Some(found.dqb_bhardlimit * QUOTA_BLOCK).filter(|bytes| *bytes > 0))
}

/// Limits are counted in these, in bytes.
const QUOTA_BLOCK: u64 = 1024;

fn outcome(result: libc::c_long) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
