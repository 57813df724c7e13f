//! A command run on a terminal of the test's own.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Termios, Winsize, tcgetattr, tcsetwinsize};

use super::PROGRAM;

pub struct OnTerminal {
    pub child: Child,
    master: OwnedFd,
    seen: String,
}

impl OnTerminal {
    /// Runs our program with `dir` as `MILLSTREAM_DIR`.
    pub fn run(dir: &Path, args: &[&str], rows: u16, columns: u16) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let slave = ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        resize(&master, rows, columns);
        let child = Command::new("setsid")
            .args(["--wait", "--ctty", PROGRAM])
            .args(args)
            .env("MILLSTREAM_DIR", dir)
            .stdin(slave.try_clone().unwrap())
            .stdout(slave.try_clone().unwrap())
            .stderr(slave)
            .spawn()
            .unwrap();
        Self { child, master, seen: String::new() }
    }

    pub fn resize(&self, rows: u16, columns: u16) {
        resize(&self.master, rows, columns);
    }

    /// How the terminal is set.
    pub fn modes(&self) -> Termios {
        tcgetattr(&self.master).unwrap()
    }

    pub fn type_in(&self, keys: &str) {
        File::from(self.master.try_clone().unwrap()).write_all(keys.as_bytes()).unwrap();
    }

    /// Reads until this comes.
    pub fn expect(&mut self, what: &str) {
        let mut master = File::from(self.master.try_clone().unwrap());
        let limit = Timespec { tv_sec: 60, tv_nsec: 0 };
        loop {
            if let Some(at) = self.seen.find(what) {
                self.seen.drain(..at + what.len());
                return;
            }
            let ready = poll(&mut [PollFd::new(&self.master, PollFlags::IN)], Some(&limit)).unwrap();
            assert_eq!(ready, 1, "no {what:?} in {:?}", self.seen);
            let mut buffer = [0; 4096];
            match master.read(&mut buffer) {
                Ok(count) => self.seen += &String::from_utf8_lossy(&buffer[..count]),
                Err(error) => panic!("no {what:?} in {:?}: {error}", self.seen),
            }
        }
    }

    /// As when a window is closed.
    pub fn hang_up(self) -> Child {
        self.child
    }
}

fn resize(master: &OwnedFd, ws_row: u16, ws_col: u16) {
    tcsetwinsize(master, Winsize { ws_row, ws_col, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
}
