//! The inside of `exec`: a process that enters a running container, starts a command there and
//! stays, outside the container's processes and control groups, until the command has ended.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::wait::WaitStatus;
use nix::unistd::Pid;
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};
use serde::{Deserialize, Serialize};

use super::cgroup::{self, Caller, Host};
use super::confine::{become_root, become_user, confine, die_with_parent};
use super::label::{self, Label};
use super::process::Process;
use super::relay::{self, Flow};
use super::sys::{self, Fork, SingleThread};
use super::tuning::Beginning;

/// First argument of such a process; the path of the request file is the second.
pub(crate) const ARGUMENT: &str = "__attach";

/// The largest `/etc/passwd` that is looked into.
const PASSWD: u64 = 1 << 20;

/// A command to run. The file it comes in takes the reason back when the command could not be
/// started.
#[derive(Serialize, Deserialize)]
pub(crate) struct Request {
    /// The container's first process.
    pub init: Process,
    /// Name of its control groups.
    pub cgroup: String,
    /// Where they are, if not at the root.
    pub caller: Option<Caller>,
    /// Program and arguments. None: the user's login shell.
    pub argv: Vec<String>,
    pub env: BTreeMap<String, String>,
    pub cwd: Option<PathBuf>,
    pub uid: u32,
    pub gid: u32,
    /// What each process of the container begins with.
    #[serde(default)]
    pub beginning: Beginning,
    /// Whether the command gets a terminal of its own, to which the caller's is connected.
    pub terminal: bool,
}

type Step<T> = Result<T, String>;

/// Carries the request in a file out and exits as the command did.
pub(crate) fn main(file: &Path) -> ! {
    sys::close_inherited();
    let code = match File::options().read(true).write(true).open(file) {
        Err(_) => 1,
        Ok(mut file) => {
            let served = read(&mut file).and_then(|request| {
                let single = SingleThread::check().map_err(|e| format!("threads: {e}"))?;
                serve(&request, &single)
            });
            or_say_why(served, &mut file)
        }
    };
    std::process::exit(code)
}

/// The same in a copy of this process, which may have one thread only: a program need not be started
/// first. Returns the copy.
pub(super) fn fork(request: &Request, answer: &mut File, single: &SingleThread) -> io::Result<Pid> {
    match sys::fork(single, 0)? {
        Fork::Parent(copy) => Ok(copy),
        Fork::Child => {
            let code = or_say_why(serve(request, single), answer);
            sys::exit_now(code)
        }
    }
}

fn or_say_why(served: Step<i32>, answer: &mut File) -> i32 {
    served.unwrap_or_else(|reason| {
        let _ = answer.write_all(reason.as_bytes());
        1
    })
}

fn read(file: &mut File) -> Step<Request> {
    let mut text = Vec::new();
    let read = file.read_to_end(&mut text).and_then(|_| file.set_len(0));
    read.and_then(|()| io::Seek::rewind(file)).map_err(|e| format!("reading the request: {e}"))?;
    serde_json::from_slice(&text).map_err(|e| format!("reading the request: {e}"))
}

fn serve(request: &Request, single: &SingleThread) -> Step<i32> {
    sys::reset_signals().map_err(|e| format!("signals: {e}"))?;
    die_with_parent()?;
    let host = Host::discover(request.caller.as_ref());
    let groups = host.and_then(|host| host.container(&request.cgroup).open_for_exec());
    let mut groups = groups.map_err(|e| e.to_string())?;
    // Only here are there rights to.
    request.beginning.make_room();
    let label = label::Host::real().of(request.init.pid);
    let proc = label.map(|label| label::open_proc().map(|proc| (label, proc))).transpose();
    let proc = proc.map_err(|e| format!("/proc: {e}"))?;
    enter(request.init)?;
    let mut stdio = Stdio::prepare(request.terminal)?;
    let signals = relay::signals().map_err(|e| format!("signals: {e}"))?;
    let (go, wait) = io::pipe().map(|(wait, go)| (go, wait)).map_err(|e| format!("pipe: {e}"))?;
    let command = match sys::fork(single, 0).map_err(|e| format!("fork: {e}"))? {
        Fork::Child => {
            drop((go, groups, signals));
            let (code, reason) = run(request, stdio, wait, proc);
            eprintln!("{reason}");
            sys::exit_now(code)
        }
        Fork::Parent(command) => command,
    };
    drop((wait, proc));
    // Before either becomes somebody else: an ordinary user may move only own processes.
    cgroup::enter(&mut groups, command.as_raw()).map_err(|e| format!("control groups: {e}"))?;
    drop(groups);
    become_root()?;
    die_with_parent()?;
    let started = { go }.write_all(b"!");
    started.map_err(|e| format!("starting the command: {e}"))?;
    stdio.forget_inner();
    let mut flows = stdio.flows()?;
    let status = relay::run(command, &signals, &mut flows, || stdio.resize());
    match status.map_err(|e| format!("waiting: {e}"))? {
        WaitStatus::Exited(_, code) => Ok(code),
        WaitStatus::Signaled(_, signal, _) => Ok(128 + signal as i32),
        other => Err(format!("waiting: {other:?}")),
    }
}

/// Moves this process into all namespaces of the container, still as who it is.
fn enter(init: Process) -> Step<()> {
    let gone = || "it has just stopped".to_owned();
    // Who has the host's network may not be allowed to enter it again.
    let namespace = |process: &str, name: &str| fs::read_link(format!("/proc/{process}/ns/{name}")).ok();
    let shares = |name: &str| namespace("self", name) == namespace(&init.pid.to_string(), name);
    let other = |name, space| if shares(name) { ThreadNameSpaceType::empty() } else { space };
    let some = other("net", ThreadNameSpaceType::NETWORK) | other("time", ThreadNameSpaceType::TIME);
    let init = init.open().map_err(|e| format!("its first process: {e}"))?.ok_or_else(gone)?;
    let all = ThreadNameSpaceType::USER
        | ThreadNameSpaceType::MOUNT
        | ThreadNameSpaceType::PROCESS_ID
        | some
        | ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME
        | ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION
        | ThreadNameSpaceType::CONTROL_GROUP;
    move_into_thread_name_spaces(init.as_fd(), all).map_err(|e| format!("entering its namespaces: {e}"))
}

/// The command's standard input, output and error, and our ends of them. Terminals of the host are
/// never handed in: their owner could be typed for through them.
struct Stdio {
    /// What the command gets instead of ours, by number.
    inner: [Option<OwnedFd>; 3],
    /// Our ends.
    outer: [Option<OwnedFd>; 3],
    /// Our end of the command's terminal.
    master: Option<OwnedFd>,
}

impl Stdio {
    fn prepare(terminal: bool) -> Step<Self> {
        let mut stdio = Self { inner: [None, None, None], outer: [None, None, None], master: None };
        if terminal {
            let (master, slave) = open_terminal().map_err(|e| format!("terminal: {e}"))?;
            stdio.inner[0] = Some(slave);
            stdio.master = Some(master);
            stdio.resize();
            return Ok(stdio);
        }
        let terminals = [io::stdin().is_terminal(), io::stdout().is_terminal(), io::stderr().is_terminal()];
        for (number, _) in terminals.into_iter().enumerate().filter(|(_, terminal)| *terminal) {
            let (reader, writer) = io::pipe().map_err(|e| format!("pipe: {e}"))?;
            let (reader, writer) = (OwnedFd::from(reader), OwnedFd::from(writer));
            let (inner, outer) = if number == 0 { (reader, writer) } else { (writer, reader) };
            stdio.inner[number] = Some(inner);
            stdio.outer[number] = Some(outer);
        }
        Ok(stdio)
    }

    /// The command has them now; ours would keep the other ends from seeing its end.
    fn forget_inner(&mut self) {
        self.inner = [None, None, None];
    }

    fn flows(&mut self) -> Step<Vec<Flow>> {
        let own =
            |fd: std::os::fd::BorrowedFd<'_>| fd.try_clone_to_owned().map_err(|e| format!("relay: {e}"));
        let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
        let mut flows = Vec::new();
        if let Some(master) = &self.master {
            rustix::io::ioctl_fionbio(master, true).map_err(|e| format!("terminal: {e}"))?;
            flows.push(Flow::of_terminal(own(stdin.as_fd())?, own(master.as_fd())?));
            flows.push(Flow::new(own(master.as_fd())?, own(stdout.as_fd())?));
        }
        let [input, output, error] = &mut self.outer;
        if let Some(input) = input.take() {
            flows.push(Flow::new(own(stdin.as_fd())?, input));
        }
        if let Some(output) = output.take() {
            flows.push(Flow::new(output, own(stdout.as_fd())?));
        }
        if let Some(error) = error.take() {
            flows.push(Flow::new(error, own(stderr.as_fd())?));
        }
        Ok(flows)
    }

    fn resize(&self) {
        if let Some(master) = &self.master
            && let Ok(size) = rustix::termios::tcgetwinsize(io::stdin())
        {
            let _ = rustix::termios::tcsetwinsize(master, size);
        }
    }

    /// Makes them the standard ones of this process.
    fn install(self) -> Step<()> {
        let failed = |error: Errno| format!("standard streams: {error}");
        let failed_io = |error: rustix::io::Errno| failed(Errno::from_raw(error.raw_os_error()));
        nix::unistd::setsid().map_err(failed)?;
        if let (Some(_), Some(slave)) = (&self.master, &self.inner[0]) {
            rustix::process::ioctl_tiocsctty(slave).map_err(failed_io)?;
            rustix::stdio::dup2_stdin(slave).map_err(failed_io)?;
            rustix::stdio::dup2_stdout(slave).map_err(failed_io)?;
            return rustix::stdio::dup2_stderr(slave).map_err(failed_io);
        }
        let [input, output, error] = &self.inner;
        input.as_ref().map_or(Ok(()), rustix::stdio::dup2_stdin).map_err(failed_io)?;
        output.as_ref().map_or(Ok(()), rustix::stdio::dup2_stdout).map_err(failed_io)?;
        error.as_ref().map_or(Ok(()), rustix::stdio::dup2_stderr).map_err(failed_io)
    }
}

/// A terminal out of the container's devpts. What is opened is looked at, as the container's root
/// may have put something else there; the other side is had from the master itself.
fn open_terminal() -> io::Result<(OwnedFd, OwnedFd)> {
    use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, fstatfs, openat2};
    const DEVPTS: u32 = 0x1cd1;
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    // A terminal belongs to whoever opened it.
    let (uid, gid) = (nix::unistd::setfsuid(0.into()), nix::unistd::setfsgid(0.into()));
    let master = openat2(CWD, "/dev/pts/ptmx", flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS);
    nix::unistd::setfsgid(gid);
    nix::unistd::setfsuid(uid);
    let master = master?;
    if fstatfs(&master)?.f_type as u32 != DEVPTS {
        return Err(io::Error::other("the container's /dev/pts is not a file system of terminals"));
    }
    unlockpt(&master)?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let slave = ioctl_tiocgptpeer(&master, flags)?;
    Ok((master, slave))
}

/// In the new process: becomes the command. Returns only to say why it could not, with the exit
/// code that says so to shells.
fn run(
    request: &Request,
    stdio: Stdio,
    wait: io::PipeReader,
    label: Option<(Label, OwnedFd)>,
) -> (i32, String) {
    let label = |()| label.map_or(Ok(()), |(label, proc)| label.write(proc.as_fd()));
    let prepared = prepare(request, stdio, wait).and_then(label).and_then(|()| command(request));
    match prepared {
        Ok((argv, env)) => {
            let (code, error) = execute(&argv, &env);
            (code, format!("{}: {}", argv.program.to_string_lossy(), error.desc()))
        }
        Err(reason) => (126, reason),
    }
}

fn prepare(request: &Request, stdio: Stdio, mut wait: io::PipeReader) -> Step<()> {
    die_with_parent()?;
    // A parent that died meanwhile has closed the pipe.
    let mut byte = [0];
    wait.read_exact(&mut byte).map_err(|_| "the caller has gone".to_owned())?;
    become_root()?;
    die_with_parent()?;
    sys::reset_signals().map_err(|e| format!("signals: {e}"))?;
    stdio.install()?;
    confine(&request.beginning)?;
    if (request.uid, request.gid) != (0, 0) {
        become_user(request.uid, request.gid)?;
        die_with_parent()?;
    }
    if let Some(cwd) = &request.cwd {
        change_directory(cwd).map_err(|e| format!("{}: {e}", cwd.display()))?;
    } else if let Some(home) = request.env.get("HOME")
        && change_directory(Path::new(home)).is_err()
    {
        nix::unistd::chdir("/").map_err(|e| format!("/: {e}"))?;
    }
    sys::close_on_exec_from(3).map_err(|e| format!("descriptors: {e}"))
}

/// Not through a descriptor of this process, which might lead out of the container.
fn change_directory(path: &Path) -> rustix::io::Result<()> {
    use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::process::fchdir(openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS)?)
}

struct Argv {
    program: CString,
    arguments: Vec<CString>,
}

fn command(request: &Request) -> Step<(Argv, BTreeMap<String, String>)> {
    let text = |text: &str| CString::new(text).map_err(|_| format!("{text:?} holds a zero byte"));
    let mut env = request.env.clone();
    if let Some(program) = request.argv.first() {
        let arguments = request.argv.iter().map(|arg| text(arg)).collect::<Step<_>>()?;
        return Ok((Argv { program: text(program)?, arguments }, env));
    }
    let shell = login_shell(request.uid).unwrap_or_else(|| "/bin/sh".into());
    let name = Path::new(&shell).file_name().unwrap_or_default().to_string_lossy().into_owned();
    env.insert("SHELL".into(), shell.clone());
    Ok((Argv { program: text(&shell)?, arguments: vec![text(&format!("-{name}"))?] }, env))
}

/// From the container's `/etc/passwd`.
fn login_shell(uid: u32) -> Option<String> {
    let mut text = String::new();
    File::open("/etc/passwd").ok()?.take(PASSWD).read_to_string(&mut text).ok()?;
    let line = text.lines().find(|line| line.split(':').nth(2).is_some_and(|id| id.parse() == Ok(uid)))?;
    let shell = line.split(':').nth(6)?.trim();
    fs::metadata(shell).ok().filter(fs::Metadata::is_file).map(|_| shell.to_owned())
}

/// Searches the command's own PATH. The exit codes are those of shells: 127 not found, 126 found
/// but not executable.
fn execute(argv: &Argv, env: &BTreeMap<String, String>) -> (i32, Errno) {
    let program = argv.program.to_string_lossy();
    let candidates: Vec<CString> = if program.contains('/') {
        vec![argv.program.clone()]
    } else {
        let path = env.get("PATH").map_or("", String::as_str);
        path.split(':').filter_map(|dir| CString::new(format!("{dir}/{program}")).ok()).collect()
    };
    let env: Vec<_> =
        env.iter().filter_map(|(key, value)| CString::new(format!("{key}={value}")).ok()).collect();
    let mut found = None;
    for candidate in candidates {
        let Err(error): Result<Infallible, _> = nix::unistd::execve(&candidate, &argv.arguments, &env);
        if !matches!(error, Errno::ENOENT | Errno::ENOTDIR) || program.contains('/') {
            found.get_or_insert(error);
        }
    }
    match found {
        None | Some(Errno::ENOENT) => (127, Errno::ENOENT),
        Some(error) => (126, error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_descriptor_is_a_directory_to_change_to() {
        let open = File::open("/proc").unwrap();
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&open));
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        for way in [Path::new(&path), &Path::new(&path).join(".."), &link, &link.join("..")] {
            assert_eq!(change_directory(way), Err(rustix::io::Errno::LOOP), "{}", way.display());
        }
        // As this process has one working directory for all tests, to where it is.
        change_directory(&std::env::current_dir().unwrap()).unwrap();
    }
}
