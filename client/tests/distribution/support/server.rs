//! A small web server over a directory, with faults by path.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// How a path's answer goes wrong.
#[derive(Clone, Debug)]
pub enum Fault {
    /// This status, no body.
    Status(u16),
    /// The connection closes after so many bytes of each answer; the head promises all.
    CutAfter(usize),
    /// The same without a length in the head: the end looks like an end.
    EndAfter(usize),
    /// Bytes without end and without a length.
    Endless,
    /// One byte a while.
    Drip(Duration),
    /// Nothing at all after the head.
    Silent,
    /// Ranges are passed over: always the whole file.
    IgnoreRange,
    /// A range from another place than asked.
    WrongRange,
    /// 416 to every range.
    Unsatisfiable,
    /// Sends the reader elsewhere.
    Redirect(String),
    /// Claims a content encoding.
    Encoded(&'static str),
    /// Other bytes than the file's.
    Replace(Vec<u8>),
    /// The file, said to be of this type.
    Typed(String),
}

struct Shared {
    root: PathBuf,
    faults: Mutex<BTreeMap<String, Fault>>,
    requests: Mutex<Vec<String>>,
    stop: AtomicBool,
}

pub struct Server {
    pub url: String,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub fn start(root: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let shared = Arc::new(Shared {
            root: root.to_owned(),
            faults: Mutex::default(),
            requests: Mutex::default(),
            stop: AtomicBool::new(false),
        });
        let serving = shared.clone();
        let thread = thread::spawn(move || {
            for stream in listener.incoming() {
                if serving.stop.load(Ordering::SeqCst) {
                    return;
                }
                let shared = serving.clone();
                // A reader that goes away in the middle is part of the game.
                thread::spawn(move || drop(answer(&shared, &stream.unwrap())));
            }
        });
        Self { url, shared, thread: Some(thread) }
    }

    /// Lets every path that ends so go wrong.
    pub fn fault(&self, suffix: &str, fault: Fault) {
        self.shared.faults.lock().unwrap().insert(suffix.into(), fault);
    }

    pub fn heal(&self) {
        self.shared.faults.lock().unwrap().clear();
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> &str {
        self.url.trim_start_matches("http://").trim_end_matches('/')
    }

    /// Requests so far, `PATH RANGE`.
    pub fn requests(&self) -> Vec<String> {
        self.shared.requests.lock().unwrap().clone()
    }

    pub fn count(&self, suffix: &str) -> usize {
        self.requests().iter().filter(|r| r.split(' ').next().unwrap().ends_with(suffix)).count()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.address()));
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

fn answer(shared: &Shared, stream: &TcpStream) -> std::io::Result<()> {
    let (path, range, end) = request(stream)?;
    let asked = range.map_or(String::new(), |from| from.to_string());
    shared.requests.lock().unwrap().push(format!("{path} {asked}"));
    let fault = shared
        .faults
        .lock()
        .unwrap()
        .iter()
        .find(|(suffix, _)| path.ends_with(*suffix))
        .map(|(_, f)| f.clone());
    let mut bytes = match (&fault, std::fs::read(shared.root.join(path.trim_start_matches('/')))) {
        (Some(Fault::Replace(bytes)), _) => bytes.clone(),
        (_, Ok(bytes)) => bytes,
        (None, Err(error)) if error.kind() == ErrorKind::NotFound => return head(stream, 404, &[], Some(0)),
        (_, Err(_)) => Vec::new(),
    };
    let total = bytes.len();
    let mut range = range.filter(|from| *from < total && !matches!(fault, Some(Fault::IgnoreRange)));
    if let (Some(from), Some(Fault::WrongRange)) = (range.as_mut(), &fault) {
        *from -= 1;
    }
    let end = end.filter(|_| range.is_some()).map_or(total, |last| total.min(last + 1));
    let content_range = range.map(|from| format!("Content-Range: bytes {from}-{}/{total}", end - 1));
    let status = if range.is_some() { 206 } else { 200 };
    bytes.truncate(end.max(range.unwrap_or(0)));
    bytes.drain(..range.unwrap_or(0));
    let headers: Vec<&str> = content_range.as_deref().into_iter().collect();
    let length = Some(bytes.len());
    match fault {
        Some(Fault::Status(status)) => head(stream, status, &[], Some(0)),
        Some(Fault::Unsatisfiable) if range.is_some() => head(stream, 416, &[], Some(0)),
        Some(Fault::Redirect(to)) => head(stream, 302, &[&format!("Location: {to}")], Some(0)),
        Some(Fault::CutAfter(count)) => {
            head(stream, status, &headers, length)?;
            send(stream, &bytes[..count.min(bytes.len())])
        }
        Some(Fault::EndAfter(count)) => {
            head(stream, status, &headers, None)?;
            send(stream, &bytes[..count.min(bytes.len())])
        }
        Some(Fault::Endless) => {
            head(stream, 200, &[], None)?;
            loop {
                send(stream, &[b' '; 8192])?;
            }
        }
        Some(Fault::Drip(pause)) => {
            head(stream, status, &headers, length)?;
            for byte in bytes {
                send(stream, &[byte])?;
                thread::sleep(pause);
            }
            Ok(())
        }
        Some(Fault::Silent) => {
            head(stream, status, &headers, length)?;
            thread::sleep(Duration::from_secs(5));
            Ok(())
        }
        Some(Fault::Typed(kind)) => {
            head(stream, status, &[&format!("Content-Type: {kind}")], length)?;
            send(stream, &bytes)
        }
        Some(Fault::Encoded(encoding)) => {
            head(stream, status, &[&format!("Content-Encoding: {encoding}")], length)?;
            send(stream, &bytes)
        }
        _ => {
            head(stream, status, &headers, length)?;
            send(stream, &bytes)
        }
    }
}

/// The path asked for, and the first and the last byte if a range is.
fn request(stream: &TcpStream) -> std::io::Result<(String, Option<usize>, Option<usize>)> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next().ok_or(ErrorKind::UnexpectedEof)??;
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let (mut range, mut last) = (None, None);
    for line in lines {
        let line = line?.to_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("range: bytes=") {
            let (from, to) = value.split_once('-').unwrap_or((value, ""));
            (range, last) = (from.parse().ok(), to.parse().ok());
        }
    }
    Ok((path, range, last))
}

fn head(mut stream: &TcpStream, status: u16, headers: &[&str], length: Option<usize>) -> std::io::Result<()> {
    let status = format!("HTTP/1.1 {status} X");
    let length = length.map(|length| format!("Content-Length: {length}"));
    let mut lines = vec![status.as_str(), "Connection: close"];
    lines.extend(headers);
    lines.extend(length.as_deref());
    stream.write_all((lines.join("\r\n") + "\r\n\r\n").as_bytes())
}

fn send(mut stream: &TcpStream, bytes: &[u8]) -> std::io::Result<()> {
    stream.write_all(bytes)
}
