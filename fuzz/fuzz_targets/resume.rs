//! A download that goes on after any beginning, from a server that answers anything: the file that was
//! promised, or an error and no file.
#![no_main]

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};
use std::path::PathBuf;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use millstream_client::http::{Pace, Retry};
use millstream_client::{Download, HttpClient, HttpOptions, NoProgress};
use millstream_image::Sha256Digest;

const FILE: &[u8] = b"what the documents promise, byte by byte";

/// What the server answers next.
static ANSWERS: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

struct Bench {
    url: String,
    dir: tempfile::TempDir,
    runtime: tokio::runtime::Runtime,
}

static BENCH: LazyLock<Bench> = LazyLock::new(|| {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let url = format!("http://{}/file", listener.local_addr().expect("an address"));
    std::thread::spawn(move || listener.incoming().flatten().for_each(serve));
    Bench {
        url,
        dir: tempfile::tempdir().expect("a directory"),
        runtime: tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime"),
    }
});

/// Answers once, then closes.
fn serve(mut stream: std::net::TcpStream) {
    let mut request = Vec::new();
    let mut buffer = [0; 1024];
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read(&mut buffer) {
            Ok(count @ 1..) => request.extend_from_slice(&buffer[..count]),
            _ => return,
        }
    }
    let answer = ANSWERS.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
    let _ = stream.write_all(&answer);
    let _ = stream.shutdown(Shutdown::Both);
}

/// One that keeps to HTTP, so that more than the status line is met.
fn answer(pick: u8, data: &[u8]) -> Vec<u8> {
    let from = usize::from(pick >> 3) % FILE.len();
    let rest = &FILE[from..];
    let head = |text: String| [text.as_bytes(), data].concat();
    match pick & 7 {
        0 => data.to_vec(),
        1 => [b"HTTP/1.1 ", data].concat(),
        2 => head(format!("HTTP/1.1 206 P\r\nContent-Range: bytes {from}-39/40\r\n\r\n")),
        3 => [b"HTTP/1.1 206 P\r\nContent-Range: ", data, b"\r\n\r\n", rest].concat(),
        4 => [b"HTTP/1.1 200 OK\r\n", data, b"\r\n\r\n", FILE].concat(),
        5 => head(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", data.len())),
        6 => {
            [format!("HTTP/1.1 206 P\r\nContent-Range: bytes {from}-39/40\r\n\r\n").as_bytes(), rest].concat()
        }
        _ => [b"HTTP/1.1 416 N\r\n", data, b"\r\n\r\n"].concat(),
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((picks, rest)) = data.split_first_chunk::<4>() else { return };
    let at = |pick: u8| usize::from(pick) * rest.len() / 255;
    let (part, answers) = rest.split_at(at(picks[0]));
    // A beginning that is right gets further than chance.
    let right = &FILE[..usize::from(picks[1] >> 1) % FILE.len()];
    let part = if picks[1] & 1 == 0 { [right, part].concat() } else { part.to_vec() };
    let (one, two) = answers.split_at(answers.len() / 2);
    *ANSWERS.lock().unwrap_or_else(PoisonError::into_inner) =
        vec![answer(picks[2], one), answer(picks[3], two)];
    let bench = &*BENCH;
    let dest: PathBuf = bench.dir.path().join("file");
    let _ = std::fs::remove_file(&dest);
    std::fs::write(dest.with_extension("part"), part).expect("a temporary file");
    let options = HttpOptions {
        pace: Pace { window: Duration::from_millis(500), bytes: 1 },
        retry: Retry { tries: 2, pause: Duration::ZERO },
        ..HttpOptions::default()
    };
    let what =
        Download { url: &bench.url, dest: &dest, size: FILE.len() as u64, sha256: Sha256Digest::of(FILE) };
    let client = HttpClient::new(&options).expect("a client");
    match bench.runtime.block_on(client.download(&what, &NoProgress)) {
        Ok(()) => assert_eq!(std::fs::read(&dest).expect("the file"), FILE),
        Err(_) => assert!(!dest.exists()),
    }
});
