//! xz streams read with one thread and with several: whatever the bytes, both end, within their
//! limits, and agree. A stream of good blocks with bytes changed gets past the checksums of headers
//! more often than chance would let it.
#![no_main]

use std::io::{Read, Write};

use libfuzzer_sys::fuzz_target;
use millstream_image::archive::{Limits, Watch, XzOptions, XzWriter, decoder};

fn read(data: &[u8], threads: usize) -> Option<Vec<u8>> {
    let limits = Limits { threads, memory: 32 << 20, ..Limits::default() };
    let mut out = Vec::new();
    let decoder = decoder(data, &limits).ok()?;
    decoder.take(16 << 20).read_to_end(&mut out).ok()?;
    Some(out)
}

fuzz_target!(|data: &[u8]| {
    let raw = [&b"\xfd7zXZ\0"[..], data].concat();
    assert!(read(&raw, 1) == read(&raw, 3));
    let Some((change, rest)) = data.split_first_chunk::<3>() else { return };
    let options = XzOptions { level: 0, bcj: None, threads: 1, block_size: 64 << 10 };
    let mut writer = XzWriter::new(Vec::new(), options, Watch::default(), None);
    for block in rest.chunks(1 + usize::from(change[0]) * 16) {
        writer.write_all(block).expect("memory");
        writer.end_block(false).expect("memory");
    }
    let (mut stream, _) = writer.finish().expect("memory");
    assert!(read(&stream, 3).as_deref() == Some(rest));
    let at = usize::from(change[1]) * stream.len() / 256;
    stream[at] ^= change[2];
    assert!(read(&stream, 1) == read(&stream, 3));
});
