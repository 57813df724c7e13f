//! The container's first process, from its birth in new namespaces to the moment it becomes init.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ffi::CString;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::sched::{CloneFlags, unshare};
use rustix::fs::{Mode, OFlags, open};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use serde::{Deserialize, Serialize};

use super::channel::Channel;
use super::config::{self, keys::is_true};
use super::confine::{become_root, confine, die_with_parent};
use super::devices::place::Placement;
use super::supervise::Request;
use super::template::Job;
use super::tuning::{self, Beginning};
use super::{clocks, label, mounts, sys};

/// The namespaces it is born in, unless it shares the host's network. That of the control groups comes
/// later, as its root is where the process is when it is made; and that of the clocks, if it is wanted.
pub(crate) fn namespaces(network_of_host: bool) -> libc::c_int {
    let always = libc::CLONE_NEWUSER
        | libc::CLONE_NEWNS
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWIPC;
    always | if network_of_host { 0 } else { libc::CLONE_NEWNET }
}

const INIT: &str = "/sbin/init";
/// Address space while templates are rendered, in bytes.
const TEMPLATE_MEMORY: u64 = 1 << 30;

/// What it is told, with the root file system. A mount for each device follows.
#[derive(Serialize, Deserialize)]
pub(crate) struct Go {
    /// Names of its interfaces.
    pub interfaces: Vec<String>,
    pub devices: Vec<Placement>,
}

/// What it tells the supervisor. Afterwards the channel closes, as init is executed.
#[derive(Serialize, Deserialize)]
pub(crate) enum Message {
    /// All is prepared; the console's master comes with it.
    Ready,
    /// Which step failed and why.
    Failed(String),
}

type Step<T> = Result<T, String>;

/// Prepares the container and becomes its init.
///
/// `own_v2` says how the container could have a v2 control group of its own if it has none.
pub(crate) fn main(request: &Request, templates: &[Job], own_v2: Step<()>, supervisor: &Channel) -> ! {
    let Err(reason) = run(request, templates, own_v2, supervisor);
    let _ = supervisor.send(&Message::Failed(reason), None);
    std::process::exit(1)
}

fn run(request: &Request, templates: &[Job], own_v2: Step<()>, supervisor: &Channel) -> Step<Infallible> {
    sys::reset_signals().map_err(|e| format!("signals: {e}"))?;
    die_with_parent()?;
    let Ok(Some((go, Some(root)))) = supervisor.receive::<Go>() else {
        // The supervisor died, or gave up.
        std::process::exit(1)
    };
    clocks::begin(&request.settings)?;
    become_root()?;
    die_with_parent()?;
    unshare(CloneFlags::CLONE_NEWCGROUP).map_err(|e| format!("cgroup namespace: {e}"))?;
    nix::unistd::sethostname(&request.name).map_err(|e| format!("host name: {e}"))?;
    let loopback = (!request.network.host).then_some("lo");
    for name in loopback.into_iter().chain(go.interfaces.iter().map(String::as_str)) {
        sys::interface_up(name).map_err(|e| format!("interface {name}: {e}"))?;
    }
    mounts::enter(&root, is_true(&request.settings, "security.nesting"), request.network.host)?;
    drop(root);
    let (master, slave) = console()?;
    mounts::console(&slave)?;
    tuning::set_parameters(&request.settings)?;
    render(request, templates)?;
    tuning::mount_memory(&request.settings)?;
    attach(&go.devices, supervisor)?;
    tuning::cover(&request.settings)?;
    if is_systemd()? {
        own_v2.map_err(|how| format!("systemd, its init, needs a control group of its own; {how}"))?;
    }
    supervisor.send(&Message::Ready, Some(&master)).map_err(|e| format!("socket: {e}"))?;
    drop(master);
    drop(slave);
    execute(request)
}

/// After the templates, which write files of the container, not of the host.
fn attach(devices: &[Placement], supervisor: &Channel) -> Step<()> {
    for device in devices {
        let Ok(Some(((), Some(tree)))) = supervisor.receive() else { std::process::exit(1) };
        device.attach(&tree)?;
    }
    Ok(())
}

/// A terminal of the container's own, which the supervisor gets the other end of.
fn console() -> Step<(OwnedFd, OwnedFd)> {
    let failed = |error: rustix::io::Errno| format!("console: {error}");
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).map_err(failed)?;
    unlockpt(&master).map_err(failed)?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let slave = ioctl_tiocgptpeer(&master, flags).map_err(failed)?;
    Ok((master, slave))
}

/// A template that asks for too much memory ends this process, and nothing else.
fn render(request: &Request, templates: &[Job]) -> Step<()> {
    let before = getrlimit(Resource::As);
    let limit = |limit| setrlimit(Resource::As, limit).map_err(|e| format!("memory limit: {e}"));
    let most = before.maximum.map_or(TEMPLATE_MEMORY, |most| most.min(TEMPLATE_MEMORY));
    limit(Rlimit { current: Some(most), maximum: before.maximum })?;
    templates.iter().try_for_each(|job| job.run(&request.variables))?;
    limit(before)
}

fn is_systemd() -> Step<bool> {
    let init = fs::canonicalize(INIT).map_err(|e| format!("the image's {INIT}: {e}"))?;
    Ok(init.file_name().is_some_and(|name| name == "systemd"))
}

fn execute(request: &Request) -> Step<Infallible> {
    confine(&Beginning::of(&request.settings))?;
    let failed = |error: rustix::io::Errno| format!("console: {error}");
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let console = &open("/dev/console", flags, Mode::empty()).map_err(failed)?;
    nix::unistd::setsid().map_err(|e| format!("session: {e}"))?;
    rustix::process::ioctl_tiocsctty(console).map_err(failed)?;
    rustix::stdio::dup2_stdin(console).map_err(failed)?;
    rustix::stdio::dup2_stdout(console).map_err(failed)?;
    rustix::stdio::dup2_stderr(console).map_err(failed)?;
    sys::close_on_exec_from(3).map_err(|e| format!("descriptors: {e}"))?;
    let text = |text: &str| CString::new(text).map_err(|e| e.to_string());
    let mut environment = BTreeMap::from([
        ("container".to_owned(), "millstream".to_owned()),
        ("container_uuid".to_owned(), request.machine_id.clone()),
        ("PATH".to_owned(), "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()),
        ("TERM".to_owned(), "vt220".to_owned()),
    ]);
    environment.extend(config::environment(&request.settings));
    let pairs = environment.iter().map(|(key, value)| text(&format!("{key}={value}")));
    let environment = pairs.collect::<Step<Vec<_>>>()?;
    if let Some(label) = &request.label {
        // Ours: nothing of the container has run yet that could have put another in its place.
        let proc = label::open_proc().map_err(|e| format!("/proc: {e}"))?;
        label.write(proc.as_fd())?;
    }
    let Err(error) = nix::unistd::execve(&text(INIT)?, &[text(INIT)?], &environment);
    let hint = match error {
        nix::errno::Errno::ENOENT => " (the program it names as its interpreter or loader is missing)",
        nix::errno::Errno::ENOEXEC => " (it is no program of this architecture)",
        _ if !Path::new(INIT).is_file() => " (it is no file)",
        _ => "",
    };
    Err(format!("{INIT}: {error}{hint}"))
}
