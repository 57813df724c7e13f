//! The service as clients meet it, byte by byte over plain sockets, and over TLS.

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{fs, thread};

use flate2::read::GzDecoder;
use millstream_server::http::{Gate, Limits, Options, Server, Tls};
use millstream_server::tls::LocalAuthority;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use support::Fixture;
use support::serving::{Answer, ROOTFS, Running};

#[test]
fn files_are_served_whole_with_their_type() {
    let server = Running::start();
    for (path, content_type) in [
        ("/streams/v1/index.json", "application/json"),
        ("/streams/v1/index.sjson", "text/plain; charset=utf-8"),
        ("/streams/v1/index.json.gpg", "application/pgp-signature"),
        ("/meta/1.0/index-system", "text/plain; charset=utf-8"),
        ("/key.asc", "application/pgp-keys"),
        (ROOTFS, "application/x-xz"),
    ] {
        let answer = server.get(path, "");
        assert_eq!((answer.status, answer.header("content-type")), (200, Some(content_type)), "{path}");
        assert_eq!(answer.body, server.file(path), "{path}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    }
    let page = server.get("/", "");
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    assert!(page.header("content-security-policy").unwrap().contains("default-src 'none'"));
    assert!(String::from_utf8(page.body).unwrap().contains("20260101_0000"));
}

#[test]
fn lxc_asks_with_doubled_slashes() {
    let server = Running::start();
    assert_eq!(server.get("//meta/1.0/index-system.7", "").body, server.file("meta/1.0/index-system.7"));
    let doubled = format!("/{}", ROOTFS.replace("/rootfs", "//rootfs"));
    assert_eq!(server.get(&doubled, "").body, server.file(ROOTFS));
}

#[test]
fn head_answers_as_get_without_a_body() {
    let server = Running::start();
    let (get, head) = (server.get(ROOTFS, ""), server.request("HEAD", ROOTFS, ""));
    assert_eq!((head.status, head.body.len()), (200, 0));
    for name in ["content-length", "etag", "last-modified", "content-type", "accept-ranges"] {
        assert_eq!(head.header(name), get.header(name), "{name}");
    }
}

#[test]
fn other_methods_are_not_allowed() {
    let server = Running::start();
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        let answer = server.request(method, "/", "Content-Length: 0\r\n");
        assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, HEAD")), "{method}");
    }
}

#[test]
fn ranges_give_parts() {
    let server = Running::start();
    let whole = server.file(ROOTFS);
    let size = whole.len();
    for (range, expected) in [
        ("bytes=0-9".to_owned(), 0..10),
        (format!("bytes={}-", size - 5), size - 5..size),
        ("bytes=-7".to_owned(), size - 7..size),
        ("bytes=3-999999999".to_owned(), 3..size),
    ] {
        let answer = server.get(ROOTFS, &format!("Range: {range}\r\n"));
        assert_eq!(answer.status, 206, "{range}");
        let content_range = format!("bytes {}-{}/{size}", expected.start, expected.end - 1);
        assert_eq!(answer.header("content-range"), Some(content_range.as_str()));
        assert_eq!(answer.body, whole[expected], "{range}");
    }
    let beyond = server.get(ROOTFS, &format!("Range: bytes={size}-\r\n"));
    assert_eq!(
        (beyond.status, beyond.header("content-range")),
        (416, Some(format!("bytes */{size}").as_str()))
    );
    let several = server.get(ROOTFS, "Range: bytes=0-1,4-5\r\n");
    assert_eq!((several.status, several.body), (200, whole));
}

#[test]
fn range_of_a_file_that_changed_is_answered_whole() {
    let server = Running::start();
    let path = "/streams/v1/index.json";
    let tag = server.get(path, "").header("etag").unwrap().to_owned();
    let part = server.get(path, &format!("Range: bytes=0-3\r\nIf-Range: {tag}\r\n"));
    assert_eq!((part.status, part.body.len()), (206, 4));
    server.tree.stream.sign(&support::signing(&server.tree.key)).unwrap();
    let whole = server.get(path, &format!("Range: bytes=0-3\r\nIf-Range: {tag}\r\n"));
    assert_eq!((whole.status, whole.body), (200, server.file(path)));
}

#[test]
fn unchanged_files_are_not_sent_again() {
    let server = Running::start();
    let path = "/streams/v1/index.json";
    let first = server.get(path, "");
    let tag = first.header("etag").unwrap();
    let again = server.get(path, &format!("If-None-Match: \"x\", {tag}\r\n"));
    assert_eq!((again.status, again.body.len(), again.header("etag")), (304, 0, Some(tag)));
    let since = format!("If-Modified-Since: {}\r\n", first.header("last-modified").unwrap());
    assert_eq!(server.get(path, &since).status, 304);
    server.tree.stream.sign(&support::signing(&server.tree.key)).unwrap();
    let changed = server.get(path, &format!("If-None-Match: {tag}\r\n"));
    assert_eq!(changed.status, 200);
    assert_ne!(changed.header("etag"), Some(tag));
}

#[test]
fn documents_shrink_for_those_who_take_gzip() {
    let server = Running::start();
    let path = "/streams/v1/images-debian.json";
    let (plain, small) = (server.get(path, ""), server.get(path, "Accept-Encoding: br, gzip\r\n"));
    assert_eq!((plain.header("content-encoding"), small.header("content-encoding")), (None, Some("gzip")));
    for answer in [&plain, &small] {
        assert_eq!(answer.header("vary"), Some("Accept-Encoding"));
    }
    assert_ne!(plain.header("etag"), small.header("etag"));
    assert!(small.body.len() < plain.body.len());
    let mut unpacked = Vec::new();
    GzDecoder::new(small.body.as_slice()).read_to_end(&mut unpacked).unwrap();
    assert_eq!(unpacked, plain.body);
    let tag = small.header("etag").unwrap();
    let again = server.get(path, &format!("Accept-Encoding: gzip\r\nIf-None-Match: {tag}\r\n"));
    assert_eq!(again.status, 304);
    assert_eq!(server.get(ROOTFS, "Accept-Encoding: gzip\r\n").header("content-encoding"), None);
    let part = server.get(path, "Accept-Encoding: gzip\r\nRange: bytes=0-3\r\n");
    assert_eq!((part.status, part.header("content-encoding")), (206, None));
    assert_eq!(part.body, plain.body[..4]);
}

/// A document larger than one read, compressed piece by piece.
#[test]
fn large_documents_arrive_complete() {
    let server = Running::start();
    let text = (0..200_000).map(|n| n.to_string()).collect::<Vec<_>>().join(" ");
    let path = "/images/debian/bookworm/amd64/default/20260101_0000/build.log";
    fs::write(server.tree.root().join(&path[1..]), &text).unwrap();
    assert!(server.get(path, "").body == text.as_bytes());
    let small = server.get(path, "Accept-Encoding: gzip\r\n").body;
    let mut unpacked = String::new();
    GzDecoder::new(small.as_slice()).read_to_string(&mut unpacked).unwrap();
    assert!(unpacked == text);
    let part = server.get(path, "Range: bytes=100-999999\r\n");
    assert!(part.body == text.as_bytes()[100..1_000_000]);
}

#[test]
fn nothing_outside_the_tree_or_hidden_in_it_is_served() {
    let server = Running::start();
    let root = server.tree.root();
    fs::write(server.tree.dir.path().join("secret"), "secret").unwrap();
    let link = |target: &str, name: &str| std::os::unix::fs::symlink(target, root.join(name)).unwrap();
    link("../secret", "images/up");
    link(server.tree.dir.path().join("secret").to_str().unwrap(), "images/absolute");
    link("/proc/self/environ", "images/proc");
    link("loop", "images/loop");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        root.join("images/pipe"),
        rustix::fs::FileType::Fifo,
        0o644.into(),
        0,
    )
    .unwrap();
    for target in [
        "/../secret",
        "/images/../../secret",
        "/%2e%2e/secret",
        "/images/%2e%2e/%2e%2e/secret",
        "/..%2fsecret",
        "/%2e%2e%2fsecret",
        "/..%5csecret",
        "/....//secret",
        "/images/up",
        "/images/absolute",
        "/images/proc",
        "/images/loop",
        "/images/pipe",
        "/images",
        "/images/",
        "/streams/v1",
        "/.documents/current/index.html",
        "/%2edocuments/current/index.html",
        "/.lock",
        "/.staging/pending",
        "/key.asc/",
        "/key.asc/x",
        "/%00",
        "/key.asc%00.json",
        "/missing",
        "/%zz",
    ] {
        let answer = server.get(target, "");
        assert!(matches!(answer.status, 400 | 404), "{target}: {}", answer.status);
        assert!(answer.body.len() < 40, "{target}");
    }
    let long = format!("/{}", "a".repeat(5000));
    assert!(matches!(server.get(&long, "").status, 404 | 414));
}

#[test]
fn every_request_is_logged_with_what_was_sent() {
    let mut server = Running::start();
    let size = server.get(ROOTFS, "User-Agent: lxc/5 \"x\"\r\n").body.len();
    server.get("/missing", "");
    server.stop();
    let log = server.log.lock().unwrap();
    assert_eq!(log.len(), 2, "{log:?}");
    let expected = format!("\"GET {ROOTFS} HTTP/1.1\" 200 {size} \"-\" \"lxc/5 \\\"x\\\"\"");
    assert!(log[0].contains(&expected), "{log:?}");
    assert!(log[1].contains("\"GET /missing HTTP/1.1\" 404 "), "{log:?}");
}

fn large_file(server: &Running) -> (String, Vec<u8>) {
    let path = ROOTFS.replace("rootfs.tar.xz", "large.bin");
    let bytes: Vec<u8> = (0..32u32 << 20).map(|n| (n >> 3) as u8).collect();
    fs::write(server.tree.root().join(&path[1..]), &bytes).unwrap();
    (path, bytes)
}

#[test]
fn stopping_lets_a_download_finish_and_takes_no_new_one() {
    let mut server = Running::start();
    let (path, bytes) = large_file(&server);
    let mut stream = server.connect();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut begin = [0; 1000];
    stream.read_exact(&mut begin).unwrap();
    let mut idle = server.connect();
    let address = server.address;
    let reader = thread::spawn(move || {
        thread::sleep(Duration::from_millis(300));
        let refused = TcpStream::connect(address).is_err();
        let mut rest = begin.to_vec();
        stream.read_to_end(&mut rest).unwrap();
        (refused, Answer::parse(&rest).body)
    });
    let took = server.stop();
    let (refused, body) = reader.join().unwrap();
    assert!(refused, "a stopping server must not take new connections");
    assert!(body == bytes);
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert_eq!(idle.read(&mut [0; 1]).unwrap_or(0), 0, "an idle connection is closed");
}

#[test]
fn stopping_does_not_wait_for_ever() {
    let limits = Limits { shutdown: Duration::from_millis(500), ..Limits::default() };
    let mut server = Running::with(Tls::Off, limits);
    let (path, _) = large_file(&server);
    let mut stream = server.connect();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    stream.read_exact(&mut [0; 10]).unwrap();
    let took = server.stop();
    assert!(took < Duration::from_secs(5), "{took:?}");
}

/// A client that sends its request letter by letter, says nothing, or does not read.
#[test]
fn slow_clients_are_let_go() {
    let limits =
        Limits { head: Duration::from_millis(400), stall: Duration::from_millis(900), ..Limits::default() };
    let server = Running::with(Tls::Off, limits);
    let closed_within = |stream: &mut TcpStream, limit: Duration| {
        let began = Instant::now();
        let mut buffer = [0; 4096];
        while began.elapsed() < limit {
            match stream.read(&mut buffer) {
                Ok(0) | Err(_) => return true,
                Ok(_) => {}
            }
        }
        false
    };
    let mut letters = server.connect();
    let mut silent = server.connect();
    let dripping = thread::spawn(move || {
        for letter in "GET / HTTP/1.1\r\nX-Header: abcdefghijklmnopqrstuvwxyz".bytes() {
            if letters.write_all(&[letter]).is_err() {
                return true;
            }
            thread::sleep(Duration::from_millis(50));
        }
        false
    });
    assert!(closed_within(&mut silent, Duration::from_secs(5)), "a silent client");
    assert!(dripping.join().unwrap(), "a dripping client");
    let (path, _) = large_file(&server);
    let mut deaf = server.connect();
    write!(deaf, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    thread::sleep(Duration::from_millis(900) + Duration::from_secs(6));
    let mut rest = Vec::new();
    let _ = deaf.read_to_end(&mut rest);
    assert!(rest.len() < 32 << 20, "the response was cut off, the buffers hold what was sent");
}

/// A thousand of them would use up what the kernel has for all connections.
#[test]
fn little_waits_in_the_kernel_for_a_client_that_does_not_read() {
    let server = Running::start();
    let (path, _) = large_file(&server);
    let mut deaf = server.connect();
    write!(deaf, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let ends = [server.address.port(), deaf.local_addr().unwrap().port()];
    let [server_end, client_end] = ends.map(|port| format!("0100007F:{port:04X}"));
    let waiting = || {
        let table = fs::read_to_string("/proc/net/tcp").unwrap();
        let line = table.lines().find(|line| line.contains(&format!("{server_end} {client_end} "))).unwrap();
        let queues = line.split_whitespace().nth(4).unwrap();
        usize::from_str_radix(queues.split(':').next().unwrap(), 16).unwrap()
    };
    let mut before = 0;
    while waiting() == 0 || waiting() != before {
        before = waiting();
        thread::sleep(Duration::from_millis(300));
    }
    assert!(before < 1 << 20, "{before} bytes");
}

#[test]
fn connections_beyond_the_limit_wait_for_their_turn() {
    let server = Running::with(Tls::Off, Limits { connections: 1, ..Limits::default() });
    let first = server.connect();
    let mut second = server.connect();
    write!(second, "GET /key.asc HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    second.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    assert!(second.read(&mut [0; 1]).is_err(), "it is not its turn");
    drop(first);
    second.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut bytes = Vec::new();
    second.read_to_end(&mut bytes).unwrap();
    assert_eq!(Answer::parse(&bytes).status, 200);
}

/// A tree that is renamed into the place of the old one is served from then on.
#[test]
fn tree_put_in_place_of_another_is_served() {
    let server = Running::start();
    let other = Fixture::new();
    let root = server.tree.root();
    fs::rename(root, root.with_file_name("old")).unwrap();
    fs::rename(other.root(), root).unwrap();
    assert_eq!(server.get("/key.asc", "").body, other.key.keyring().to_armored().unwrap().as_bytes());
    assert_eq!(server.get(ROOTFS, "").status, 404);
}

fn trusting(ca: &Path) -> reqwest::Client {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let mut tls = tls.unwrap().with_root_certificates(roots).with_no_client_auth();
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    reqwest::Client::builder().tls_backend_preconfigured(tls).no_proxy().build().unwrap()
}

#[test]
fn https_works_at_once_with_the_local_authority_and_http_2() {
    let dir = tempfile::tempdir().unwrap();
    let authority = LocalAuthority::new(dir.path().join("tls"));
    let server = Running::with(Tls::Local(authority.clone(), Vec::new()), Limits::default());
    let port = server.address.port();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        for host in ["127.0.0.1", "localhost"] {
            let url = format!("https://{host}:{port}{ROOTFS}");
            let answer = trusting(&authority.ca_path()).get(url).send().await.unwrap();
            assert_eq!(answer.version(), reqwest::Version::HTTP_2);
            assert_eq!(answer.bytes().await.unwrap(), server.file(ROOTFS));
        }
        let stranger = LocalAuthority::new(dir.path().join("other"));
        stranger.server_config(&["localhost".into()], std::time::SystemTime::now()).unwrap();
        let refused = trusting(&stranger.ca_path()).get(format!("https://localhost:{port}/")).send().await;
        assert!(refused.is_err(), "another authority's certificate is not ours");
    });
}

fn bind(options: Options) -> String {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    match runtime.block_on(Server::bind(options)) {
        Ok(_) => "no error".into(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn port_in_use_and_wrong_root_are_one_clear_line() {
    let server = Running::start();
    let options = |root: &Path, listen: &str| Options {
        root: root.to_path_buf(),
        shared: None,
        listen: listen.into(),
        tls: Tls::Off,
        limits: Limits::default(),
        gate: Gate::default(),
        access_log: None,
        history: None,
        push: None,
    };
    let error = bind(options(server.tree.root(), &server.address.to_string()));
    assert!(error.contains("another program has this port") && error.lines().count() == 1, "{error}");
    let error = bind(options(server.tree.dir.path(), "127.0.0.1:0"));
    assert!(error.contains("not a stream") && error.lines().count() == 1, "{error}");
    let error = bind(options(server.tree.root(), "nonsense"));
    assert!(error.contains("cannot listen on nonsense"), "{error}");
}
