//! A stream that is filled from another server as clients ask.

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use millstream_client::http::Retry;
use millstream_client::{HttpOptions, Remote, Trust};
use millstream_image::simplestreams::Products;
use millstream_server::http::{self, Limits, Options, Server, Tls};
use millstream_server::mirror::Filter;
use millstream_server::pull::{self, Pull};
use millstream_server::stream::{Deltas, Stream};
use support::serving::{Answer, Running};
use support::{Fixture, Image};
use tokio::sync::oneshot;

const SERIAL: &str = "20260102_0000";
const LARGE: &str = "/images/debian/bookworm/amd64/default/20260102_0000/rootfs.tar.xz";
const SMALL: &str = "/images/debian/bookworm/amd64/default/20260101_0000/rootfs.tar.xz";

/// A server with an image that xz cannot shrink.
fn upstream() -> Running {
    let upstream = Running::start();
    let mut state = 1_u64;
    let byte = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    let data = (0..1 << 20).map(byte).collect();
    upstream.tree.add(&Image { data, ..Image::new("debian:bookworm:amd64:default", SERIAL) }).unwrap();
    upstream
}

/// How often a file was asked for.
fn asked(upstream: &Running, path: &str) -> usize {
    upstream.log.lock().unwrap().iter().filter(|line| line.contains(&format!("GET {path} "))).count()
}

/// A server that pulls, in this process.
struct Pulling {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Pulling {
    /// Serves `tree`; upstream, at `address`, signs with `key`.
    fn start(tree: &Fixture, address: SocketAddr, trust: Trust, cache_size: Option<u64>) -> Self {
        let options = pull::Options {
            upstream: Remote::new(&format!("http://{address}"), trust, None).unwrap(),
            filter: Filter::default(),
            http: HttpOptions { retry: Retry { tries: 1, ..Retry::default() }, ..HttpOptions::default() },
            state: tree.dir.path().join("state"),
            cache_size,
            key: tree.key.clone(),
            say: Arc::new(|text| eprintln!("{text}")),
        };
        let stream = Stream::open(tree.root()).unwrap();
        let served = Options {
            root: tree.root().to_path_buf(),
            shared: None,
            listen: "127.0.0.1:0".into(),
            tls: Tls::Off,
            limits: Limits { shutdown: Duration::from_millis(200), ..Limits::default() },
            access_log: None,
            gate: http::Gate::default(),
            history: None,
            push: None,
        };
        let (stop, stopped) = oneshot::channel();
        let (tell, told) = std::sync::mpsc::channel();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
            runtime.unwrap().block_on(async {
                let pull = Pull::open(stream, options).unwrap();
                if let Err(error) = pull.refresh().await {
                    assert!(pull.is_filled(), "{error}");
                }
                let server = Server::bind_with(served, Some(pull)).await.unwrap();
                tell.send(server.address()).unwrap();
                server.run(async { drop(stopped.await) }).await;
            });
        });
        Self { address: told.recv().unwrap(), stop: Some(stop), thread: Some(thread) }
    }

    fn connect(&self, target: &str, headers: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        write!(stream, "GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n").unwrap();
        stream
    }

    /// The answer, as far as it came.
    fn get(&self, target: &str, headers: &str) -> Answer {
        let mut bytes = Vec::new();
        let _ = self.connect(target, headers).read_to_end(&mut bytes);
        Answer::parse(&bytes)
    }
}

impl Drop for Pulling {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn pinned(tree: &Fixture) -> Trust {
    Trust::pin(&tree.stream.keyring().unwrap()).unwrap()
}

fn file(tree: &Fixture, path: &str) -> PathBuf {
    tree.root().join(path.trim_start_matches('/'))
}

fn wait_until(what: &str, done: impl Fn() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < Duration::from_secs(30), "{what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Passes connections on to a server, but no more than `most` bytes of an answer until it is opened.
struct Gate {
    address: SocketAddr,
    open: Arc<AtomicBool>,
}

impl Gate {
    fn before(server: SocketAddr, most: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, open) = (listener.local_addr().unwrap(), Arc::new(AtomicBool::new(false)));
        let opened = Arc::clone(&open);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (server, opened) = (TcpStream::connect(server).unwrap(), Arc::clone(&opened));
                let (mut up, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                thread::spawn(move || std::io::copy(&mut up, &mut to));
                thread::spawn(move || pass(server, client, most, &opened));
            }
        });
        Self { address, open }
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, most: usize, open: &AtomicBool) {
    let (mut bytes, mut passed) = ([0; 16 << 10], 0);
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        while passed > most && !open.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(5));
        }
        if to.write_all(&bytes[..count]).is_err() {
            return;
        }
        passed += count;
    }
}

#[test]
fn a_hundred_clients_cost_one_download_and_read_it_while_it_comes() {
    let upstream = upstream();
    let gate = Gate::before(upstream.address, 300_000);
    let copy = Fixture::new();
    let pulling = Pulling::start(&copy, gate.address, pinned(&upstream.tree), None);
    assert_eq!(copy.stream.list(std::time::SystemTime::now()).unwrap().len(), 2);
    assert!(!file(&copy, LARGE).exists(), "nothing comes before it is asked for");

    let (begun, expected) = (Barrier::new(101), upstream.file(LARGE));
    thread::scope(|scope| {
        let client = || {
            let mut stream = pulling.connect(LARGE, "");
            let mut bytes = vec![0; 100_000];
            stream.read_exact(&mut bytes).unwrap();
            begun.wait();
            stream.read_to_end(&mut bytes).unwrap();
            assert!(Answer::parse(&bytes).body == expected);
        };
        let clients: Vec<_> = (0..100).map(|_| scope.spawn(client)).collect();
        // All have the beginning while upstream holds the end back.
        begun.wait();
        gate.open.store(true, Ordering::Relaxed);
        for client in clients {
            client.join().unwrap();
        }
    });
    assert_eq!(asked(&upstream, LARGE), 1);
    wait_until("the file comes into the tree", || file(&copy, LARGE).exists());
    assert!(pulling.get(LARGE, "").body == expected);
    let part = pulling.get(SMALL, "Range: bytes=2-5\r\n");
    assert_eq!((part.status, &part.body[..]), (206, &upstream.file(SMALL)[2..6]));
    assert_eq!(pulling.get("/images/debian/bookworm/amd64/default/20260101_0000/no", "").status, 404);
    assert_eq!(asked(&upstream, LARGE), 1);
}

#[test]
fn a_file_that_is_not_what_was_stated_never_comes_whole() {
    let upstream = upstream();
    let copy = Fixture::new();
    let pulling = Pulling::start(&copy, upstream.address, pinned(&upstream.tree), None);
    let (path, mut bytes) = (file(&upstream.tree, LARGE), upstream.file(LARGE));
    let right = bytes.clone();
    bytes[500_000] ^= 1;
    replace(&path, &bytes);
    for _ in 0..2 {
        let answer = pulling.get(LARGE, "");
        assert!(answer.status == 502 || answer.body.len() < bytes.len(), "it came whole");
    }
    assert!(!file(&copy, LARGE).exists());
    // What upstream mends comes.
    replace(&path, &right);
    assert!(pulling.get(LARGE, "").body == right);
}

/// Puts a file in the place of one that other trees may share.
fn replace(path: &Path, bytes: &[u8]) {
    fs::remove_file(path).unwrap();
    fs::write(path, bytes).unwrap();
}

#[test]
fn what_is_here_is_served_without_upstream_also_after_a_restart() {
    let mut upstream = upstream();
    let copy = Fixture::new();
    let (expected, trust) = (upstream.file(SMALL), pinned(&upstream.tree));
    let pulling = Pulling::start(&copy, upstream.address, trust.clone(), None);
    assert!(pulling.get(SMALL, "").body == expected);
    wait_until("the file comes into the tree", || file(&copy, SMALL).exists());
    upstream.stop();
    assert!(pulling.get(SMALL, "").body == expected);
    assert_eq!(pulling.get(LARGE, "").status, 502);
    drop(pulling);

    let again = Pulling::start(&copy, upstream.address, trust, None);
    assert!(again.get(SMALL, "").body == expected);
    assert_eq!(again.get("/streams/v1/index.sjson", "").status, 200);
    assert_eq!(again.get(LARGE, "").status, 502);
}

#[test]
fn a_download_that_was_cut_off_is_resumed() {
    let upstream = upstream();
    let copy = Fixture::new();
    let expected = upstream.file(LARGE);
    let sha256 = millstream_image::Sha256Digest::of(&expected);
    let dir = copy.root().join(".mirror/pull");
    fs::create_dir_all(&dir).unwrap();
    // As a process that was killed leaves it.
    fs::write(dir.join(format!("{sha256}.part")), &expected[..700_000]).unwrap();
    let pulling = Pulling::start(&copy, upstream.address, pinned(&upstream.tree), None);
    assert!(pulling.get(LARGE, "").body == expected);
    let log = upstream.log.lock().unwrap().join("\n");
    assert!(log.lines().any(|line| line.contains(LARGE) && line.contains(" 206 ")), "{log}");
}

/// What no document states: it follows from the manifest, and what is signed anew is signed here.
#[test]
fn lxc_gets_its_index_and_files_with_our_signatures() {
    let upstream = upstream();
    let copy = Fixture::new();
    let pulling = Pulling::start(&copy, upstream.address, pinned(&upstream.tree), None);
    let index = pulling.get("/meta/1.0/index-system.7", "");
    assert_eq!((index.status, &index.body), (200, &upstream.file("/meta/1.0/index-system.7")));
    assert!(String::from_utf8(index.body).unwrap().contains(SERIAL));
    let (verify, now) = (copy.stream.keyring().unwrap(), std::time::SystemTime::now());
    let signed = |path: &str| {
        let signature = pulling.get(&format!("{path}.asc"), "");
        assert_eq!(signature.status, 200, "{path}");
        let file = pulling.get(path, "").body;
        assert!(verify.verify_detached(&file[..], &signature.body, now).is_ok(), "{path}");
        file
    };
    for name in ["meta.tar.xz", "rootfs.tar.xz", "SHA256SUMS"] {
        let path = LARGE.replace("rootfs.tar.xz", name);
        // The signature first: it brings the file.
        assert!(signed(&path) == upstream.file(&path), "{name}");
        assert!(asked(&upstream, &path) <= 1, "{name}");
    }
    let (meta, other) = (SMALL.replace("rootfs.", "meta."), SMALL.replace("rootfs.tar.xz", "build.log.asc"));
    assert!(pulling.get(&meta, "").body == upstream.file(&meta), "without its signature");
    assert_eq!(pulling.get(&other, "").status, 404);
    assert_eq!(pulling.get("/images/no/such/amd64/default/20260101_0000/meta.tar.xz.asc", "").status, 404);
    drop(pulling);
    // Signed again without upstream, it is still listed.
    copy.stream.sign(&support::signing(&copy.key)).unwrap();
    let index = fs::read_to_string(copy.root().join("meta/1.0/index-system")).unwrap();
    assert_eq!(index.lines().count(), 1, "{index}");
}

#[test]
fn deltas_and_unified_archives_are_offered_where_upstream_has_them() {
    let upstream = upstream();
    let newer = "20260103_0000";
    let data = upstream.file(LARGE);
    let image = |serial: &str| Image {
        data: data.clone(),
        unified: "unified.tar.zst",
        ..Image::new("debian:sid:amd64:default", serial)
    };
    upstream.tree.add(&image(SERIAL)).unwrap();
    let added = upstream.tree.add_with(&image(newer), &Deltas { last: 1, ..Deltas::default() });
    assert!(added.deltas[0].size.is_ok(), "{:?}", added.deltas);
    let copy = Fixture::new();
    let pulling = Pulling::start(&copy, upstream.address, pinned(&upstream.tree), None);
    let items = |tree: &Fixture| {
        let document = fs::read(tree.root().join("streams/v1/images-debian.json")).unwrap();
        let products = Products::parse(&document).unwrap().products;
        products["debian:sid:amd64:default"].versions[newer].items.clone()
    };
    let (theirs, ours) = (items(&upstream.tree), items(&copy));
    let delta = format!("rootfs.{SERIAL}.delta");
    for name in [delta.as_str(), "lxd_combined.tar.gz", "incus_combined.tar.gz"] {
        assert_eq!(ours[name], theirs[name], "{name}");
        let path = format!("/{}", ours[name].path);
        assert!(pulling.get(&path, "").body == upstream.file(&path), "{name}");
    }
    let direct = pulling.get("/direct/debian/sid", "");
    assert_eq!((direct.status, direct.header("lxd-image-hash").map(str::len)), (200, Some(64)));
}

#[test]
fn the_longest_unused_leave_when_the_cache_is_full() {
    let upstream = upstream();
    let third = Image { data: vec![7; 1000], ..Image::new("debian:sid:amd64:default", SERIAL) };
    upstream.tree.add(&third).unwrap();
    let sid = "/images/debian/sid/amd64/default/20260102_0000/rootfs.tar.xz";
    let size = |path: &str| upstream.file(path).len() as u64;
    let copy = Fixture::new();
    let cap = size(LARGE) + size(SMALL).max(size(sid));
    let pulling = Pulling::start(&copy, upstream.address, pinned(&upstream.tree), Some(cap));
    let get = |path: &str| {
        assert!(pulling.get(path, "").body == upstream.file(path), "{path}");
        wait_until("the file comes into the tree", || file(&copy, path).exists());
    };
    get(SMALL);
    get(LARGE);
    // The small one is older, but was asked for again. New files have the time of the last tick.
    let tick = || thread::sleep(Duration::from_millis(20));
    tick();
    get(SMALL);
    tick();
    get(sid);
    wait_until("the large one leaves", || !file(&copy, LARGE).exists());
    assert!(file(&copy, SMALL).exists());
    get(LARGE);
    assert_eq!(asked(&upstream, LARGE), 2);
    wait_until("the small one leaves", || !file(&copy, SMALL).exists());
    assert!(file(&copy, sid).exists());
    drop(pulling);
    // What can never fit is refused.
    let pulling = Pulling::start(&copy, upstream.address, pinned(&upstream.tree), Some(1000));
    fs::remove_file(file(&copy, LARGE)).unwrap();
    assert_eq!(pulling.get(LARGE, "").status, 502);
}

#[test]
fn a_stream_with_images_of_its_own_is_left_alone() {
    let tree = Fixture::new();
    tree.add(&Image::new("debian:bookworm:amd64:default", SERIAL)).unwrap();
    let options = pull::Options {
        upstream: Remote::new("https://images.example.org", pinned(&tree), None).unwrap(),
        filter: Filter::default(),
        http: HttpOptions::default(),
        state: tree.dir.path().join("state"),
        cache_size: None,
        key: tree.key.clone(),
        say: Arc::new(|_| {}),
    };
    let refused = Pull::open(tree.stream.clone(), options).err().unwrap().to_string();
    assert!(refused.contains("images of its own"), "{refused}");
}
