//! What one client address may cost.

mod support;

use std::io::{Read, Write};
use std::thread;
use std::time::{Duration, Instant};

use millstream_server::config::PerAddress;
use millstream_server::http::{Gate, Limits, Tls};
use support::serving::{Answer, Running};

fn start(limits: PerAddress) -> Running {
    Running::guarded(Tls::Off, Limits::default(), |_| Gate { limits, ..Gate::default() })
}

#[test]
fn too_many_requests_are_told_when_to_come_again() {
    let server = start(PerAddress { requests_per_second: Some(1), burst: Some(3), ..Default::default() });
    let answers: Vec<Answer> = (0..8).map(|_| server.get("/healthz", "")).collect();
    assert!(answers[..3].iter().all(|answer| answer.status == 200));
    let refused = answers.iter().find(|answer| answer.status == 429).expect("one is refused");
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=2).contains(&wait));
    thread::sleep(Duration::from_millis(wait * 1000 + 100));
    assert_eq!(server.get("/healthz", "").status, 200);
}

#[test]
fn connections_of_one_address_are_counted() {
    let server = start(PerAddress { connections_per_address: Some(2), ..Default::default() });
    let (mut first, _second) = (server.connect(), server.connect());
    write!(first, "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut third = server.connect();
    let mut bytes = Vec::new();
    let closed = third.read_to_end(&mut bytes);
    assert!(closed.is_err() || bytes.is_empty(), "the third is turned away");
    first.read_to_end(&mut bytes).unwrap();
    assert_eq!(Answer::parse(&bytes).status, 200);
    drop(first);
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let mut again = server.connect();
        let mut bytes = Vec::new();
        let _ = write!(again, "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let _ = again.read_to_end(&mut bytes);
        if !bytes.is_empty() {
            break;
        }
        assert!(Instant::now() < end, "a place is free again");
        thread::sleep(Duration::from_millis(20));
    }
}
