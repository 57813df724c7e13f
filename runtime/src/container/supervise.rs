//! The process that looks after one running container: it starts the container's init, keeps its
//! console, starts it again after a reboot, and records how it ended.
//!
//! It runs detached from whoever asked for the container. Should it be killed, the kernel kills the
//! container's init, and with it everything inside; the next command clears away the control groups.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{PidfdFlags, pidfd_open};
use rustix::pty::OpenptFlags;
use serde::{Deserialize, Serialize};

use super::cgroup::{Caller, Cgroups, Host};
use super::channel::Channel;
use super::config::Settings;
use super::config::devices::Devices;
use super::console::{ConsoleLog, Screen};
use super::devices::Mount;
use super::devices::open::open as open_devices;
use super::hooks::Occasion;
use super::ids::Ids;
use super::inside;
use super::label::Label;
use super::process::{self, Process, boot_id};
use super::record::{Exit, Running, State, now};
use super::rootfs::Layers;
use super::runtime::Runtime;
use super::shutdown;
use super::sys::{self, Fork, SingleThread};
use super::template::{Job, Variables};
use super::tuning::Beginning;
use crate::network::{Attached, Plan};

/// First argument of a supervisor.
pub(crate) const ARGUMENT: &str = "__supervise";

/// How long preparing the inside may take, templates included.
const PREPARE: Duration = Duration::from_mins(1);
/// A container that reboots this often within [`RESTART_WINDOW`] stays down.
const RESTARTS: usize = 5;
const RESTART_WINDOW: Duration = Duration::from_secs(20);

/// A container to start.
#[derive(Serialize, Deserialize)]
pub(crate) struct Request {
    /// The container's directory.
    pub directory: PathBuf,
    pub name: String,
    /// Name of its control groups.
    pub cgroup: String,
    pub machine_id: String,
    pub ids: Ids,
    pub layers: Layers,
    /// What of the host it has.
    #[serde(default)]
    pub devices: Vec<Mount>,
    /// Its devices as they were set, for those that cost control groups.
    #[serde(default)]
    pub set_devices: Devices,
    /// What the user should know from the start.
    #[serde(default)]
    pub notes: Vec<String>,
    /// Whether the container is deleted when it has ended.
    pub ephemeral: bool,
    pub templates: Vec<Job>,
    pub variables: Variables,
    /// What was set for the container, profiles included.
    pub settings: Settings,
    /// Its interfaces and forwarded ports.
    #[serde(default)]
    pub network: Plan,
    /// The security module's label of its programs.
    #[serde(default)]
    pub label: Option<Label>,
    /// A process the container must not outlive: it is killed when that one ends, however it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Process>,
    /// The signal its image wants to be shut down by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub halt_signal: Option<i32>,
}

/// What comes of it.
#[derive(Serialize, Deserialize)]
pub(crate) enum Report {
    /// Init runs.
    Started {
        /// Who looks after it.
        supervisor: Process,
    },
    /// It does not, and nothing is left once the supervisor has ended.
    Failed {
        reason: String,
        /// None: it was not detached yet.
        supervisor: Option<Process>,
    },
}

type Step<T> = Result<T, String>;

impl Request {
    /// Starts it, with what the host does before; undone when that fails.
    fn start(&self, templates: &[Job], single: &SingleThread, screen: &mut Screen) -> Step<Run> {
        self.hook(Occasion::PreStart, None, single, &mut || {})?;
        Run::start(self, templates, single, screen).map_err(|reason| match self.stopped(single) {
            None => reason,
            Some(also) => format!("{reason}; {also}"),
        })
    }
}

/// Reads a [`Request`] from standard input, detaches, and writes a [`Report`] to standard output.
pub(crate) fn main() -> ! {
    let code = match detach() {
        Ok(Some((request, single))) => supervise(request, &single),
        Ok(None) => 0,
        Err(reason) => {
            report(&Report::Failed { reason, supervisor: None });
            1
        }
    };
    std::process::exit(code)
}

/// The request, in a new process of a new session; `None` in the old one.
fn detach() -> Step<Option<(Request, SingleThread)>> {
    sys::close_inherited();
    let step = |error: io::Error| format!("supervisor: {error}");
    sys::reset_signals().map_err(step)?;
    let mut text = Vec::new();
    io::stdin().read_to_end(&mut text).map_err(step)?;
    let request = serde_json::from_slice(&text).map_err(|e| step(e.into()))?;
    let single = SingleThread::check().map_err(step)?;
    match sys::fork(&single, 0).map_err(step)? {
        Fork::Parent(_) => return Ok(None),
        Fork::Child => {}
    }
    nix::unistd::setsid().map_err(|e| step(e.into()))?;
    nix::unistd::chdir("/").map_err(|e| step(e.into()))?;
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    // All are looked at in one place, or not at all.
    SigSet::all().thread_set_mask().map_err(|e| step(e.into()))?;
    Ok(Some((request, single)))
}

fn supervise(request: Request, single: &SingleThread) -> i32 {
    let title = std::ffi::CString::new(format!("ms:{}", request.name)).unwrap_or_default();
    let _ = nix::sys::prctl::set_name(&title);
    let mut templates = request.templates.clone();
    let mut request = request;
    let mut starts: Vec<Instant> = Vec::new();
    let mut screen = Screen::open(&request.directory);
    loop {
        let run = match request.start(&templates, single, &mut screen) {
            Ok(run) => run,
            Err(reason) if starts.is_empty() => {
                let supervisor = Process::of(std::process::id() as i32).ok();
                report(&Report::Failed { reason, supervisor });
                return 1;
            }
            Err(reason) => {
                ended(&request, Exit { at: now(), code: 1, error: Some(reason) });
                return 1;
            }
        };
        if starts.is_empty() {
            report(&Report::Started { supervisor: run.supervisor });
            let _ = leave_caller();
        }
        starts.retain(|start| start.elapsed() < RESTART_WINDOW);
        starts.push(Instant::now());
        // Other occasions than a start do not come again.
        templates.retain(|job| job.trigger == "start");
        sys::release_memory();
        let end = run.watch(&request, &mut screen);
        let hook = request.stopped(single);
        if end.reboot && starts.len() < RESTARTS {
            request = Runtime::renewed(&request).unwrap_or(request);
            continue;
        }
        let error = end.reboot.then(|| "it rebooted again and again".to_owned()).or(hook);
        ended(&request, Exit { at: now(), code: end.code, error });
        if request.ephemeral || end.abandoned {
            Runtime::delete_ended(&request.directory, end.abandoned);
        }
        return 0;
    }
}

fn report(report: &Report) {
    let text = serde_json::to_vec(report).unwrap_or_default();
    // Whoever asked may have gone; the container runs all the same.
    let _ = io::stdout().write_all(&text).and_then(|()| io::stdout().flush());
}

fn leave_caller() -> io::Result<()> {
    let null = File::options().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    Ok(())
}

fn ended(request: &Request, exit: Exit) {
    // Without a disk to write to, the record stays "running", and is seen to be wrong by its processes.
    let _ = State { running: None, last_exit: Some(exit) }.write(&request.directory);
}

/// A container that runs. Dropping it ends it, with all that belongs to it.
struct Run {
    init: Pid,
    reaped: bool,
    cgroups: Cgroups,
    console: OwnedFd,
    log: ConsoleLog,
    supervisor: Process,
    caller: Option<Caller>,
    notes: Vec<String>,
    network: Option<Attached>,
}

struct End {
    code: i32,
    reboot: bool,
    /// Its owner was gone first.
    abandoned: bool,
}

impl Run {
    fn start(request: &Request, templates: &[Job], single: &SingleThread, screen: &mut Screen) -> Step<Self> {
        let host = Host::discover(None).map_err(|e| e.to_string())?;
        host.leave_caller();

        let (caller, own_v2) = (host.caller().cloned(), host.own_v2());
        let cgroups = host.container(&request.cgroup);
        let log = ConsoleLog::begin(&request.directory).map_err(|e| format!("console log: {e}"))?;
        let mut starting = Starting { init: None, cgroups: Some(cgroups), notes: Vec::new(), network: None };
        let console = starting.bring_up(request, templates, own_v2, single)?;
        let (Some(init), Some(cgroups)) = (starting.init.take(), starting.cgroups.take()) else {
            return Err("supervisor: nothing was started".into());
        };
        let supervisor = Process::of(std::process::id() as i32).map_err(|e| format!("supervisor: {e}"))?;
        let notes = std::mem::take(&mut starting.notes);
        let network = starting.network.take();
        let mut run = Self { init, reaped: false, cgroups, console, log, supervisor, caller, notes, network };
        run.record(request)?;
        // With its console looked after, and its record written, as the command may ask for both.
        rustix::io::ioctl_fionbio(&run.console, true).map_err(|e| format!("console: {e}"))?;
        let hook = request.hook(Occasion::PostStart, Some(init), single, &mut || run.read_console(screen));
        if let Err(reason) = hook {
            run.notes.push(reason);
            run.record(request)?;
        }
        Ok(run)
    }

    fn running(&self) -> Step<Running> {
        Ok(Running {
            boot_id: boot_id().map_err(|e| format!("boot id: {e}"))?,
            init: Process::of(self.init.as_raw()).map_err(|e| format!("init: {e}"))?,
            supervisor: self.supervisor,
            started_at: now(),
            caller: self.caller.clone(),
            notes: self.notes.clone(),
            helpers: self.network.as_ref().map(Attached::helpers).unwrap_or_default(),
        })
    }

    fn record(&self, request: &Request) -> Step<()> {
        let running = self.running()?;
        let mut state = State::read(&request.directory).unwrap_or_default();
        state.running = Some(running);
        state.write(&request.directory).map_err(|e| e.to_string())
    }

    /// Keeps the console until init has ended.
    fn watch(mut self, request: &Request, screen: &mut Screen) -> End {
        let watched = self.watch_init(request, screen);
        let abandoned = matches!(watched, Ok(true));
        if !matches!(watched, Ok(false)) {
            let _ = nix::sys::signal::kill(self.init, Signal::SIGKILL);
        }
        let status = reap(self.init);
        self.reaped = true;
        self.read_console(screen);
        let (code, reboot) = match status {
            // How the kernel tells that a container called reboot(2): restart, or halt.
            Some(WaitStatus::Signaled(_, Signal::SIGHUP, _)) => (0, true),
            Some(WaitStatus::Signaled(_, Signal::SIGINT, _)) => (0, false),
            Some(WaitStatus::Signaled(_, signal, _)) => (128 + signal as i32, false),
            Some(WaitStatus::Exited(_, code)) => (code, false),
            _ => (255, false),
        };
        End { code, reboot, abandoned }
    }

    /// True when the container's owner is gone while init is there.
    fn watch_init(&mut self, request: &Request, screen: &mut Screen) -> io::Result<bool> {
        let pid = rustix::process::Pid::from_raw(self.init.as_raw()).ok_or(io::ErrorKind::NotFound)?;
        let init = pidfd_open(pid, PidfdFlags::empty())?;
        let mut terminate = SigSet::empty();
        terminate.add(Signal::SIGTERM);
        let signals = SignalFd::with_flags(&terminate, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        // A console nobody has open reports an end again and again; so we have it open too.
        let _slave = rustix::pty::ioctl_tiocgptpeer(&self.console, OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
        // An owner that is gone already is seen as one that goes now.
        let owner = request.owner.map(Process::open).transpose()?;
        if request.owner.is_some() && owner.as_ref().is_none_or(Option::is_none) {
            return Ok(true);
        }
        let owner = owner.flatten();
        loop {
            let room = if screen.waits_for_room() { PollFlags::OUT } else { PollFlags::empty() };
            let mut fds = vec![
                PollFd::new(&init, PollFlags::IN),
                PollFd::new(&self.console, PollFlags::IN | room),
                PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN),
            ];
            fds.extend(owner.as_ref().map(|owner| PollFd::new(owner, PollFlags::IN)));
            fds.extend(screen.waits_for());
            match poll(&mut fds, None) {
                Err(rustix::io::Errno::INTR) => continue,
                other => other?,
            };
            let ready: Vec<_> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
            drop(fds);
            if owner.is_some() && ready[3] {
                return Ok(true);
            }
            if ready[1] {
                self.read_console(screen);
            }
            if screen.waits_for_room() || ready[3..].contains(&true) {
                screen.serve(&self.console);
            }
            if ready[2] && matches!(signals.read_signal(), Ok(Some(_))) {
                // The host is going down: as a stop by command.
                let running = self.running().map_err(io::Error::other)?;
                shutdown::ask(&running, &request.cgroup, &init, request.halt_signal, Duration::MAX)?;
            }
            if ready[0] {
                return Ok(false);
            }
        }
    }

    fn read_console(&mut self, screen: &mut Screen) {
        let mut buffer = [0; 8 << 10];
        // Bounded, so that a container that never stops writing does not keep us from its end.
        for _ in 0..16 {
            let Ok(count @ 1..) = rustix::io::read(&self.console, &mut buffer) else { return };
            // A full disk costs the log, not the container.
            let _ = self.log.write(&buffer[..count]);
            screen.show(&buffer[..count]);
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if !self.reaped {
            kill(self.init);
        }
        let _ = self.cgroups.remove();
    }
}

/// A container being started. Dropping it takes everything away again.
struct Starting {
    init: Option<Pid>,
    cgroups: Option<Cgroups>,
    /// Limits that are not kept, and what is missing of the network.
    notes: Vec<String>,
    network: Option<Attached>,
}

impl Starting {
    /// Returns the console.
    fn bring_up(
        &mut self,
        request: &Request,
        templates: &[Job],
        own_v2: Result<(), String>,
        single: &SingleThread,
    ) -> Step<OwnedFd> {
        let Some(cgroups) = &self.cgroups else { return Err("supervisor: no control groups".into()) };
        cgroups.create(request.ids.uid(0).unwrap_or(0)).map_err(|e| e.to_string())?;
        self.notes = cgroups.limit(&request.settings, None);
        self.notes.extend(cgroups.limit_io(&request.directory, &request.set_devices, &Devices::new()));
        self.notes.extend(request.notes.iter().cloned());
        let (ours, theirs) = Channel::pair().map_err(|e| format!("socket: {e}"))?;
        let init = match sys::fork(single, inside::namespaces(request.network.host))
            .map_err(|e| format!("making namespaces: {e}"))?
        {
            Fork::Child => {
                drop(ours);
                inside::main(request, templates, own_v2, &theirs)
            }
            Fork::Parent(init) => init,
        };
        drop(theirs);
        self.init = Some(init);
        let proc = PathBuf::from(format!("/proc/{init}"));
        for (map, text) in ["uid_map", "gid_map"].into_iter().zip(request.ids.proc_texts()) {
            let file = proc.join(map);
            fs::write(&file, text).map_err(|e| format!("{}: {e}", file.display()))?;
        }
        cgroups.join(init.as_raw()).map_err(|e| e.to_string())?;
        let namespace = File::open(proc.join("ns/user")).map_err(|e| format!("user namespace: {e}"))?;
        let root = request.layers.mount(single, namespace.as_fd())?;
        let devices = open_devices(&request.devices, &request.ids, namespace.as_fd(), single)?;
        self.notes.extend(devices.notes);
        let network = Attached::new(&request.directory, &request.network, init.as_raw());
        self.notes.extend(network.notes.iter().cloned());
        let interfaces = network.names.clone();
        self.network = Some(network);
        self.notes.extend(Beginning::of(&request.settings).give(pid_of(init)?));
        let (devices, trees): (Vec<_>, Vec<_>) = devices.trees.into_iter().unzip();
        let sent = ours.send(&inside::Go { interfaces, devices }, Some(&root));
        let sent = sent.and_then(|()| trees.iter().try_for_each(|tree| ours.send(&(), Some(tree))));
        sent.map_err(|e| format!("socket: {e}"))?;
        drop((root, trees));
        let console = match receive(&ours)? {
            Some((inside::Message::Ready, Some(console))) => console,
            Some((inside::Message::Failed(reason), _)) => return Err(reason),
            _ => return Err("its first process died while it was being prepared".into()),
        };
        // The channel closes when init is executed.
        match receive(&ours)? {
            None => Ok(console),
            Some((inside::Message::Failed(reason), _)) => Err(reason),
            Some(_) => Err("its first process sent an unexpected message".into()),
        }
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        if let Some(init) = self.init {
            kill(init);
        }
        if let Some(cgroups) = &self.cgroups {
            let _ = cgroups.remove();
        }
    }
}

fn pid_of(process: Pid) -> Step<rustix::process::Pid> {
    rustix::process::Pid::from_raw(process.as_raw()).ok_or_else(|| "its first process has no id".into())
}

fn receive(channel: &Channel) -> Step<Option<(inside::Message, Option<OwnedFd>)>> {
    match process::wait(channel.descriptor(), PREPARE) {
        Ok(true) => channel.receive().map_err(|e| format!("socket: {e}")),
        Ok(false) => Err(format!("it was not ready after {} seconds", PREPARE.as_secs())),
        Err(error) => Err(format!("socket: {error}")),
    }
}

fn kill(pid: Pid) {
    let _ = nix::sys::signal::kill(pid, Signal::SIGKILL);
    reap(pid);
}

fn reap(pid: Pid) -> Option<WaitStatus> {
    loop {
        match waitpid(pid, None) {
            Err(nix::errno::Errno::EINTR) => {}
            other => return other.ok(),
        }
    }
}
