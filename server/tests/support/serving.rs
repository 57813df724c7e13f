//! A server in the test's own process, and clients of it over plain sockets.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use std::{fs, thread};

use millstream_server::config::Push as Settings;
use millstream_server::daily::History;
use millstream_server::http::{Access, Gate, Limits, Options, Server, Tls};
use millstream_server::push::Push;
use tokio::sync::oneshot;

use super::{Fixture, Image, pushing};

pub const ROOTFS: &str = "/images/debian/bookworm/amd64/default/20260101_0000/rootfs.tar.xz";

/// A server in this process.
pub struct Running {
    pub tree: Fixture,
    pub address: SocketAddr,
    pub log: Arc<Mutex<Vec<String>>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    pub fn start() -> Self {
        Self::with(Tls::Off, Limits::default())
    }

    pub fn with(tls: Tls, limits: Limits) -> Self {
        Self::start_as(tls, limits, |_| Gate::default(), None, |_| None)
    }

    /// A server that builds.
    pub fn with_history(tls: Tls, limits: Limits, history: Option<Arc<History>>) -> Self {
        Self::start_as(tls, limits, |_| Gate::default(), history, |_| None)
    }

    /// With what stands before it, made for the tree.
    pub fn guarded(tls: Tls, limits: Limits, gate: impl FnOnce(&Fixture) -> Gate) -> Self {
        Self::start_as(tls, limits, gate, None, |_| None)
    }

    /// Takes pushes; gate and pushes made for the tree.
    pub fn pushed_to(
        tls: Tls,
        gate: impl FnOnce(&Fixture) -> Gate,
        push: impl FnOnce(&Fixture) -> Arc<Push>,
    ) -> Self {
        Self::start_as(tls, Limits::default(), gate, None, |tree| Some(push(tree)))
    }

    /// The same with a tree that is there already, pushed to by whom [`pushing::OWNER`] is.
    pub fn pushed_to_tree(tree: Fixture) -> Self {
        let gate = Gate { areas: vec![pushing::area("/", pushing::OWNER)], ..Gate::default() };
        let push = Some(pushing::push(&tree, Settings::default()));
        Self::launch(tree, (Tls::Off, Limits::default(), gate), None, push)
    }

    /// Stops, and has another server serve the same tree.
    pub fn again(&mut self) {
        self.stop();
        let tree = std::mem::replace(&mut self.tree, Fixture::new());
        *self = Self::pushed_to_tree(tree);
    }

    fn start_as(
        tls: Tls,
        limits: Limits,
        gate: impl FnOnce(&Fixture) -> Gate,
        history: Option<Arc<History>>,
        push: impl FnOnce(&Fixture) -> Option<Arc<Push>>,
    ) -> Self {
        let tree = Fixture::new();
        tree.add(&Image::new("debian:bookworm:amd64:default", "20260101_0000")).unwrap();
        let (gate, push) = (gate(&tree), push(&tree));
        Self::launch(tree, (tls, limits, gate), history, push)
    }

    fn launch(
        tree: Fixture,
        (tls, limits, gate): (Tls, Limits, Gate),
        history: Option<Arc<History>>,
        push: Option<Arc<Push>>,
    ) -> Self {
        let log = Arc::new(Mutex::new(Vec::new()));
        let lines = Arc::clone(&log);
        let options = Options {
            root: tree.root().to_path_buf(),
            shared: None,
            listen: "127.0.0.1:0".into(),
            tls,
            limits,
            gate,
            access_log: Some(Arc::new(move |access: &Access| lines.lock().unwrap().push(access.to_string()))),
            history,
            push,
        };
        let (address, stop, thread) = run(options);
        Self { tree, address, log, stop: Some(stop), thread: Some(thread) }
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    /// Sends a request and reads the answer to its end.
    pub fn request(&self, method: &str, target: &str, headers: &str) -> Answer {
        let mut stream = self.connect();
        write!(stream, "{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n")
            .unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        Answer::parse(&bytes)
    }

    pub fn get(&self, target: &str, headers: &str) -> Answer {
        self.request("GET", target, headers)
    }

    pub fn file(&self, path: &str) -> Vec<u8> {
        fs::read(self.tree.root().join(path.trim_start_matches('/'))).unwrap()
    }

    /// Asks the server to stop and says how long it took.
    pub fn stop(&mut self) -> Duration {
        let began = Instant::now();
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
        began.elapsed()
    }
}

/// Serves on a thread of its own, until told to stop or forgotten; waits until it listens.
pub fn run(options: Options) -> (SocketAddr, oneshot::Sender<()>, JoinHandle<()>) {
    let (stop, stopped) = oneshot::channel();
    let (tell, told) = std::sync::mpsc::channel();
    let thread = thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        runtime.unwrap().block_on(async {
            let server = Server::bind(options).await.unwrap();
            tell.send(server.address()).unwrap();
            server.run(async { drop(stopped.await) }).await;
        });
    });
    (told.recv().unwrap(), stop, thread)
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn parse(bytes: &[u8]) -> Self {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").expect("a complete head");
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let mut answer = Self { status: head[9..12].parse().unwrap(), head, body: bytes[end + 4..].to_vec() };
        if answer.header("transfer-encoding") == Some("chunked") {
            answer.body = dechunk(&answer.body);
        }
        answer
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

fn dechunk(mut bytes: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let end = bytes.windows(2).position(|window| window == b"\r\n").unwrap();
        let size = usize::from_str_radix(std::str::from_utf8(&bytes[..end]).unwrap(), 16).unwrap();
        bytes = &bytes[end + 2..];
        if size == 0 {
            return body;
        }
        body.extend_from_slice(&bytes[..size]);
        bytes = &bytes[size + 2..];
    }
}
