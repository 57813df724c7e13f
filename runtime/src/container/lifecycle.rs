//! Starting and stopping containers.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use millstream_image::metadata::Metadata;

use super::config::keys::is_true;
use super::config::{PRIVILEGED, Settings};
use super::devices::Mount;
use super::ids::Ids;
use super::image::ImageFiles;
use super::name::ContainerName;
use super::process::Process;
use super::record::{Config, Exit, Running, State, now};
use super::runtime::{CreateOptions, ImageUse, Runtime, Status};
use super::sealed::Program;
use super::supervise::{self, Report, Request};
use super::template::{self, Variables};
use super::{cgroup, console, hooks, label, process, quota, shutdown};
use crate::network::{Plan, Present, Who, forget_guards};
use crate::{Error, Result};

/// Console lines shown when a container does not come up.
const CONSOLE_LINES: usize = 10;
/// An init that is going to die at once has done so, or sleeps, within this time, or within the time
/// that its start took: the machine may be slow.
const FIRST_BREATH: Duration = Duration::from_millis(100);
/// How long a killed container may take to be gone.
const AFTER_KILL: Duration = Duration::from_secs(30);

/// How a container was stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// It shut down when asked to.
    Cleanly,
    /// It was killed, as asked for or because it did not shut down in time.
    Killed,
}

impl Runtime {
    /// Makes and starts a container. One that does not come up is deleted again.
    pub fn launch(&self, name: &ContainerName, files: &ImageFiles, image: ImageUse) -> Result<()> {
        self.launch_with(name, files, &CreateOptions { image, ..CreateOptions::default() })
    }

    /// As [`Runtime::launch`], with settings.
    pub fn launch_with(
        &self,
        name: &ContainerName,
        files: &ImageFiles,
        options: &CreateOptions,
    ) -> Result<()> {
        self.create_with(name, files, options)?;
        self.start(name).inspect_err(|_| {
            let _ = self.delete(name, true);
        })
    }

    /// Starts a container and returns when its init runs.
    ///
    /// # Errors
    /// [`Error::Start`] when it could not be set up, or its init died at once. Nothing of it is
    /// left then but its files.
    pub fn start(&self, name: &ContainerName) -> Result<()> {
        self.start_for(name, None)
    }

    pub(super) fn start_for(&self, name: &ContainerName, owner: Option<Process>) -> Result<()> {
        let directory = self.existing(name)?;
        let _lock = self.lock(name)?;
        if settle(name, &directory)?.is_some() {
            return Err(Error::Running { name: name.to_string() });
        }
        let mut config = Config::read(&directory)?;
        self.complete_layers(&directory, &mut config)?;
        let mut request = self.request(name, &directory, &config)?;
        let who = Who { name: name.as_str(), id: &config.id };
        request.network = Plan::of(self, &who, &self.expand_devices(&config)?);
        request.owner = owner;
        if owner.is_some() {
            request.network.leave_to_the_inside();
        }
        let failed = |reason: String| Error::Start {
            name: name.to_string(),
            reason,
            console: console::last_lines(&directory, CONSOLE_LINES),
        };
        let begin = Instant::now();
        match supervisor(&request)? {
            Some(Report::Started { supervisor }) => {
                if let Some(exit) = died_at_once(&directory, supervisor, FIRST_BREATH.max(begin.elapsed()))? {
                    settle(name, &directory)?;
                    return Err(failed(format!("its init ended at once with status {}", exit.code)));
                }
            }
            Some(Report::Failed { reason, supervisor }) => {
                if let Some(supervisor) = supervisor {
                    wait_gone(supervisor, &directory)?;
                }
                return Err(failed(reason));
            }
            None => {
                cgroup::Host::discover(None)?.container(&request.cgroup).remove()?;
                return Err(failed("its supervisor was killed".into()));
            }
        }
        if config.pending_templates.take().is_some() {
            config.write(&directory)?;
        }
        Ok(())
    }

    /// Asks a container to shut down and waits; kills it when it has not after `limit`, or at once
    /// if that is zero.
    pub fn stop(&self, name: &ContainerName, limit: Duration) -> Result<Stopped> {
        let directory = self.existing(name)?;
        let _lock = self.lock(name)?;
        let Some(running) = settle(name, &directory)? else {
            return Err(Error::NotRunning { name: name.to_string() });
        };
        let config = Config::read(&directory)?;
        let supervisor = running.supervisor;
        // What is frozen listens to nothing.
        let _ = running.groups(&config.cgroup(name))?.freeze(false);
        let (cgroup, wanted) = (config.cgroup(name), shutdown::wanted(&config));
        let ask = |running: &Running, init: &OwnedFd| shutdown::ask(running, &cgroup, init, wanted, limit);
        let stopped = if !limit.is_zero() && end(&directory, &ask, limit)? {
            settle(name, &directory)?;
            Stopped::Cleanly
        } else {
            kill(name, &directory)?;
            Stopped::Killed
        };
        wait_gone(supervisor, &directory)?;
        if config.ephemeral && directory.exists() {
            self.remove(&directory, &config)?;
        }
        Ok(stopped)
    }

    /// Freezes all processes of a running container.
    pub fn pause(&self, name: &ContainerName) -> Result<()> {
        self.freeze(name, true)
    }

    /// Lets a paused container go on.
    pub fn resume(&self, name: &ContainerName) -> Result<()> {
        self.freeze(name, false)
    }

    fn freeze(&self, name: &ContainerName, frozen: bool) -> Result<()> {
        let directory = self.existing(name)?;
        let _lock = self.lock(name)?;
        let Some(running) = settle(name, &directory)? else {
            return Err(Error::NotRunning { name: name.to_string() });
        };
        running.groups(&Config::read(&directory)?.cgroup(name))?.freeze(frozen)
    }

    /// Containers that are to be started with the host and do not run, in the order of
    /// `boot.autostart.priority`, each with the seconds to wait after it.
    pub fn to_autostart(&self) -> Result<Vec<(ContainerName, u64)>> {
        let mut found = Vec::new();
        for name in self.names()? {
            let settings = self.expanded(&name)?;
            let number = |key: &str| settings.get(key).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
            if is_true(&settings, "boot.autostart") && self.info(&name)?.status == Status::Stopped {
                found.push((number("boot.autostart.priority"), name, number("boot.autostart.delay")));
            }
        }
        found.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
        Ok(found.into_iter().map(|(_, name, delay)| (name, delay)).collect())
    }

    /// What came on a container's console, in this run or the one before; the newest mebibyte.
    pub fn console_log(&self, name: &ContainerName, previous: bool) -> Result<Vec<u8>> {
        let path = console::path(&self.existing(name)?);
        let path = if previous { path.with_extension("log.old") } else { path };
        match fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            other => other.map_err(Error::io(&path)),
        }
    }

    /// The last lines of that, without anything that could steer a terminal.
    pub fn console_end(&self, name: &ContainerName, lines: usize) -> Vec<String> {
        self.existing(name).map(|directory| console::last_lines(&directory, lines)).unwrap_or_default()
    }

    /// The program that is started again as supervisor, and to enter containers.
    pub(super) fn program() -> &'static str {
        "/proc/self/exe"
    }

    /// For a container that reboots: with what was set since it started. None: as it was.
    pub(super) fn renewed(old: &Request) -> Option<Request> {
        let config = Config::read(&old.directory).ok()?;
        let runtime = Self::of_container(&old.directory)?;
        let new = runtime.request(&old.name.parse().ok()?, &old.directory, &config).ok()?;
        let who = Who { name: &old.name, id: &config.id };
        let network = Plan::again(&runtime, &who, &runtime.expand_devices(&config).ok()?);
        Some(Request { network, owner: old.owner, ..new })
    }

    fn request(&self, name: &ContainerName, directory: &Path, config: &Config) -> Result<Request> {
        let image = config.unpacked().directory(&self.images());
        let path = image.join("metadata.yaml");
        let metadata = Metadata::parse(&fs::read(&path).map_err(Error::io(&path))?)?;
        let settings = self.expand(config)?;
        let devices = self.expand_devices(config)?;
        let ids = self.ids(name, config, &settings)?;
        let mut layers = self.layers(directory, config);
        // An ordinary user's mounts cannot translate; files then show whose ids they have.
        layers.ids =
            Some(ids.clone()).filter(|ids| *ids != config.idmap.into() && config.image_ids.is_none());
        let (label, note) = label::Host::real().choose(&settings);
        let size = quota::limit(directory, config, &devices);
        let triggers: Vec<_> = config.pending_templates.as_deref().into_iter().chain(["start"]).collect();
        Ok(Request {
            directory: directory.to_path_buf(),
            name: name.to_string(),
            cgroup: config.cgroup(name),
            machine_id: config.id.clone(),
            notes: notes_of(&settings, config, &ids).into_iter().chain(note).chain(size).collect(),
            ids,
            layers,
            devices: Mount::all(&devices),
            set_devices: devices,
            ephemeral: config.ephemeral,
            templates: template::jobs(&metadata, &image, &triggers)?,
            variables: Variables {
                name: name.to_string(),
                architecture: config.architecture.clone(),
                // What the host runs is not for the image's templates to write down inside.
                config: settings
                    .clone()
                    .into_iter()
                    .filter(|(key, _)| !key.starts_with(hooks::PREFIX))
                    .collect(),
            },
            settings,
            network: Plan::default(),
            label,
            owner: None,
            halt_signal: shutdown::wanted(config),
        })
    }
}

/// What is to be said about settings whenever the container starts.
fn notes_of(settings: &Settings, config: &Config, ids: &Ids) -> Vec<String> {
    let key = if is_true(settings, "security.privileged") { "security.privileged" } else { "raw.idmap" };
    let privileged = config.image_ids.is_none() && ids.include_root();
    let privileged = privileged.then(|| format!("{key}: {PRIVILEGED}"));
    let unshifted = (settings.contains_key("raw.idmap") && config.image_ids.is_some()).then(|| {
        "raw.idmap: files the container already has for these ids are nobody's, as only root can map mounts"
            .to_owned()
    });
    [privileged, unshifted].into_iter().flatten().collect()
}

/// Kills a running container and waits until all of it is gone. Needs its lock.
pub(super) fn kill(name: &ContainerName, directory: &Path) -> Result<()> {
    let kill = |_: &Running, init: &OwnedFd| process::send(init, libc::SIGKILL);
    if !end(directory, &kill, AFTER_KILL)? {
        return Err(Error::Unkillable { name: name.to_string(), seconds: AFTER_KILL.as_secs() });
    }
    settle(name, directory).map(|_| ())
}

/// The run under way, if there is one. One whose supervisor or init was killed from outside is
/// brought to its end: nothing of it is left, and its record says so. Needs the lock.
pub(super) fn settle(name: &ContainerName, directory: &Path) -> Result<Option<Running>> {
    let mut state = State::read(directory)?;
    let Some(running) = state.running.take() else { return Ok(None) };
    if running.is_alive() {
        return Ok(Some(running));
    }
    if process::boot_id().is_ok_and(|id| id == running.boot_id) {
        // Without a supervisor, the kernel kills init: that is its death signal.
        if let Some(init) = open(running.init)? {
            process::wait(&init, AFTER_KILL).map_err(Error::io(directory))?;
        }
        for helper in &running.helpers {
            helper.signal(libc::SIGKILL).map_err(Error::io(directory))?;
        }
        let config = Config::read(directory)?;
        running.groups(&config.cgroup(name))?.remove()?;
        Present::read(directory).clear(directory, None);
        forget_guards(&config.id);
    }
    let mut state = State::read(directory)?;
    if state.running.take().is_some() {
        state.last_exit = Some(Exit { at: now(), code: 128 + libc::SIGKILL, error: None });
        state.write(directory)?;
    }
    Ok(None)
}

/// Starts a supervisor and waits for its report; `None` when it died without one.
fn supervisor(request: &Request) -> Result<Option<Report>> {
    let program = Runtime::program();
    let started = Program::new(request.ids.include_root()).map_err(Error::io(program))?;
    let mut child = Command::new(started.path())
        .arg(supervise::ARGUMENT)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(Error::io(program))?;
    let text = serde_json::to_vec(request).map_err(|e| Error::io(program)(e.into()))?;
    let sent = child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(&text));
    let mut report = Vec::new();
    let received = child.stdout.take().map_or(Ok(0), |mut stdout| stdout.read_to_end(&mut report));
    child.wait().map_err(Error::io(program))?;
    sent.and(received).map_err(Error::io(program))?;
    Ok(serde_json::from_slice(&report).ok())
}

/// Asks init to end, and every further init should the container reboot meanwhile, until the
/// supervisor has ended. False when it has not within `limit`.
fn end(
    directory: &Path,
    ask: &dyn Fn(&Running, &OwnedFd) -> std::io::Result<()>,
    limit: Duration,
) -> Result<bool> {
    let begin = Instant::now();
    let (mut signalled, mut last) = (None, None);
    loop {
        let Some(running) = State::read(directory)?.running else {
            // It has written its last words; let it leave.
            last.map_or(Ok(()), |supervisor| wait_gone(supervisor, directory))?;
            return Ok(true);
        };
        last = Some(running.supervisor);
        let Some(supervisor) = open(running.supervisor)? else { return Ok(true) };
        if signalled != Some(running.init)
            && let Some(init) = open(running.init)?
        {
            ask(&running, &init).map_err(Error::io(proc(running.init.pid)))?;
            signalled = Some(running.init);
        }
        let left = limit.saturating_sub(begin.elapsed());
        let step = left.min(Duration::from_millis(200));
        if process::wait(&supervisor, step).map_err(Error::io(proc(running.supervisor.pid)))? {
            return Ok(true);
        }
        if left.is_zero() {
            return Ok(false);
        }
    }
}

/// Waits for a supervisor that has reported its last to leave.
fn wait_gone(supervisor: Process, directory: &Path) -> Result<()> {
    if let Some(supervisor) = open(supervisor)? {
        process::wait(&supervisor, AFTER_KILL).map_err(Error::io(directory))?;
    }
    Ok(())
}

/// Looks at a fresh init until it has died or gone to sleep, or has lived long enough.
fn died_at_once(directory: &Path, supervisor: Process, breath: Duration) -> Result<Option<Exit>> {
    let begin = Instant::now();
    let mut asleep = 0;
    let mut gone = !supervisor.is_alive();
    loop {
        let state = State::read(directory)?;
        let Some(running) = state.running else {
            // It has written its last words; let it leave.
            wait_gone(supervisor, directory)?;
            return Ok(state.last_exit);
        };
        if gone {
            return Ok(Some(Exit { at: now(), code: 128 + libc::SIGKILL, error: None }));
        }
        asleep = if running.init.is_asleep() { asleep + 1 } else { 0 };
        if running.init.is_alive() && (asleep == 3 || begin.elapsed() > breath) {
            return Ok(None);
        }
        // Without an init, the supervisor is about to write how it ended, or to start another one.
        gone = process::wait_or_gone(supervisor, Duration::from_micros(100)).map_err(Error::io(directory))?;
    }
}

fn open(process: Process) -> Result<Option<OwnedFd>> {
    process.open().map_err(Error::io(proc(process.pid)))
}

fn proc(pid: i32) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}"))
}
