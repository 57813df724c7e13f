//! Headers of a server that names an image, `LXD-Image-URL` and the like: an https address and a hash, or
//! an error.
#![no_main]

use libfuzzer_sys::fuzz_target;
use millstream_client::import::Direct;
use url::Url;

fuzz_target!(|data: &[u8]| {
    let base: Url = "https://a.example/dir/x".parse().expect("an address");
    // A header a line: one byte picks its name, the rest is its value.
    const NAMES: [&str; 5] =
        ["LXD-Image-Hash", "LXD-Image-URL", "Incus-Image-Hash", "incus-image-url", "Content-Type"];
    const HASH: &[u8] = b"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    let header = |line: &'_ [u8]| -> Option<(&'static str, Vec<u8>)> {
        let (pick, value) = line.split_first()?;
        let name = NAMES[usize::from(*pick) % NAMES.len()];
        // A right hash is more than chance finds.
        let value = if *pick >= 128 { [HASH, value].concat() } else { value.to_vec() };
        Some((name, value))
    };
    let headers: Vec<_> = data.split(|byte| *byte == b'\n').filter_map(header).collect();
    let pairs: Vec<_> = headers.iter().map(|(name, value)| (*name, &value[..])).collect();
    if let Ok(found) = Direct::parse(&base, &pairs) {
        assert_eq!(found.url.scheme(), "https");
        assert!(found.url.has_host());
    }
});
