//! Connecting the caller's terminal to a console.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use rustix::termios::tcgetwinsize;

use super::keys::Keys;
use super::screen::{Message, PACKET, connection};
use crate::container::exec::RawTerminal;
use crate::container::name::ContainerName;
use crate::container::record::{Running, State};
use crate::container::runtime::Runtime;
use crate::{CancelToken, Error, Result};

/// How often the terminal's size and `cancel` are looked at.
const TICK: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// Why a console is connected no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detached {
    /// Ctrl-a q was typed, or there is no more to read on standard input.
    ByCaller,
    /// The container has stopped.
    Stopped,
}

impl Runtime {
    /// Connects standard input and output to a running container's console. If standard input is a
    /// terminal, it is in raw mode meanwhile, its size becomes the console's, and Ctrl-a q ends the
    /// connection. Others may be connected at the same time; all see the same.
    ///
    /// # Errors
    /// [`Error::NotRunning`]; [`Error::Cancelled`] after `cancel`. The terminal is as before in any case.
    pub fn console(&self, name: &ContainerName, cancel: &CancelToken) -> Result<Detached> {
        let directory = self.existing(name)?;
        if !State::read(&directory)?.running.is_some_and(|running: Running| running.is_alive()) {
            return Err(Error::NotRunning { name: name.to_string() });
        }
        let failed = |error: io::Error| Error::Console { name: name.to_string(), reason: error.to_string() };
        let connection = connection(&directory).map_err(failed)?;
        let terminal = io::stdin().is_terminal();
        let _raw = terminal.then(RawTerminal::enter).transpose().map_err(failed)?;
        let mut attached =
            Attached { connection, keys: terminal.then(Keys::default), size: None, unsent: Vec::new() };
        loop {
            if cancel.is_cancelled() {
                return Err(Error::Cancelled);
            }
            if let Some(end) = attached.turn().map_err(failed)? {
                return Ok(end);
            }
        }
    }
}

struct Attached {
    connection: OwnedFd,
    /// None: standard input is no terminal, and all of it is the container's.
    keys: Option<Keys>,
    size: Option<(u16, u16)>,
    /// A packet that waits until the container reads its console.
    unsent: Vec<u8>,
}

impl Attached {
    /// Carries what there is, or waits a moment.
    fn turn(&mut self) -> io::Result<Option<Detached>> {
        if self.keys.is_some() {
            self.resize();
        }
        let stdin = io::stdin();
        let full = !self.unsent.is_empty();
        let flags = if full { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
        let mut fds = vec![PollFd::new(&self.connection, flags)];
        // A terminal is read all the same, to see whether the user wants to leave.
        if !full || self.keys.is_some() {
            fds.push(PollFd::new(&stdin, PollFlags::IN));
        }
        match poll(&mut fds, Some(&TICK)) {
            Err(Errno::INTR) => return Ok(None),
            other => other?,
        };
        let connection = fds[0].revents();
        let input = fds.get(1).is_some_and(|fd| !fd.revents().is_empty());
        drop(fds);
        if connection.contains(PollFlags::OUT) {
            let packet = std::mem::take(&mut self.unsent);
            self.say(packet)?;
        }
        if connection.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) && !self.show()? {
            return Ok(Some(Detached::Stopped));
        }
        if input && !self.pass_on()? {
            return Ok(Some(Detached::ByCaller));
        }
        Ok(None)
    }

    fn resize(&mut self) {
        if let Ok(size) = tcgetwinsize(io::stdin())
            && self.size.replace((size.ws_row, size.ws_col)) != Some((size.ws_row, size.ws_col))
        {
            let _ = self.say(Message::Size { rows: size.ws_row, columns: size.ws_col }.packet());
        }
    }

    /// False when the supervisor has gone.
    fn show(&self) -> io::Result<bool> {
        let mut packet = [0; PACKET];
        match recv(&self.connection, &mut packet, RecvFlags::empty()) {
            Ok((0, _)) | Err(Errno::CONNRESET) => return Ok(false),
            // Unbuffered: what is not a line is shown as well.
            Ok((count, _)) => {
                let mut stdout = File::from(rustix::io::dup(rustix::stdio::stdout())?);
                stdout.write_all(&packet[..count.min(PACKET)])?;
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(true)
    }

    /// False when nothing more is to come.
    fn pass_on(&mut self) -> io::Result<bool> {
        // Room for a key that was held back.
        let mut buffer = [0; PACKET / 2];
        let typed = match rustix::io::read(io::stdin(), &mut buffer) {
            // A terminal that was closed.
            Ok(0) | Err(Errno::IO) => return Ok(false),
            Ok(count) => &buffer[..count],
            Err(Errno::INTR | Errno::AGAIN) => return Ok(true),
            Err(error) => return Err(error.into()),
        };
        let (meant, leave) = match &mut self.keys {
            Some(keys) => keys.take(typed),
            None => (typed.to_vec(), false),
        };
        if !meant.is_empty() {
            self.say(Message::Typed(&meant).packet())?;
        }
        Ok(!leave)
    }

    /// What is said while something else waits is lost, as on any line that nobody reads.
    fn say(&mut self, packet: Vec<u8>) -> io::Result<()> {
        if !self.unsent.is_empty() {
            return Ok(());
        }
        match send(&self.connection, &packet, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
            Err(Errno::AGAIN) => self.unsent = packet,
            // Its end is seen when its output is read to the end.
            Ok(_) | Err(Errno::PIPE | Errno::CONNRESET) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}
