//! Carries bytes between the caller's terminal or pipes and a command in a container, passes
//! signals on, and waits for the command's end.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

/// Signals the command gets as we get them.
const PASSED_ON: [Signal; 7] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGCONT,
];

/// One direction of bytes.
pub struct Flow {
    from: Option<OwnedFd>,
    to: Option<OwnedFd>,
    buffer: Vec<u8>,
    /// Whether its end means that the caller's terminal is gone.
    hangs_up: bool,
}

impl Flow {
    /// Bytes from one descriptor to another; each closes when it has no more use.
    pub fn new(from: OwnedFd, to: OwnedFd) -> Self {
        Self { from: Some(from), to: Some(to), buffer: Vec::new(), hangs_up: false }
    }

    /// As [`Flow::new`], from the caller's terminal: its end is passed on as SIGHUP.
    pub fn of_terminal(from: OwnedFd, to: OwnedFd) -> Self {
        Self { hangs_up: true, ..Self::new(from, to) }
    }

    /// What it waits for: something to read, or room for what has been read.
    fn waits_for(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        if self.buffer.is_empty() {
            self.from.as_ref().map(|fd| (fd.as_fd(), PollFlags::IN))
        } else {
            self.to.as_ref().map(|fd| (fd.as_fd(), PollFlags::OUT))
        }
    }

    /// One read or one write. False when nothing can be done now, or ever again.
    fn step(&mut self) -> bool {
        if self.buffer.is_empty() {
            let Some(from) = &self.from else { return false };
            let mut data = vec![0; 4096];
            match rustix::io::read(from, &mut data) {
                Ok(0) => self.close(),
                Ok(count) => {
                    data.truncate(count);
                    self.buffer = data;
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return false,
                // The other side of a terminal is gone.
                Err(_) => self.close(),
            }
        } else {
            let Some(to) = &self.to else { return false };
            match rustix::io::write(to, &self.buffer) {
                Ok(count) => drop(self.buffer.drain(..count)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return false,
                // Nobody reads any more: the writer shall notice.
                Err(_) => self.close(),
            }
        }
        self.from.is_some()
    }

    fn close(&mut self) {
        self.from = None;
        self.to = None;
        self.buffer.clear();
    }
}

/// The signals [`run`] takes, blocked from now on in this thread.
pub fn signals() -> io::Result<SignalFd> {
    let mut set = SigSet::empty();
    PASSED_ON.into_iter().chain([Signal::SIGCHLD, Signal::SIGWINCH]).for_each(|signal| set.add(signal));
    set.thread_block()?;
    Ok(SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?)
}

/// Works until `command`, a child of this process, has ended and what it wrote has been carried.
/// `resized` is called when the caller's terminal has another size.
pub fn run(
    command: Pid,
    signals: &SignalFd,
    flows: &mut [Flow],
    mut resized: impl FnMut(),
) -> io::Result<WaitStatus> {
    loop {
        let mut ready = vec![false; flows.len()];
        {
            let waiting: Vec<_> =
                flows.iter().enumerate().filter_map(|(i, flow)| Some((i, flow.waits_for()?))).collect();
            let mut fds = vec![PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN)];
            fds.extend(waiting.iter().map(|(_, (fd, flags))| PollFd::from_borrowed_fd(*fd, *flags)));
            match poll(&mut fds, None) {
                Err(Errno::INTR) => continue,
                other => other?,
            };
            for ((i, _), fd) in waiting.iter().zip(&fds[1..]) {
                ready[*i] = !fd.revents().is_empty();
            }
        }
        for (flow, _) in flows.iter_mut().zip(&ready).filter(|(_, ready)| **ready) {
            if !flow.step() && flow.from.is_none() && flow.hangs_up {
                let _ = kill(command, Signal::SIGHUP);
            }
        }
        while let Some(info) = signals.read_signal()? {
            match Signal::try_from(info.ssi_signo as i32) {
                Ok(Signal::SIGWINCH) => resized(),
                Ok(Signal::SIGCHLD) | Err(_) => {}
                Ok(signal) => drop(kill(command, signal)),
            }
        }
        match waitpid(command, Some(WaitPidFlag::WNOHANG))? {
            WaitStatus::StillAlive | WaitStatus::Stopped(..) | WaitStatus::Continued(_) => {}
            status => {
                drain(flows);
                return Ok(status);
            }
        }
    }
}

/// Carries what the command left behind. What its children may still write is not waited for.
fn drain(flows: &mut [Flow]) {
    for flow in flows {
        if let Some(from) = &flow.from
            && rustix::io::ioctl_fionbio(from, true).is_ok()
        {
            while flow.step() {}
        }
    }
}
