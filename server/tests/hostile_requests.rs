//! Requests that mean harm, byte by byte over plain sockets: to smuggle a second request past whoever stands
//! before us, to read beyond the tree, to cost much for little. After each the server is as before.

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use support::serving::{Answer, ROOTFS, Running};

/// Sends these bytes; gives all that comes back before the connection ends, or nothing comes for a while.
fn exchange(server: &Running, bytes: &[u8]) -> Vec<u8> {
    let mut stream = server.connect();
    let mut writer = stream.try_clone().unwrap();
    let bytes = bytes.to_vec();
    // Beside reading: who is refused in the middle of what it sends must still learn why.
    let writing = std::thread::spawn(move || drop(writer.write_all(&bytes)));
    let mut answer = Vec::new();
    let mut buffer = [0; 16 << 10];
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        answer.extend_from_slice(&buffer[..count]);
        stream.set_read_timeout(Some(QUIET)).unwrap();
    }
    let _ = stream.shutdown(Shutdown::Both);
    writing.join().unwrap();
    answer
}

/// After an answer, how long one waits for another that must not come.
const QUIET: Duration = Duration::from_millis(700);

/// The status of each answer in these bytes.
fn statuses(bytes: &[u8]) -> Vec<u16> {
    let text = String::from_utf8_lossy(bytes);
    let lines = text.split("HTTP/1.1 ").skip(1);
    lines.filter_map(|line| line.get(..3)?.parse().ok()).collect()
}

fn is_well(server: &Running) {
    let answer = server.get(ROOTFS, "");
    assert_eq!((answer.status, answer.body), (200, server.file(ROOTFS)));
}

/// What a second request would be answered with, were it taken for one.
const SMUGGLED: &str = "GET /key.asc HTTP/1.1\r\nHost: x\r\nX-Smuggled: yes\r\nConnection: close\r\n\r\n";

#[test]
fn who_says_two_lengths_is_let_go_at_once() {
    let server = Running::start();
    let length = SMUGGLED.len();
    for (name, head) in [
        ("two lengths", format!("Content-Length: 0\r\nContent-Length: {length}\r\n")),
        ("two lengths, the other first", format!("Content-Length: {length}\r\nContent-Length: 0\r\n")),
        ("a list of lengths", format!("Content-Length: 0, {length}\r\n")),
        ("a signed length", "Content-Length: +0\r\n".into()),
        ("a negative length", "Content-Length: -1\r\n".into()),
        ("a length in hexadecimal", "Content-Length: 0x0\r\n".into()),
        ("no length", "Content-Length: \r\n".into()),
        ("a length beyond all", "Content-Length: 99999999999999999999999\r\n".into()),
        ("a length and words", "Content-Length: 0 x\r\n".into()),
        ("a blank before the colon", "Content-Length : 0\r\n".into()),
        ("a folded line", format!("X: a\r\n Content-Length: {length}\r\n")),
        ("a bare CR in a value", "X: a\rContent-Length: 5\r\n".into()),
        ("a NUL in a value", "X: a\0b\r\n".into()),
        ("an unknown coding", "Transfer-Encoding: xchunked\r\n".into()),
        ("codings that end in another", "Transfer-Encoding: chunked, identity\r\n".into()),
        ("a tab before the colon", "Transfer-Encoding\t: chunked\r\n".into()),
    ] {
        for method in ["GET", "POST"] {
            let answer = exchange(
                &server,
                format!("{method} / HTTP/1.1\r\nHost: x\r\n{head}\r\n{SMUGGLED}").as_bytes(),
            );
            assert_eq!(statuses(&answer), [400], "{method}, {name}: {}", String::from_utf8_lossy(&answer));
        }
    }
    is_well(&server);
    assert!(!server.log.lock().unwrap().join("\n").contains("key.asc"));
}

/// With both a coding and a length, the coding counts, and nobody may read on as another server would.
#[test]
fn a_coding_and_a_length_are_one_request_at_most() {
    let server = Running::start();
    let length = format!("Content-Length: {}\r\n", 5 + SMUGGLED.len());
    let coding = "Transfer-Encoding: chunked\r\n";
    for head in [format!("{length}{coding}"), format!("{coding}{length}")] {
        let request = format!("POST / HTTP/1.1\r\nHost: x\r\n{head}\r\n0\r\n\r\n{SMUGGLED}");
        let answer = exchange(&server, request.as_bytes());
        let statuses = statuses(&answer);
        assert!(matches!(statuses.as_slice(), [400 | 405]), "{head}: {statuses:?}");
    }
    let old = format!("POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{SMUGGLED}");
    assert!(matches!(statuses(&exchange(&server, old.as_bytes())).as_slice(), [400 | 405]), "of HTTP/1.0");
    is_well(&server);
}

#[test]
fn broken_chunks_end_the_connection() {
    let server = Running::start();
    for chunks in [
        "zz\r\n",
        "-1\r\n",
        "0x5\r\nabcde\r\n0\r\n\r\n",
        "ffffffffffffffffff\r\n",
        "5\nabcde\r\n0\r\n\r\n",
        "5\r\nabcdeXX0\r\n\r\n",
        "5;\nx\r\nabcde\r\n0\r\n\r\n",
        " 5\r\nabcde\r\n0\r\n\r\n",
        "\r\n0\r\n\r\n",
    ] {
        let request =
            format!("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}{SMUGGLED}");
        let answer = exchange(&server, request.as_bytes());
        assert!(
            matches!(statuses(&answer).as_slice(), [] | [400 | 405]),
            "{chunks:?}: {:?}",
            statuses(&answer)
        );
    }
    // Extensions and trailers without end.
    for endless in [format!("5;{}", "x".repeat(1 << 20)), format!("0\r\n{}", "a: b\r\n".repeat(1 << 17))] {
        let request = format!("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{endless}");
        let began = Instant::now();
        let answer = exchange(&server, request.as_bytes());
        assert!(matches!(statuses(&answer).as_slice(), [] | [400 | 405]), "{:?}", statuses(&answer));
        assert!(began.elapsed() < Duration::from_secs(15));
    }
    is_well(&server);
}

/// A body that a request says it has, and does not send, is not another request.
#[test]
fn bodies_are_no_requests() {
    let server = Running::start();
    let length = SMUGGLED.len();
    for method in ["GET", "HEAD"] {
        let request = format!("{method} / HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{SMUGGLED}");
        let answer = exchange(&server, request.as_bytes());
        assert_eq!(statuses(&answer), [200], "{method}: {}", String::from_utf8_lossy(&answer));
    }
    let chunked = format!(
        "GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{length:x}\r\n{SMUGGLED}\r\n0\r\n\r\n"
    );
    assert_eq!(statuses(&exchange(&server, chunked.as_bytes())), [200]);
    assert!(!server.log.lock().unwrap().join("\n").contains("key.asc"));
    // Two good requests are two.
    let two = format!("GET / HTTP/1.1\r\nHost: x\r\n\r\n{SMUGGLED}");
    let mut stream = server.connect();
    stream.write_all(two.as_bytes()).unwrap();
    let mut answers = Vec::new();
    stream.read_to_end(&mut answers).unwrap();
    assert_eq!(statuses(&answers), [200, 200]);
    assert!(server.log.lock().unwrap().join("\n").contains("key.asc"));
}

#[test]
fn what_is_no_request_is_refused() {
    let server = Running::start();
    for line in [
        "GET  / HTTP/1.1",
        "GET / HTTP/1.1 x",
        "GET / HTTP/9.9",
        "GET / HTTX/1.1",
        "GET /\0 HTTP/1.1",
        "GET /a b HTTP/1.1",
        "GET",
        "G{T / HTTP/1.1",
        "\x16\x03\x01\x02\0\x01",
    ] {
        let answer = exchange(&server, format!("{line}\r\nHost: x\r\n\r\n").as_bytes());
        assert!(
            matches!(statuses(&answer).as_slice(), [] | [400 | 505]),
            "{line:?}: {:?}",
            statuses(&answer)
        );
    }
    // Whole addresses and `*` name nothing of another host, and no file.
    for (target, expected) in
        [("*", 400), ("http://other.example/../.lock", 404), ("http://other.example/key.asc", 200)]
    {
        assert_eq!(server.get(target, "").status, expected, "{target}");
    }
    assert!(matches!(server.request("CONNECT", "other.example:443", "").status, 400 | 404 | 405));
    is_well(&server);
}

#[test]
fn no_spelling_leads_out_of_the_tree_or_to_what_is_hidden() {
    let server = Running::start();
    let beside = server.tree.dir.path();
    fs::write(beside.join("secret"), "hush").unwrap();
    fs::write(server.tree.root().join(".lock"), "hush").unwrap();
    let ups = [
        "..",
        "%2e%2e",
        "%2E%2e",
        ".%2e",
        "%252e%252e",
        "%25252e%25252e",
        "%c0%ae%c0%ae",
        "%e0%80%ae%e0%80%ae",
        "%f0%80%80%ae%f0%80%80%ae",
        "%uff0e%uff0e",
        "..%00",
        "%00..",
        "..;",
        "..%20",
        "..%09",
        "..%0a",
        "....",
        "%ef%bc%8e%ef%bc%8e",
        ". .",
        "..\u{202e}",
    ];
    let slashes =
        ["/", "//", "%2f", "%2F", "%252f", "\\", "%5c", "%255c", "/./", "%c0%af", "%e2%88%95", "/%00/"];
    for up in ups {
        for slash in slashes {
            for start in ["", "images", "images/debian/bookworm", "direct", "1.0/images"] {
                for (steps, name) in [(1, "secret"), (3, "secret"), (5, "etc/passwd"), (2, ".lock")] {
                    let lead = if start.is_empty() { String::new() } else { format!("/{start}") };
                    let climb = format!("{up}{slash}").repeat(steps);
                    let target = format!("{lead}/{climb}{name}");
                    if target.bytes().any(|byte| byte <= b' ' || byte > b'~') {
                        continue; // No target of a request: see above.
                    }
                    refused(&mut server.connect(), &target);
                }
            }
        }
    }
    for target in [
        "/.lock",
        "/%2elock",
        "/%2Elock",
        "/./.lock",
        "//.lock",
        "/images/../.lock",
        "/.lock/",
        "/.lock%00.json",
        "/.lock?x=/key.asc",
        "/.lock;x",
        "/.documents/current/direct/debian.map",
        "/streams/../.lock",
        "/key.asc/../.lock",
        "/proc/self/environ",
        "//etc/passwd",
        "/%2fetc/passwd",
        "/file:///etc/passwd",
        "/C:%5cWindows",
        "/images/%ff",
        "/%",
        "/%2",
        "/%gg",
    ] {
        refused(&mut server.connect(), target);
    }
    is_well(&server);
}

fn refused(stream: &mut TcpStream, target: &str) {
    write!(stream, "GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let answer = Answer::parse(&bytes);
    assert!(matches!(answer.status, 400 | 404), "{target}: {}", answer.status);
    let body = String::from_utf8_lossy(&answer.body);
    assert!(!body.contains("hush") && !body.contains("root:"), "{target}: {body}");
}

#[test]
fn heads_have_a_largest_size() {
    let server = Running::start();
    let long = |n: usize| "a".repeat(n);
    for (name, request, expected) in [
        ("a long target", format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", long(60_000)), &[404, 414][..]),
        ("a longer target", format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", long(1 << 20)), &[400, 414, 431]),
        ("a target without end", format!("GET /{}", long(4 << 20)), &[400, 414, 431]),
        ("a long method", format!("{} / HTTP/1.1\r\nHost: x\r\n\r\n", long(1 << 20)), &[400, 431]),
        ("a long header", format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", long(1 << 20)), &[431]),
        ("a header without end", format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}", long(4 << 20)), &[431]),
        ("a long name", format!("GET / HTTP/1.1\r\nHost: x\r\n{}: x\r\n\r\n", long(1 << 20)), &[400, 431]),
        ("many headers", format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "X: y\r\n".repeat(20_000)), &[431]),
        ("a few too many", format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "X: y\r\n".repeat(150)), &[431]),
    ] {
        let answer = exchange(&server, request.as_bytes());
        let statuses = statuses(&answer);
        // Who goes on sending may miss the answer, as the connection is gone.
        let met = statuses.is_empty() || statuses.len() == 1 && expected.contains(&statuses[0]);
        assert!(met, "{name}: {statuses:?}");
    }
    is_well(&server);
    assert!(server.log.lock().unwrap().len() < 10, "what is no request reaches nobody");
}

#[test]
fn ranges_cost_no_more_than_the_file() {
    let server = Running::start();
    let whole = server.file(ROOTFS);
    let size = whole.len();
    let many = (0..5000).map(|n| format!("{n}-{n}")).collect::<Vec<_>>().join(",");
    let same = vec!["0-"; 5000].join(",");
    let overlapping = (0..500).map(|n| format!("{n}-{}", n + 400)).collect::<Vec<_>>().join(",");
    let begun = [many, same, overlapping, "0-1,0-1".into(), "0-0,-1".into()];
    let nonsense = [
        "", "-", "--", "a-b", "5-2", "0-1-2", "0x0-0x5", "+1-5", "1.5-3", "0-1;", " ", "١-٢", "0 -1", "00",
        "*",
    ];
    for range in begun.iter().map(String::as_str).chain(nonsense) {
        let answer = server.get(ROOTFS, &format!("Range: bytes={range}\r\n"));
        assert!(answer.status == 200 && answer.body == whole, "{range:.80}: {}", answer.status);
    }
    for (range, part) in [
        ("0-18446744073709551615".to_owned(), 0..size),
        ("0-18446744073709551616".into(), 0..size),
        (format!("0-{}", "9".repeat(2000)), 0..size),
        (format!("-{}", "9".repeat(2000)), 0..size),
        ("000000000000000000000001-2".into(), 1..3),
    ] {
        let answer = server.get(ROOTFS, &format!("Range: bytes={range}\r\n"));
        assert!(answer.status == 206 && answer.body == whole[part], "{range:.80}: {}", answer.status);
    }
    for range in [format!("{size}-"), "18446744073709551615-".into(), "9".repeat(2000) + "-", "-0".into()] {
        let answer = server.get(ROOTFS, &format!("Range: bytes={range}\r\n"));
        assert_eq!((answer.status, answer.body.len() < 100), (416, true), "{range:.80}");
    }
    // Two headers are none that can be met; other units are passed over.
    for headers in ["Range: bytes=0-0\r\nRange: bytes=5-\r\n", "Range: lines=0-1\r\n", "Range: bytes 0-1\r\n"]
    {
        let answer = server.get(ROOTFS, headers);
        assert!(matches!(answer.status, 200 | 206) && answer.body.len() <= size, "{headers}");
    }
    is_well(&server);
}

#[test]
fn odd_conditions_and_codings_are_survived() {
    let server = Running::start();
    let long = "\"a\",".repeat(10_000);
    for headers in [
        format!("If-None-Match: {long}\r\n"),
        "If-None-Match: \"\r\n".into(),
        "If-None-Match: \u{fc}\r\n".into(),
        "If-Modified-Since: Thu, 99 Foo 99999 99:99:99 GMT\r\n".into(),
        "If-Range: W/\r\nRange: bytes=0-0\r\n".into(),
        "Accept-Encoding: gzip;q=NaN\r\n".into(),
        "Accept-Encoding: gzip;q=-1, ;;;=,\r\n".into(),
        format!("Accept-Encoding: {}\r\n", "gzip;q=0.1,".repeat(5000)),
        "Authorization: Bearer\r\n".into(),
        format!("Authorization: Bearer {}\r\n", "a".repeat(50_000)),
        "Expect: 100-continue\r\n".into(),
        "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings, close\r\nHTTP2-Settings: AAAA\r\n".into(),
        "LXD-Server-Architectures: \u{fc},,,\r\nLXD-Server-Version: 9999999999999.x\r\n".into(),
    ] {
        for target in [ROOTFS, "/streams/v1/index.json", "/direct/debian/bookworm"] {
            let status = server.get(target, &headers).status;
            assert!(matches!(status, 200 | 206 | 304 | 404), "{target} {headers:.60}: {status}");
        }
    }
    is_well(&server);
}
