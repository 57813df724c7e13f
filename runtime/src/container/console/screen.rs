//! The supervisor's side of terminals connected to a console, over a socket that only the
//! container's owner may use. All of them see what comes, and each may type.
//!
//! Each packet to the supervisor is one [`Message`]; each packet from it is output as it came.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{Mode, OFlags, chmodat, open};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect,
    listen, recv, send, socket_with,
};
use rustix::termios::{Winsize, tcsetwinsize};

/// The socket, in the container's directory.
const SOCKET: &str = "console.socket";
/// Most terminals at once.
const VIEWERS: usize = 16;
/// Most bytes of one packet.
pub const PACKET: usize = 4096;

/// What a connected terminal says.
#[derive(Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// This was typed.
    Typed(&'a [u8]),
    /// It has this size now.
    Size { rows: u16, columns: u16 },
}

impl<'a> Message<'a> {
    /// As a packet.
    pub fn packet(&self) -> Vec<u8> {
        match self {
            Self::Typed(keys) => [b"t", *keys].concat(),
            Self::Size { rows, columns } => [&b"s"[..], &rows.to_le_bytes(), &columns.to_le_bytes()].concat(),
        }
    }

    /// Out of a packet; `None` for anything else.
    fn parse(packet: &'a [u8]) -> Option<Self> {
        match packet {
            [b't', keys @ ..] => Some(Self::Typed(keys)),
            [b's', a, b, c, d] => {
                Some(Self::Size { rows: u16::from_le_bytes([*a, *b]), columns: u16::from_le_bytes([*c, *d]) })
            }
            _ => None,
        }
    }
}

/// Those connected. Where no socket can be made, there are none, and the container runs all the same.
pub struct Screen {
    listener: Option<OwnedFd>,
    viewers: Vec<OwnedFd>,
    /// What was typed and the console had no room for. Until it has, nobody is listened to.
    typed: Vec<u8>,
}

impl Screen {
    /// Opens a container's console to terminals.
    pub fn open(container: &Path) -> Self {
        Self { listener: listener(container).ok(), viewers: Vec::new(), typed: Vec::new() }
    }

    /// What [`serve`](Self::serve) waits for, besides room on the console.
    pub fn waits_for(&self) -> impl Iterator<Item = PollFd<'_>> {
        // Without events, the end of a connection is still told.
        let flags = if self.typed.is_empty() { PollFlags::IN } else { PollFlags::empty() };
        let viewers = self.viewers.iter().map(move |viewer| (viewer, flags));
        let listener = self.listener.iter().map(|listener| (listener, PollFlags::IN));
        listener.chain(viewers).map(|(fd, flags)| PollFd::new(fd, flags))
    }

    /// Whether something typed waits for room on the console.
    pub fn waits_for_room(&self) -> bool {
        !self.typed.is_empty()
    }

    /// Shows output to all. One that does not read misses some.
    pub fn show(&mut self, output: &[u8]) {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        for part in output.chunks(PACKET) {
            self.viewers.retain(|viewer| matches!(send(viewer, part, flags), Ok(_) | Err(Errno::AGAIN)));
        }
    }

    /// Takes new connections and what the others say. Never waits.
    pub fn serve(&mut self, console: &OwnedFd) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        while let Some(Ok(viewer)) = self.listener.as_ref().map(|listener| accept_with(listener, flags)) {
            if self.viewers.len() < VIEWERS {
                self.viewers.push(viewer);
            }
        }
        self.type_in(console);
        let mut viewers = std::mem::take(&mut self.viewers);
        viewers.retain(|viewer| self.hear(viewer, console));
        self.viewers = viewers;
        if self.viewers.is_empty() {
            self.typed.clear();
        }
    }

    /// One packet of a viewer's; false when it has gone.
    fn hear(&mut self, viewer: &OwnedFd, console: &OwnedFd) -> bool {
        let mut packet = [0; PACKET + 1];
        let flags = if self.typed.is_empty() { RecvFlags::empty() } else { RecvFlags::PEEK };
        match recv(viewer, &mut packet, flags) {
            Ok((0, _)) => return false,
            Ok(_) if !self.typed.is_empty() => {}
            Ok((count, _)) => match Message::parse(&packet[..count.min(packet.len())]) {
                Some(Message::Typed(keys)) => {
                    self.typed.extend(keys);
                    self.type_in(console);
                }
                Some(Message::Size { rows, columns }) => {
                    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
                    let _ = tcsetwinsize(console, size);
                }
                None => return false,
            },
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => return false,
        }
        true
    }

    fn type_in(&mut self, console: &OwnedFd) {
        while !self.typed.is_empty() {
            match rustix::io::write(console, &self.typed) {
                Ok(count) => drop(self.typed.drain(..count)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => self.typed.clear(),
            }
        }
    }
}

fn listener(container: &Path) -> io::Result<OwnedFd> {
    let directory = open_directory(container)?;
    match fs::remove_file(container.join(SOCKET)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let socket = socket(SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
    bind(&socket, &address(directory.as_fd())?)?;
    // Nobody can connect before it listens.
    chmodat(&directory, SOCKET, Mode::RUSR | Mode::WUSR, rustix::fs::AtFlags::empty())?;
    listen(&socket, 2 * VIEWERS as i32)?;
    Ok(socket)
}

/// Connects to a running container's console.
pub fn connection(container: &Path) -> io::Result<OwnedFd> {
    let directory = open_directory(container)?;
    let socket = socket(SocketFlags::CLOEXEC)?;
    connect(&socket, &address(directory.as_fd())?)?;
    Ok(socket)
}

fn socket(flags: SocketFlags) -> io::Result<OwnedFd> {
    Ok(socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

fn open_directory(container: &Path) -> io::Result<OwnedFd> {
    Ok(open(container, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// By descriptor, as an address holds 107 bytes only.
fn address(directory: BorrowedFd<'_>) -> io::Result<SocketAddrUnix> {
    Ok(SocketAddrUnix::new(format!("/proc/self/fd/{}/{SOCKET}", directory.as_raw_fd()))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn only_the_owner_may_connect() {
        let dir = tempfile::tempdir().unwrap();
        // Longer than an address.
        let dir = dir.path().join("d".repeat(200));
        fs::create_dir(&dir).unwrap();
        assert!(connection(&dir).is_err());
        for _ in 0..2 {
            let screen = Screen::open(&dir);
            assert_eq!(fs::metadata(dir.join(SOCKET)).unwrap().permissions().mode() & 0o777, 0o600);
            connection(&dir).unwrap();
            drop(screen);
        }
        assert!(connection(&dir).is_err(), "nobody is there any more");
    }

    #[test]
    fn all_see_and_all_may_type() {
        let dir = tempfile::tempdir().unwrap();
        let mut screen = Screen::open(dir.path());
        let (console, inside) = pipe_and_back();
        let viewers: Vec<_> = (0..=VIEWERS).map(|_| connection(dir.path())).collect();
        screen.serve(&console);
        assert_eq!(screen.viewers.len(), VIEWERS, "the last one is turned away");
        screen.show(b"hello");
        let mut buffer = [0; 16];
        for viewer in viewers.iter().flatten().take(VIEWERS) {
            assert_eq!(recv(viewer, &mut buffer, RecvFlags::empty()).unwrap().0, 5);
            send(viewer, &Message::Typed(b"x").packet(), SendFlags::empty()).unwrap();
        }
        screen.serve(&console);
        assert_eq!(rustix::io::read(&inside, &mut buffer).unwrap(), VIEWERS);
        // One that does not read keeps nobody.
        let flood = vec![b'y'; 1 << 20];
        screen.show(&flood);
        assert_eq!(screen.viewers.len(), VIEWERS);
        drop(viewers);
        screen.show(b"bye");
        assert!(screen.viewers.is_empty());
    }

    #[test]
    fn what_nobody_reads_is_kept_within_bounds() {
        let dir = tempfile::tempdir().unwrap();
        let mut screen = Screen::open(dir.path());
        let (console, _inside) = pipe_and_back();
        let viewer = connection(dir.path()).unwrap();
        screen.serve(&console);
        let packet = Message::Typed(&[b'x'; PACKET - 1]).packet();
        let flags = SendFlags::DONTWAIT;
        for _ in 0..1000 {
            while send(&viewer, &packet, flags).is_ok() {}
            screen.serve(&console);
        }
        assert!(screen.waits_for_room() && screen.typed.len() < PACKET);
        assert!(send(&viewer, &packet, flags).is_err(), "who types too much waits");
        drop(viewer);
        while !screen.viewers.is_empty() {
            screen.typed.clear();
            screen.serve(&console);
        }
        assert!(!screen.waits_for_room());
    }

    /// In place of a terminal: what is written to one end comes out at the other.
    fn pipe_and_back() -> (OwnedFd, OwnedFd) {
        let (kind, flags) = (SocketType::STREAM, SocketFlags::NONBLOCK);
        rustix::net::socketpair(AddressFamily::UNIX, kind, flags, None).unwrap()
    }

    proptest! {
        #[test]
        fn packets_are_read_as_written(keys: Vec<u8>, rows: u16, columns: u16, other: Vec<u8>) {
            for message in [Message::Typed(&keys), Message::Size { rows, columns }] {
                let packet = message.packet();
                let parsed = Message::parse(&packet);
                prop_assert_eq!(parsed.as_ref(), Some(&message));
            }
            if let Some(message) = Message::parse(&other) {
                prop_assert_eq!(message.packet(), other);
            }
        }
    }
}
