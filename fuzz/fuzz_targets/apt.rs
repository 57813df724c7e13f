//! Release and Packages files from strangers. What is read leads nowhere but to the archive.
#![no_main]

use std::time::{Duration, SystemTime};

use libfuzzer_sys::fuzz_target;
use millstream_builder::apt::index::{List, Release, newest};
use millstream_builder::apt::sources::Source;

fuzz_target!(|data: &[u8]| {
    let url = "http://m.example";
    let source = Source { url: url.into(), suites: vec!["test".into()], components: vec!["main".into()] };
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let _ = Release::read(&source, "amd64", data, data.to_vec(), now);
    let Ok(text) = std::str::from_utf8(data) else { return };
    for (name, package) in newest(&[List::new(url.into(), text, url)]) {
        assert_eq!(name, package.name);
        if let Ok(file) = package.file() {
            assert!(file.url.starts_with("http://m.example/") && !file.url.contains("/../"));
        }
    }
});
