//! A port of the host that leads to one of a container: a process that listens on the host, moves
//! into the container's network and user namespaces, and connects from there.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};

use crate::container::{Fork, Process, become_container_root, die_with_parent, fork, prepare_helper};

/// First argument of such a process.
pub(crate) const ARGUMENT: &str = "__proxy";
/// Connections at a time.
const MOST: usize = 512;
const CONNECT: Duration = Duration::from_secs(10);

/// A forwarded port.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Proxy {
    /// The device's name.
    pub device: String,
    pub listen: SocketAddr,
    pub connect: SocketAddr,
}

#[derive(Serialize, Deserialize)]
struct Request {
    proxy: Proxy,
    /// The container's init.
    pid: i32,
}

impl Proxy {
    /// Starts the process for a container whose first process is `pid`. It listens when this returns,
    /// and ends when that one does, if it is not ended before.
    pub fn start(&self, pid: i32) -> Result<Process, String> {
        let failed = |error: io::Error| error.to_string();
        let mut child = Command::new("/proc/self/exe")
            .arg(ARGUMENT)
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(failed)?;
        let text = serde_json::to_vec(&Request { proxy: self.clone(), pid }).map_err(|e| e.to_string())?;
        let _ = child.stdin.take().map(|mut stdin| stdin.write_all(&text));
        let mut answer = String::new();
        let read = child.stdout.take().map_or(Ok(0), |mut stdout| stdout.read_to_string(&mut answer));
        let _ = child.wait();
        match answer.strip_prefix("ready ").and_then(|pid| pid.parse().ok()) {
            Some(pid) if read.is_ok() => Process::of(pid).map_err(failed),
            _ if answer.is_empty() => Err("it ended at once".into()),
            _ => Err(answer),
        }
    }
}

/// The process. What serves is a child that nobody waits for, as whoever asked for it may end before.
pub(crate) fn main() -> ! {
    match prepare() {
        Ok(prepared) => {
            let _ = nix::unistd::setsid();
            // Whoever started us reads to the end.
            if let Ok(null) = File::options().write(true).open("/dev/null") {
                let _ = rustix::stdio::dup2_stdout(null);
            }
            end_with(prepared.init);
            serve(&prepared.listener, prepared.connect);
        }
        Err(reason) => {
            let _ = io::stdout().write_all(reason.as_bytes());
        }
    }
    std::process::exit(1)
}

struct Prepared {
    listener: TcpListener,
    connect: SocketAddr,
    init: OwnedFd,
}

/// Ends this process when the container's first has ended.
fn end_with(init: OwnedFd) {
    let watch = move || {
        let mut fds = [PollFd::new(&init, PollFlags::IN)];
        while poll(&mut fds, None) == Err(rustix::io::Errno::INTR) {}
        std::process::exit(0)
    };
    if std::thread::Builder::new().stack_size(64 << 10).spawn(watch).is_err() {
        std::process::exit(1)
    }
}

/// Returns in the process that serves; the other has said which that is, and ends.
fn prepare() -> Result<Prepared, String> {
    let failed = |error: io::Error| error.to_string();
    let single = prepare_helper().map_err(failed)?;
    die_with_parent()?;
    let Request { proxy, pid } = serde_json::from_reader(io::stdin()).map_err(|e| e.to_string())?;
    let init = Pid::from_raw(pid).ok_or("its first process has no id")?;
    let init = pidfd_open(init, PidfdFlags::empty()).map_err(|e| format!("its first process: {e}"))?;
    let listener = TcpListener::bind(proxy.listen).map_err(|e| format!("{}: {e}", proxy.listen))?;
    let open = |name: &str| File::open(format!("/proc/{pid}/ns/{name}")).map_err(failed);
    let (net, user) = (open("net")?, open("user")?);
    let network = |process: &str| fs::read_link(format!("/proc/{process}/ns/net")).ok();
    if network("self") != network(&pid.to_string()) {
        setns(net, CloneFlags::CLONE_NEWNET).map_err(|e| format!("network namespace: {e}"))?;
    }
    setns(user, CloneFlags::CLONE_NEWUSER).map_err(|e| format!("user namespace: {e}"))?;
    become_container_root()?;
    match fork(&single, 0).map_err(failed)? {
        Fork::Child => Ok(Prepared { listener, connect: proxy.connect, init }),
        Fork::Parent(child) => {
            let _ = write!(io::stdout(), "ready {child}").and_then(|()| io::stdout().flush());
            std::process::exit(0)
        }
    }
}

fn serve(listener: &TcpListener, connect: SocketAddr) {
    let open = Arc::new(AtomicUsize::new(0));
    for client in listener.incoming() {
        let Ok(client) = client else {
            // As when there are no descriptors left for a moment.
            std::thread::sleep(Duration::from_millis(50));
            continue;
        };
        if open.fetch_add(1, Ordering::Relaxed) >= MOST {
            open.fetch_sub(1, Ordering::Relaxed);
            continue;
        }
        let open = Arc::clone(&open);
        let relayed = std::thread::Builder::new().stack_size(128 << 10).spawn({
            let open = Arc::clone(&open);
            move || {
                let _ = relay(&client, connect);
                open.fetch_sub(1, Ordering::Relaxed);
            }
        });
        if relayed.is_err() {
            open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

fn relay(client: &TcpStream, connect: SocketAddr) -> io::Result<()> {
    let server = TcpStream::connect_timeout(&connect, CONNECT)?;
    std::thread::scope(|scope| {
        let builder = std::thread::Builder::new().stack_size(128 << 10);
        let back = builder.spawn_scoped(scope, || pump(&server, client));
        if back.is_ok() {
            pump(client, &server);
        }
    });
    Ok(())
}

/// One direction, to its end, which is passed on.
fn pump(mut from: &TcpStream, mut to: &TcpStream) {
    if io::copy(&mut from, &mut to).is_err() {
        let _ = from.shutdown(Shutdown::Both);
    }
    let _ = to.shutdown(Shutdown::Write);
}
