//! A process that cannot be mistaken for a later one with the same id.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};

use super::sys;

/// A process by id and start time, valid in the boot in which it was recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Process id on the host.
    pub pid: i32,
    /// Clock ticks between the host's boot and the process's start.
    pub start: u64,
}

impl Process {
    /// The process that has this id now.
    pub fn of(pid: i32) -> io::Result<Self> {
        Ok(Self { pid, start: stat(pid)?.start })
    }

    /// A descriptor for it, or `None` when it has ended.
    pub fn open(self) -> io::Result<Option<OwnedFd>> {
        let Some(pid) = Pid::from_raw(self.pid) else { return Ok(None) };
        let fd = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(fd) => fd,
            // By its version, the kernel says one of the last two of an id that is given up at this very
            // moment, and of one that is a thread's by now.
            Err(Errno::SRCH | Errno::INVAL | Errno::NOENT) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        // Looked at after opening: if it is the right one now, the descriptor is for the right one.
        match stat(self.pid) {
            Ok(stat) if stat.start == self.start && stat.state != 'Z' => Ok(Some(fd)),
            _ => Ok(None),
        }
    }

    /// Sends it a signal; one that has ended is no error.
    pub fn signal(self, signal: i32) -> io::Result<()> {
        self.open()?.map_or(Ok(()), |process| send(&process, signal))
    }

    /// Waits until it has ended; false when it has not after `limit`.
    pub fn wait(self, limit: Duration) -> io::Result<bool> {
        wait_or_gone(self, limit)
    }

    /// Whether it is there and no zombie.
    pub fn is_alive(self) -> bool {
        self.open().is_ok_and(|fd| fd.is_some())
    }

    /// Whether it sleeps, waiting for something to do.
    pub fn is_asleep(self) -> bool {
        stat(self.pid).is_ok_and(|stat| stat.state == 'S' && stat.start == self.start)
    }
}

/// Sends a signal by number, real-time ones included. A process that has ended is no error.
pub fn send(process: &OwnedFd, signal: i32) -> io::Result<()> {
    match sys::pidfd_send_signal(process.as_fd(), signal) {
        Err(error) if error.raw_os_error() != Some(libc::ESRCH) => Err(error),
        _ => Ok(()),
    }
}

/// Waits until the process has ended; false when it has not after `limit`.
pub fn wait(process: &OwnedFd, limit: Duration) -> io::Result<bool> {
    let end = Instant::now() + limit;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        match poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&timeout)) {
            Ok(0) if left.is_zero() => return Ok(false),
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => return Ok(true),
            Err(error) => return Err(error.into()),
        }
    }
}

/// As [`wait`], for a process that may have ended before.
pub fn wait_or_gone(process: Process, limit: Duration) -> io::Result<bool> {
    process.open()?.map_or(Ok(true), |process| wait(&process, limit))
}

/// This boot of the host; processes recorded in another one are gone.
pub fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

struct Stat {
    state: char,
    start: u64,
}

fn stat(pid: i32) -> io::Result<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    parse_stat(&text).ok_or_else(|| io::Error::other(format!("/proc/{pid}/stat has an unknown form")))
}

/// The program's name, in parentheses, may itself hold parentheses and spaces; what follows the
/// last one is regular: the state is field 3, the start time field 22.
fn parse_stat(text: &str) -> Option<Stat> {
    let fields = text.rsplit_once(')')?.1;
    let mut fields = fields.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let start = fields.nth(18)?.parse().ok()?;
    Some(Stat { state, start })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_odd_program_names() {
        let text = "7 (a) Z 1) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 12345 99 1";
        let stat = parse_stat(text).unwrap();
        assert_eq!((stat.state, stat.start), ('S', 12345));
        assert!(parse_stat("7 (a").is_none());
        assert!(parse_stat("7 (a) S 1").is_none());
    }

    #[test]
    fn a_recycled_id_is_another_process() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let process = Process::of(child.id() as i32).unwrap();
        assert!(process.is_alive());
        let impostor = Process { start: process.start + 1, ..process };
        assert!(!impostor.is_alive());
        let fd = process.open().unwrap().unwrap();
        assert!(!wait(&fd, Duration::from_millis(1)).unwrap());
        send(&fd, libc::SIGKILL).unwrap();
        assert!(wait(&fd, Duration::from_secs(10)).unwrap());
        assert!(!process.is_alive(), "a zombie is not alive");
        child.wait().unwrap();
        assert!(process.open().unwrap().is_none());
    }

    #[test]
    fn the_id_of_a_thread_is_no_process() {
        let thread = std::thread::spawn(|| {
            let path = fs::read_link("/proc/thread-self").unwrap();
            let id = path.file_name().unwrap().to_str().unwrap().parse().unwrap();
            Process::of(id).unwrap().open()
        });
        assert!(thread.join().unwrap().unwrap().is_none());
    }
}
