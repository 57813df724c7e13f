//! What systemd and a service tell each other: sockets handed over (`sd_listen_fds(3)`), and how the
//! service is (`sd_notify(3)`). Without systemd nothing of it does anything.

use std::env;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use listenfd::ListenFd;
use rustix::net::sockopt::socket_acceptconn;

use crate::{Error, Result};

/// How long systemd may take to make room for a message.
const PATIENCE: Duration = Duration::from_secs(1);

/// The sockets a `.socket` unit listens on for this process. They are taken out of the environment, so
/// this is asked once, before there are threads.
///
/// # Errors
/// [`Error::Listen`] for one that is no listening TCP socket; it says which.
pub fn sockets() -> Result<Vec<TcpListener>> {
    let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    let mut passed = ListenFd::from_env();
    let mut sockets = Vec::new();
    for index in 0..passed.len() {
        let name = names.next().filter(|name| !name.is_empty()).unwrap_or("unnamed");
        let refused = |reason: String| Error::Listen {
            address: format!("socket {} ({})", index + 1, name.escape_debug()),
            reason: format!("{reason}; ListenStream= of its unit must be an address and port"),
        };
        let socket = passed.take_tcp_listener(index).map_err(|error| refused(error.to_string()))?;
        let Some(socket) = socket else { continue };
        if !socket_acceptconn(&socket).is_ok_and(|listens| listens) {
            return Err(refused("it does not listen for connections".into()));
        }
        sockets.push(socket);
    }
    Ok(sockets)
}

/// Tells systemd how the service is.
#[derive(Debug, Default)]
pub struct Notify {
    socket: Option<UnixDatagram>,
    watchdog: Option<Duration>,
}

impl Notify {
    /// To whom `NOTIFY_SOCKET` says; to nobody without it.
    pub fn from_env() -> Self {
        let socket = env::var_os("NOTIFY_SOCKET").and_then(|address| connect(&address));
        let number = |name| env::var(name).ok()?.parse::<u64>().ok();
        let ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|usec| ours && *usec > 0).map(Duration::from_micros);
        Self { watchdog: watchdog.filter(|_| socket.is_some()), socket }
    }

    /// The service works, also after [`Self::reloading`]; `status` is what `systemctl status` shows.
    pub fn ready(&self, status: &str) {
        self.send(&format!("READY=1\n{}", status_line(status)));
    }

    /// The configuration is being read again.
    pub fn reloading(&self) {
        self.send("RELOADING=1\n");
    }

    /// The service is about to end.
    pub fn stopping(&self, status: &str) {
        self.send(&format!("STOPPING=1\n{}", status_line(status)));
    }

    /// How often, at least, systemd wants to hear [`Self::alive`].
    pub fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// The service is not stuck.
    pub fn alive(&self) {
        self.send("WATCHDOG=1\n");
    }

    /// Whoever does not listen is not waited for long.
    fn send(&self, state: &str) {
        if let Some(socket) = &self.socket {
            let _ = socket.send(state.as_bytes());
        }
    }
}

/// A path, or with `@` a name of the kernel's own; other kinds are not for services of one machine.
fn connect(address: &OsStr) -> Option<UnixDatagram> {
    let address = match address.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        [b'/', ..] => SocketAddr::from_pathname(address),
        _ => return None,
    };
    let socket = UnixDatagram::unbound().ok()?;
    socket.connect_addr(&address.ok()?).ok()?;
    socket.set_write_timeout(Some(PATIENCE)).ok()?;
    Some(socket)
}

/// One line, whatever is in it.
fn status_line(status: &str) -> String {
    let mut line = String::from("STATUS=");
    for c in status.chars() {
        let _ = if c.is_control() { line.write_char(' ') } else { line.write_char(c) };
    }
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_sent_as_lines_to_paths_and_abstract_names() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let name = format!("millstream-test-{}", std::process::id());
        let here = UnixDatagram::bind(&path).unwrap();
        let there = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        for (socket, address) in [(here, path.into_os_string()), (there, format!("@{name}").into())] {
            let notify = Notify { socket: connect(&address), watchdog: None };
            notify.ready("one\nMAINPID=1");
            notify.reloading();
            notify.alive();
            let received = || {
                let mut buffer = [0; 200];
                let size = socket.recv(&mut buffer).unwrap();
                String::from_utf8(buffer[..size].to_vec()).unwrap()
            };
            assert_eq!(received(), "READY=1\nSTATUS=one MAINPID=1\n");
            assert_eq!(received(), "RELOADING=1\n");
            assert_eq!(received(), "WATCHDOG=1\n");
        }
        assert!(connect(OsStr::new("vsock:2:1")).is_none() && connect(OsStr::new("/nowhere")).is_none());
    }
}
