//! A stream in a shared storage: several publishers, several servers, and what is left by those cut off.

mod support;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

use millstream_image::openpgp::SigningKey;
use millstream_server::http::{Gate, Limits, Options, Tls};
use millstream_server::shared::{Delivery, Reader, SharedStream};
use millstream_server::storage::Directory;
use millstream_server::stream::{Deltas, Retention, Selector, Signing};
use support::serving::{Answer, ROOTFS, run};
use support::{Image, new_key, reader, signing};
use tokio::sync::oneshot;

const HOUR: Duration = Duration::from_hours(1);

/// A storage with what it takes to publish to it.
struct Store {
    dir: tempfile::TempDir,
    key: SigningKey,
}

impl Store {
    /// With a stream.
    fn new() -> Self {
        let store = Self { dir: tempfile::tempdir().unwrap(), key: new_key() };
        assert!(store.stream().init(&signing(&store.key)).unwrap());
        store
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    fn scratch(&self) -> PathBuf {
        self.dir.path().join("scratch")
    }

    /// As another machine opens it.
    fn stream(&self) -> SharedStream {
        SharedStream::on(Arc::new(Directory::new(&self.root())), &self.scratch()).unwrap()
    }

    fn build(&self, product: &str, serial: &str) -> PathBuf {
        let dir = self.dir.path().join(format!("{}-{serial}", product.replace(':', "-")));
        Image::new(product, serial).build(&dir);
        dir
    }

    fn add(&self, product: &str, serial: &str) {
        let dir = self.build(product, serial);
        assert!(self.stream().add(&dir, &signing(&self.key), &Deltas::NONE).unwrap().new);
    }

    fn problems(&self) -> Vec<String> {
        let report = self.stream().verify(SystemTime::now()).unwrap();
        report.problems.iter().map(|p| format!("{}: {}", p.path.display(), p.reason)).collect()
    }

    /// Objects and documents of the store, by key.
    fn objects(&self) -> Vec<String> {
        let found = support::snapshot(&self.root());
        let plain = found.keys().filter_map(|path| path.to_str()).filter(|path| !path.starts_with('.'));
        plain.map(str::to_owned).collect()
    }

    fn images(&self) -> Vec<String> {
        let listed = self.stream().list(SystemTime::now()).unwrap();
        listed.iter().map(|image| format!("{} {}", image.product, image.serial)).collect()
    }
}

/// A server of a store.
struct Serving {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Serving {
    fn start(store: &Store) -> Self {
        let storage = Arc::new(Directory::new(&store.root()));
        let reader = Arc::new(Reader::new(storage, Delivery::Proxy, &store.scratch()).unwrap());
        let options = Options {
            root: reader.name().into(),
            shared: Some(reader),
            listen: "127.0.0.1:0".into(),
            tls: Tls::Off,
            limits: Limits { shutdown: Duration::from_millis(200), ..Limits::default() },
            gate: Gate::default(),
            access_log: None,
            history: None,
            push: None,
        };
        let (address, stop, thread) = run(options);
        Self { address, stop: Some(stop), thread: Some(thread) }
    }

    fn ask(&self, method: &str, path: &str, headers: &str) -> Answer {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        write!(stream, "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n").unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        Answer::parse(&bytes)
    }

    fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, "")
    }

    /// Everything a careful client reads, put into a directory that [`reader::read`] checks.
    fn generation(&self, store: &Store) -> u64 {
        let tree = tempfile::tempdir().unwrap();
        let save = |path: &str| {
            let answer = self.get(&format!("/{path}"));
            assert_eq!(answer.status, 200, "{path}");
            let to = tree.path().join(path);
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::write(to, &answer.body).unwrap();
            String::from_utf8_lossy(&answer.body).into_owned()
        };
        let index = save("streams/v1/index.sjson");
        for path in index.split('"').filter(|part| part.contains("/by-hash/")) {
            for item in save(path).split('"').filter(|part| part.starts_with("images/")) {
                save(item);
            }
        }
        reader::read(tree.path(), &store.key.keyring()).unwrap()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        drop(self.stop.take());
        self.thread.take().unwrap().join().unwrap();
    }
}

#[test]
fn a_shared_stream_is_published_to_and_read_like_any_other() {
    let store = Store::new();
    assert!(!store.stream().init(&signing(&store.key)).unwrap());
    assert!(store.images().is_empty());
    store.add("debian:bookworm:amd64:default", "20260101_0000");
    store.add("alpine:edge:amd64:default", "20260101_0000");
    store.add("debian:bookworm:amd64:default", "20260102_0000");
    assert_eq!(store.problems(), [""; 0]);
    assert_eq!(store.images().len(), 3);
    let again = store.build("alpine:edge:amd64:default", "20260101_0000");
    assert!(!store.stream().add(&again, &signing(&store.key), &Deltas::NONE).unwrap().new);
    let Ok(selector) = "debian/bookworm/amd64/default".parse::<Selector>();
    let shown = store.stream().show(&selector, SystemTime::now()).unwrap();
    assert_eq!(shown.listed.serial.to_string(), "20260102_0000");

    // Out of the documents first, out of the storage after the grace period.
    let pruned = store.stream().remove(&[selector], HOUR, &signing(&store.key)).unwrap();
    assert_eq!((pruned.retired.len(), pruned.removed.len()), (1, 0));
    assert_eq!(store.images().len(), 2);
    assert_eq!(store.problems(), [""; 0]);
    let later = Signing { now: SystemTime::now() + 2 * HOUR, ..signing(&store.key) };
    let pruned = store.stream().prune(Retention::default(), HOUR, &later).unwrap();
    assert_eq!(pruned.removed.len(), 1);
    assert!(pruned.freed > 0);
    assert!(!store.objects().iter().any(|key| key.contains("20260102_0000")));
    assert_eq!(store.problems(), [""; 0]);
    store.stream().sign(&signing(&store.key)).unwrap();
    assert!(!store.stream().is_due(SystemTime::now()).unwrap());
    assert_eq!(store.problems(), [""; 0]);
    // Nothing is left of working copies.
    assert_eq!(fs::read_dir(store.scratch()).unwrap().count(), 0);
}

#[test]
fn publishers_at_once_lose_nothing_and_readers_never_go_back() {
    let store = Store::new();
    let servers = [Serving::start(&store), Serving::start(&store)];
    let products = ["a:1:amd64:default", "b:1:amd64:default", "c:1:amd64:default"];
    let images: Vec<_> = products.iter().map(|product| store.build(product, "20260101_0000")).collect();
    thread::scope(|scope| {
        let writers: Vec<_> = images
            .iter()
            .map(|dir| scope.spawn(|| store.stream().add(dir, &signing(&store.key), &Deltas::NONE).unwrap()))
            .collect();
        let mut seen = 0;
        while !writers.iter().all(thread::ScopedJoinHandle::is_finished) {
            for server in &servers {
                let generation = server.generation(&store);
                assert!(generation >= seen, "{generation} after {seen}");
                seen = generation;
            }
        }
    });
    assert_eq!(store.images().len(), 3);
    assert_eq!(store.problems(), [""; 0]);
    assert_eq!(servers[0].generation(&store), 4);
    assert_eq!(servers[1].generation(&store), 4);
}

#[test]
fn what_was_cut_off_is_seen_by_nobody_and_cleared_away() {
    let store = Store::new();
    store.add("debian:bookworm:amd64:default", "20260101_0000");
    let before = fs::read(store.root().join("root.json")).unwrap();
    let objects = store.objects();
    store.add("debian:trixie:amd64:default", "20260101_0000");
    // As if it had been killed before the last write.
    fs::write(store.root().join("root.json"), &before).unwrap();
    assert_eq!(store.problems(), [""; 0]);
    assert_eq!(store.images().len(), 1);
    let left: Vec<_> = store.objects().into_iter().filter(|key| !objects.contains(key)).collect();
    assert!(left.len() > 10, "{left:?}");
    // The same image of another run takes nothing from the first.
    store.add("debian:trixie:amd64:default", "20260101_0000");
    assert_eq!(store.problems(), [""; 0]);
    let prune = || store.stream().prune(Retention::default(), HOUR, &signing(&store.key)).unwrap();
    prune();
    assert!(left.iter().all(|key| store.root().join(key).exists()), "it may be at work");
    for key in &left {
        let file = File::options().append(true).open(store.root().join(key)).unwrap();
        file.set_modified(SystemTime::now() - 25 * HOUR).unwrap();
    }
    prune();
    assert!(left.iter().all(|key| !store.root().join(key).exists()));
    assert_eq!(store.problems(), [""; 0]);
}

#[test]
fn servers_answer_from_the_storage_as_from_a_tree() {
    let store = Store::new();
    store.add("debian:bookworm:amd64:default", "20260101_0000");
    let server = Serving::start(&store);
    let built = fs::read(store.dir.path().join("debian-bookworm-amd64-default-20260101_0000/rootfs.tar.xz"));
    let built = built.unwrap();
    let whole = server.get(ROOTFS);
    assert_eq!((whole.status, &whole.body), (200, &built));
    assert_eq!(whole.header("content-length"), Some(built.len().to_string().as_str()));
    let part = server.ask("GET", ROOTFS, "Range: bytes=10-19\r\n");
    assert_eq!((part.status, &part.body[..]), (206, &built[10..20]));
    let etag = whole.header("etag").unwrap();
    assert_eq!(server.ask("GET", ROOTFS, &format!("If-None-Match: {etag}\r\n")).status, 304);
    let head = server.ask("HEAD", ROOTFS, "");
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(server.ask("GET", ROOTFS, "Range: bytes=99999999-\r\n").status, 416);
    for path in ["/", "/key.asc", "/meta/1.0/index-system", "/pages/debian.html", "/1.0/images?recursion=1"] {
        assert_eq!(server.get(path).status, 200, "{path}");
    }
    for path in
        ["/root.json", "/.retired", "/.images/debian.json", "/direct/debian.map", "/documents/x", "/images/x"]
    {
        assert_eq!(server.get(path).status, 404, "{path}");
    }
    let list = String::from_utf8(server.get("/1.0/images").body).unwrap();
    let fingerprint = list.split("/1.0/images/").nth(1).unwrap().split('"').next().unwrap();
    let export = server.get(&format!("/1.0/images/{fingerprint}/export"));
    assert_eq!(export.status, 200);
    assert!(export.body.windows(built.len()).any(|window| window == built));
}

#[test]
fn a_storage_that_was_tampered_with_is_not_believed() {
    let store = Store::new();
    store.add("debian:bookworm:amd64:default", "20260101_0000");
    let rootfs = store.objects().into_iter().find(|key| key.ends_with("rootfs.tar.xz")).unwrap();
    fs::write(store.root().join(&rootfs), "other").unwrap();
    assert!(store.problems().iter().any(|problem| problem.contains("rootfs.tar.xz")));
    let read = || fs::read_to_string(store.root().join("root.json")).unwrap();
    let (text, refused) = (read(), |text: &str| {
        fs::write(store.root().join("root.json"), text).unwrap();
        store.stream().list(SystemTime::now()).unwrap_err().to_string()
    });
    assert!(refused(&text.replace("\"key.asc\"", "\"../key.asc\"")).contains("root.json"));
    assert!(refused("{").contains("root.json"));
    let key = text.split("\"key.asc\":{\"key\":\"").nth(1).unwrap().split('"').next().unwrap();
    fs::write(store.root().join("root.json"), &text).unwrap();
    fs::write(store.root().join(key), "other").unwrap();
    let error = store.stream().list(SystemTime::now()).unwrap_err().to_string();
    assert!(error.contains("not what the root says") || error.contains("more than"), "{error}");
    assert!(!error.contains(&*store.scratch().display().to_string()));
    assert!(Path::new(&store.root()).exists());
}
