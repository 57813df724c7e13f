//! Deltas from strangers, to a base both know: an error or what the delta states, within limits.
#![no_main]

use std::io::Cursor;

use libfuzzer_sys::fuzz_target;
use millstream_image::Sha256Digest;
use millstream_image::delta::{Limits, apply, rebuild};

fuzz_target!(|data: &[u8]| {
    let limits = Limits {
        archive: 1 << 20,
        delta: 1 << 20,
        patch: 1 << 16,
        control: 1 << 16,
        dictionary: 1 << 20,
    };
    let base: Vec<u8> = (0..50_000_u32).flat_map(|n| (n * n).to_le_bytes()).collect();
    let mut out = Vec::new();
    if let Ok(header) = apply(&mut Cursor::new(&base), Cursor::new(data), &mut out, &limits) {
        assert_eq!(Sha256Digest::of(&out), header.result.sha256);
        let file = tempfile::tempfile().unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &out, 0).unwrap();
        let _ = rebuild(&file, Cursor::new(data), &file, Vec::new(), 1, &limits);
    }
});
