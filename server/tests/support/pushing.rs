//! A server that takes pushes, the program's pusher, and pushers that do as they like.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use millstream_client::http::Retry;
use millstream_client::{Access, NoProgress};
use millstream_image::Sha256Digest;
use millstream_server::config::{Area, Push as Settings, Right};
use millstream_server::http::{Gate, Tls};
use millstream_server::keys::KeyStore;
use millstream_server::push::Push;
use millstream_server::push::client::{Pushed, Pusher};
use serde_json::{Value, json};

use super::serving::{Answer, Running};
use super::{Fixture, Image};

/// Who may push everything.
pub const OWNER: &str = "mst_owner";
/// Few tries, close together.
pub const QUICK: Retry = Retry { tries: 4, pause: Duration::from_millis(20) };

pub fn area(path: &str, token: &str) -> Area {
    let tokens = vec![Sha256Digest::of(token.as_bytes())];
    Area { path: path.into(), right: Right::Push, tokens, certificates: Vec::new() }
}

/// What takes pushes to the tree of a fixture, with its key.
pub fn push(tree: &Fixture, settings: Settings) -> Arc<Push> {
    let keys = KeyStore::new(tree.dir.path().join("keys"));
    let _there = keys.import("test", tree.key.to_armored_secret().unwrap().as_bytes(), SystemTime::now());
    Push::open(tree.stream.clone(), keys, settings, Arc::new(|_| {})).unwrap()
}

pub fn server(areas: Vec<Area>, settings: Settings) -> Running {
    let settings = Settings { deltas: 0, ..settings };
    Running::pushed_to(Tls::Off, |_| Gate { areas, ..Gate::default() }, |tree| push(tree, settings))
}

/// A server that [`OWNER`] may push everything to.
pub fn open_server() -> Running {
    server(vec![area("/", OWNER)], Settings::default())
}

/// Builds an image with so many random bytes in it.
pub fn build(tree: &Fixture, name: &str, serial: &str, bytes: usize) -> PathBuf {
    let mut image = Image::new(&format!("{name}:amd64:default"), serial);
    image.data = noise(bytes);
    tree.build(&image)
}

fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 88_172_645_463_325_252_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    std::iter::repeat_with(next).take(bytes).collect()
}

/// Pushes as the program does.
pub fn pushed(
    address: SocketAddr,
    token: &str,
    dir: &Path,
    retry: Retry,
) -> millstream_server::Result<Pushed> {
    let secret = tempfile::NamedTempFile::new().unwrap();
    fs::write(secret.path(), token).unwrap();
    let access = Access { token: Some(secret.path().to_owned()), ..Access::default() };
    pushed_by(&Pusher::new(&format!("http://{address}"), None, &access, retry).unwrap(), dir)
}

pub fn pushed_by(pusher: &Pusher, dir: &Path) -> millstream_server::Result<Pushed> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(pusher.push(dir, &NoProgress))
}

/// One request with a token and a body, on a connection of its own.
pub fn send(server: &Running, token: &str, method: &str, target: &str, body: &[u8]) -> (u16, Value) {
    let mut stream = server.connect();
    let length = body.len();
    let head = format!(
        "{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\
         Content-Length: {length}\r\n\r\n"
    );
    stream.write_all(&[head.as_bytes(), body].concat()).unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let answer = Answer::parse(&bytes);
    (answer.status, serde_json::from_slice(&answer.body).unwrap_or_default())
}

/// The announcement of an image that lies in `dir`.
pub fn announcement(dir: &Path, product: &str, serial: &str) -> Value {
    let mut files = BTreeMap::new();
    for item in fs::read_dir(dir).unwrap().flatten() {
        let bytes = fs::read(item.path()).unwrap();
        let file = json!({"size": bytes.len(), "sha256": Sha256Digest::of(&bytes)});
        files.insert(item.file_name().into_string().unwrap(), file);
    }
    json!({"product": format!("{product}:amd64:default"), "serial": serial, "files": files})
}

/// Announces; the upload's path.
pub fn announce(server: &Running, token: &str, announcement: &Value) -> String {
    let (status, said) = send(server, token, "POST", "/push/v1", announcement.to_string().as_bytes());
    assert_eq!((status, said["state"].as_str()), (200, Some("open")), "{said}");
    format!("/push/v1/{}", said["id"].as_str().unwrap())
}

/// Sends all files of a directory to an upload and asks for the end.
pub fn send_all(server: &Running, token: &str, upload: &str, dir: &Path) -> (u16, Value) {
    for item in fs::read_dir(dir).unwrap().flatten() {
        let target = format!("{upload}/{}?offset=0", item.file_name().to_str().unwrap());
        let (status, said) = send(server, token, "PATCH", &target, &fs::read(item.path()).unwrap());
        assert_eq!(status, 200, "{target}: {said}");
    }
    send(server, token, "POST", &format!("{upload}/finish"), b"")
}

/// Directories of uploads.
pub fn uploads(root: &Path) -> Vec<PathBuf> {
    let entries = |dir: &Path| {
        fs::read_dir(dir).into_iter().flatten().flatten().map(|item| item.path()).collect::<Vec<_>>()
    };
    entries(&root.join(".push")).iter().flat_map(|pusher| entries(pusher)).collect()
}

/// A way to a server on which every connection ends after so many bytes of the client's.
pub struct Relay {
    pub address: SocketAddr,
    pub connections: Arc<AtomicUsize>,
}

impl Relay {
    pub fn cutting(to: SocketAddr, after: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, connections) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
        let count = Arc::clone(&connections);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                count.fetch_add(1, Ordering::Relaxed);
                let Ok(server) = TcpStream::connect(to) else { return };
                let (mut answers, mut back) = (server.try_clone().unwrap(), client.try_clone().unwrap());
                thread::spawn(move || drop(std::io::copy(&mut answers, &mut back)));
                thread::spawn(move || {
                    drop(std::io::copy(&mut (&client).take(after as u64), &mut &server));
                    let _ = (client.shutdown(Shutdown::Both), server.shutdown(Shutdown::Both));
                });
            }
        });
        Self { address, connections }
    }
}
