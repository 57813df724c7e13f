//! The inside of a sandbox. Runs in a process of its own that has a single thread.
#![allow(unsafe_code)] // fork, in a process known to have one thread.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, wait, waitpid};
use nix::unistd::{ForkResult, Pid, chdir, chroot, execvpe, fchdir, fork, pivot_root, sethostname};

use super::{Exec, Request, SETUP_FAILED, Sandbox, emulation, userns};

const NONE: Option<&str> = None;
/// Device nodes every program may expect.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
const SCRIPT: &str = "/run/millstream-script";

type Step<T> = Result<T, String>;

/// Reads the request from standard input, carries it out and exits as the program did.
pub(crate) fn main() -> ! {
    let code = outer().unwrap_or_else(|reason| {
        eprintln!("{reason}");
        SETUP_FAILED
    });
    std::process::exit(code)
}

fn outer() -> Step<i32> {
    die_with_parent()?;
    let mut text = Vec::new();
    std::io::stdin().read_to_end(&mut text).map_err(|e| format!("reading the request: {e}"))?;
    let request: Request = serde_json::from_slice(&text).map_err(|e| format!("reading the request: {e}"))?;
    if request.sandbox.interpreter.as_ref().is_some_and(|interpreter| interpreter.new_namespace) {
        userns::enter_new().map_err(|e| e.to_string())?;
    }
    let mut flags = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC;
    if !request.sandbox.network {
        flags |= CloneFlags::CLONE_NEWNET;
    }
    unshare(flags).map_err(|e| format!("making namespaces: {e}"))?;
    // SAFETY: this process has a single thread.
    match unsafe { fork() }.map_err(|e| format!("fork: {e}"))? {
        ForkResult::Parent { child } => exit_code(child),
        ForkResult::Child => {
            let code = inner(&request).unwrap_or_else(|reason| {
                eprintln!("{reason}");
                SETUP_FAILED
            });
            std::process::exit(code)
        }
    }
}

/// The namespace's first process: prepares, starts the program and reaps what it leaves.
fn inner(request: &Request) -> Step<i32> {
    die_with_parent()?;
    enter(&request.sandbox)?;
    if let Some(script) = &request.exec.script {
        fs::write(SCRIPT, script).map_err(|e| format!("writing the script: {e}"))?;
        let executable = fs::Permissions::from_mode(0o700);
        fs::set_permissions(SCRIPT, executable).map_err(|e| format!("writing the script: {e}"))?;
    }
    let root = leave_root().map_err(|e| format!("chroot: {e}"))?;
    // SAFETY: this process has a single thread.
    match unsafe { fork() }.map_err(|e| format!("fork: {e}"))? {
        ForkResult::Child => {
            let reason = match fchdir(&root).and_then(|()| chroot(".")) {
                Ok(()) => exec(&request.sandbox, &request.exec),
                Err(error) => format!("chroot: {error}"),
            };
            eprintln!("{reason}");
            std::process::exit(127)
        }
        ForkResult::Parent { child } => reap(child),
    }
}

/// Moves this process, not the program, to another root than `/`, which is returned. So packages' scripts find out what
/// they would in a chroot, that there is no init they could talk to (`ischroot`, `systemctl`).
fn leave_root() -> nix::Result<OwnedFd> {
    let root = open_path(Path::new("/"))?;
    chroot("/proc")?;
    Ok(root)
}

fn reap(program: Pid) -> Step<i32> {
    loop {
        match wait() {
            Ok(WaitStatus::Exited(pid, code)) if pid == program => return Ok(code),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == program => return Ok(128 + signal as i32),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(format!("waiting: {error}")),
        }
    }
}

fn exit_code(child: Pid) -> Step<i32> {
    loop {
        match waitpid(child, None) {
            Ok(WaitStatus::Exited(_, code)) => return Ok(code),
            Ok(WaitStatus::Signaled(_, signal, _)) => return Ok(128 + signal as i32),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(format!("waiting: {error}")),
        }
    }
}

fn die_with_parent() -> Step<()> {
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(|e| format!("prctl: {e}"))
}

/// Makes the root file system this process's root, with /proc, /sys, /dev and /run of its own.
/// Mount points are resolved after the root has changed, so links in it lead nowhere else.
fn enter(sandbox: &Sandbox) -> Step<()> {
    let step = |what: &str, result: nix::Result<()>| result.map_err(|e| format!("{what}: {e}"));
    let root = sandbox.rootfs.as_path();
    step("private mounts", mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE))?;
    let devices: Vec<_> =
        DEVICES.iter().filter_map(|name| open_path(&Path::new("/dev").join(name)).ok()).collect();
    let binds = sandbox
        .binds
        .iter()
        .map(|bind| open_path(&bind.source).map_err(|e| format!("{}: {e}", bind.source.display())))
        .collect::<Step<Vec<_>>>()?;
    step("bind", mount(Some(root), root, NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE))?;
    step("chdir", chdir(root))?;
    // The old root is stacked below the new one and taken away from there; it must stay until
    // /sys has been mounted, as a user namespace may only mount what it can already see.
    for directory in ["proc", "sys", "dev", "run"] {
        let made = fs::create_dir(root.join(directory));
        if let Err(error) = made
            && error.kind() != std::io::ErrorKind::AlreadyExists
        {
            return Err(format!("/{directory}: {error}"));
        }
    }
    if let Some(interpreter) = &sandbox.interpreter {
        emulation::register(&interpreter.line, Path::new("proc"))?;
    }
    step("pivot_root", pivot_root(".", "."))?;
    let plain = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    step("/proc", mount(Some("proc"), "/proc", Some("proc"), plain, NONE))?;
    // The kernel's settings are the host's: programs in here may read them.
    let settings = Path::new("/proc/sys");
    step("/proc/sys", mount(Some(settings), settings, NONE, MsFlags::MS_BIND, NONE))?;
    step("/proc/sys", remount_read_only(settings))?;
    let sys = mount(Some("sysfs"), "/sys", Some("sysfs"), plain | MsFlags::MS_RDONLY, NONE);
    if sys.is_err() {
        // Without a network namespace of our own the kernel does not let us mount a fresh one.
        step("/sys", mount(Some("tmpfs"), "/sys", Some("tmpfs"), plain | MsFlags::MS_RDONLY, NONE))?;
    }
    let tmpfs = MsFlags::MS_NOSUID | MsFlags::MS_STRICTATIME;
    step("/dev", mount(Some("tmpfs"), "/dev", Some("tmpfs"), tmpfs, Some("mode=755")))?;
    step(
        "/run",
        mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some("mode=755")),
    )?;
    for (name, device) in DEVICES.iter().zip(&devices) {
        bind(device, &Path::new("/dev").join(name), false, true)?;
    }
    populate_dev().map_err(|e| format!("/dev: {e}"))?;
    for (settings, source) in sandbox.binds.iter().zip(&binds) {
        bind(source, &settings.target, settings.read_only, false)?;
    }
    if let Some(text) = &sandbox.resolv_conf {
        name_servers(text).map_err(|e| format!("/etc/resolv.conf: {e}"))?;
    }
    // Only now: a file system that is no longer mounted cannot be shown elsewhere.
    step("old root", umount2(".", MntFlags::MNT_DETACH))?;
    step("chdir", chdir("/"))?;
    step("hostname", sethostname(&sandbox.hostname))
}

fn open_path(path: &Path) -> nix::Result<OwnedFd> {
    use nix::fcntl::{OFlag, open};
    open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, nix::sys::stat::Mode::empty())
}

fn bind(source: &OwnedFd, target: &Path, read_only: bool, make: bool) -> Step<()> {
    let step = |result: nix::Result<()>| result.map_err(|e| format!("{}: {e}", target.display()));
    if make {
        File::create(target).map_err(|e| format!("{}: {e}", target.display()))?;
    }
    let source = format!("/proc/self/fd/{}", source.as_raw_fd());
    step(mount(Some(source.as_str()), target, NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE))?;
    if read_only { step(remount_read_only(target)) } else { Ok(()) }
}

/// Keeps the flags the mount has: in a user namespace they may not be taken away.
fn remount_read_only(target: &Path) -> nix::Result<()> {
    let now = nix::sys::statvfs::statvfs(target)?.flags().bits();
    let kept =
        MsFlags::from_bits_truncate(now) & (MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC);
    let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY | kept;
    mount(NONE, target, NONE, flags, NONE)
}

fn populate_dev() -> std::io::Result<()> {
    for (link, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "fd/0"),
        ("stdout", "fd/1"),
        ("stderr", "fd/2"),
        ("ptmx", "pts/ptmx"),
    ] {
        symlink(target, Path::new("/dev").join(link))?;
    }
    fs::create_dir("/dev/pts")?;
    fs::create_dir("/dev/shm")?;
    let plain = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    mount(Some("devpts"), "/dev/pts", Some("devpts"), plain, Some("newinstance,ptmxmode=0666,mode=620"))?;
    mount(Some("tmpfs"), "/dev/shm", Some("tmpfs"), plain | MsFlags::MS_NODEV, Some("mode=1777"))?;
    Ok(())
}

/// Makes what a link at `/etc/resolv.conf` names, where it leads into our own `/run`.
fn name_servers(text: &str) -> std::io::Result<()> {
    let Ok(target) = fs::read_link("/etc/resolv.conf") else { return Ok(()) };
    let mut path = PathBuf::from("/");
    for part in Path::new("/etc").join(target).components() {
        match part {
            Component::ParentDir => drop(path.pop()),
            part => path.push(part),
        }
    }
    if let Some(parent) = path.parent().filter(|parent| parent.starts_with("/run")) {
        fs::create_dir_all(parent)?;
        fs::write(&path, text)?;
    }
    Ok(())
}

/// Rights over the whole machine that no build needs: by handle (`DAC_READ_SEARCH`) any file of a
/// mounted file system can be opened, also outside of the root. Without them a build by root does what one
/// in a user namespace does.
fn drop_capabilities() -> rustix::io::Result<()> {
    use rustix::thread::{CapabilitySet, remove_capability_from_bounding_set};
    for capability in [
        CapabilitySet::DAC_READ_SEARCH,
        CapabilitySet::SYS_MODULE,
        CapabilitySet::SYS_RAWIO,
        CapabilitySet::SYS_TIME,
        CapabilitySet::SYS_BOOT,
        CapabilitySet::SYS_PACCT,
        CapabilitySet::SYSLOG,
        CapabilitySet::MKNOD,
        CapabilitySet::MAC_ADMIN,
        CapabilitySet::AUDIT_CONTROL,
    ] {
        remove_capability_from_bounding_set(capability)?;
    }
    Ok(())
}

/// Becomes the program; returns only to say why it could not.
fn exec(sandbox: &Sandbox, exec: &Exec) -> String {
    let text = |value: &str| CString::new(value).unwrap_or_default();
    let mut argv: Vec<_> = exec.argv.iter().map(|arg| text(arg)).collect();
    if exec.script.is_some() {
        argv.insert(0, text(SCRIPT));
    }
    let env: Vec<_> = exec.env.iter().map(|(key, value)| text(&format!("{key}={value}"))).collect();
    let Some(program) = argv.first().cloned() else { return "nothing to run".into() };
    if let Err(error) = File::open("/dev/null").and_then(|null| Ok(nix::unistd::dup2_stdin(&null)?)) {
        return format!("standard input: {error}");
    }
    // execvpe searches the PATH of this process.
    if let Some(path) = exec.env.get("PATH") {
        // SAFETY: this process has a single thread.
        unsafe { std::env::set_var("PATH", path) };
    }
    if let Err(error) = drop_capabilities() {
        return format!("capabilities: {error}");
    }
    if sandbox.no_fsync
        && let Err(error) = skip_fsync()
    {
        return format!("seccomp: {error}");
    }
    match execvpe(&program, &argv, &env) {
        Err(error) => format!("{}: {error}", program.to_string_lossy()),
        Ok(never) => match never {},
    }
}

fn skip_fsync() -> Result<(), Box<dyn std::error::Error>> {
    use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};
    let calls = [
        libc::SYS_fsync,
        libc::SYS_fdatasync,
        libc::SYS_sync,
        libc::SYS_syncfs,
        libc::SYS_sync_file_range,
        libc::SYS_msync,
    ];
    let rules = calls.into_iter().map(|call| (call, Vec::new())).collect();
    let arch = std::env::consts::ARCH.try_into()?;
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(0), arch)?;
    let mut program: BpfProgram = filter.try_into()?;
    // Programs of an older kin of this processor (i386) would be killed; they only wait for the disk.
    for step in &mut program {
        if u32::from(step.code) == libc::BPF_RET | libc::BPF_K && step.k == libc::SECCOMP_RET_KILL_PROCESS {
            step.k = libc::SECCOMP_RET_ALLOW;
        }
    }
    Ok(apply_filter(&program)?)
}
