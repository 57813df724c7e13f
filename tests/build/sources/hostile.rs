//! Mirrors that lie.

use std::time::{Duration, Instant};

use super::distributions::{key, publish, recipe};
use super::server::{Fault, Server};
use super::table::CASES;
use crate::bench::{Bench, fails};

/// What a build from a mirror that misbehaves on paths with this ending says.
fn said(ending: &str, fault: Fault) -> String {
    let case = CASES.iter().find(|case| case.downloader == "alpinelinux-http").unwrap();
    let (bench, server, key) = (Bench::new(), Server::start(), key());
    publish(case, &server, &key);
    server.misbehave(ending, fault);
    let began = Instant::now();
    let text = fails(&mut bench.build(&recipe(case, &server, &key), "out", &["--format=dir"]));
    assert!(began.elapsed() < Duration::from_mins(2), "{ending}: {:?}", began.elapsed());
    bench.assert_clean("out");
    text
}

#[test]
fn lists_and_signatures_without_end_are_cut_off() {
    for ending in ["/releases/x86_64/", ".sha256", ".asc"] {
        let text = said(ending, Fault::Endless);
        assert!(text.contains("bytes allowed"), "{ending}: {text}");
    }
}

#[test]
fn lies_about_the_size_are_refused() {
    let text = said("3.20.10-x86_64.tar.gz", Fault::LongHead);
    assert!(text.contains("3.20.10-x86_64.tar.gz"), "{text}");
}

#[test]
fn redirects_to_anything_but_http_are_refused() {
    for to in ["file:///etc/shadow", "ftp://127.0.0.1/x", "gopher://127.0.0.1/"] {
        let text = said("3.20.10-x86_64.tar.gz", Fault::Redirect(to.to_owned()));
        assert!(text.contains("unsafe address"), "{to}: {text}");
        let text = said(".sha256", Fault::Redirect(to.to_owned()));
        assert!(text.contains("unsafe address"), "{to}: {text}");
    }
}
