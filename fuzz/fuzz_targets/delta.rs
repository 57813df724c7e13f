//! Deltas from strangers, to a base both know: an error or what the delta states, within limits. A good
//! delta with bytes changed, and a checksum that fits again, gets further than chance would.
#![no_main]

use std::fs::{self, File};
use std::io::{Cursor, Read, Seek};
use std::os::unix::fs::FileExt;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use millstream_image::Sha256Digest;
use millstream_image::archive::Watch;
use millstream_image::delta::{Limits, MakeOptions, apply, make, rebuild};

/// Bytes of a header; the last four are its CRC-32.
const HEADER: usize = 200;

const LIMITS: Limits =
    Limits { archive: 1 << 20, delta: 1 << 20, patch: 1 << 16, control: 1 << 16, dictionary: 1 << 20 };

struct Bench {
    base: Vec<u8>,
    delta: Vec<u8>,
}

static BENCH: LazyLock<Bench> = LazyLock::new(|| {
    let dir = tempfile::tempdir().expect("a directory");
    let archive = |name: &str, step: u32| {
        let bytes: Vec<u8> = (0..5000_u32).flat_map(|n| (n * n / step).to_le_bytes()).collect();
        let mut header = tar(bytes.len());
        header.extend(bytes);
        header.resize(header.len().next_multiple_of(512) + 1024, 0);
        fs::write(dir.path().join(name), &header).expect("a temporary file");
        header
    };
    let base = archive("base", 7);
    archive("new", 8);
    let options = MakeOptions { threads: 1, limits: LIMITS, most: u64::MAX, watch: Watch::default() };
    let path = dir.path().join("delta");
    let mut file = File::options().read(true).write(true).create_new(true).open(path).expect("a file");
    make(&dir.path().join("base"), &dir.path().join("new"), &mut file, dir.path(), &options)
        .expect("a delta");
    let mut delta = Vec::new();
    file.rewind().expect("a file");
    file.read_to_end(&mut delta).expect("the delta");
    assert_eq!(delta[HEADER - 4..HEADER], crc32fast::hash(&delta[..HEADER - 4]).to_le_bytes());
    Bench { base, delta }
});

/// The header of a file `f` of so many bytes (POSIX ustar).
fn tar(size: usize) -> Vec<u8> {
    let mut header = vec![0; 512];
    let mut put = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, "f");
    put(100, "0000644");
    put(108, "0000000");
    put(116, "0000000");
    put(124, &format!("{size:011o}"));
    put(136, "00000000000");
    put(148, "        ");
    put(156, "0");
    put(257, "ustar\0");
    put(263, "00");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

fn check(delta: &[u8]) {
    let base = &BENCH.base;
    let mut out = Vec::new();
    if let Ok(header) = apply(&mut Cursor::new(base), Cursor::new(delta), &mut out, &LIMITS) {
        assert_eq!(Sha256Digest::of(&out), header.result.sha256);
    }
    let file = tempfile::tempfile().expect("a temporary file");
    file.write_all_at(base, 0).expect("a temporary file");
    let _ = rebuild(&file, Cursor::new(delta), &file, Vec::new(), 1, &LIMITS);
}

fuzz_target!(|data: &[u8]| {
    check(data);
    let mut delta = BENCH.delta.clone();
    for change in data.chunks_exact(3) {
        let at = usize::from(u16::from_le_bytes([change[0], change[1]])) % delta.len();
        delta[at] ^= change[2];
    }
    let sum = crc32fast::hash(&delta[..HEADER - 4]);
    delta[HEADER - 4..HEADER].copy_from_slice(&sum.to_le_bytes());
    check(&delta);
});
