//! Archives of any compression: whatever the bytes, reading ends, within its limits, without panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use millstream_image::archive::{Limits, Reader, decoder, read_small};

fuzz_target!(|data: &[u8]| {
    let _ = read_small(data);
    let limits = Limits { entries: 1000, unpacked: 16 << 20, memory: 64 << 20, ..Limits::default() };
    let Ok(decoder) = decoder(data, &limits) else { return };
    let mut reader = Reader::new(decoder, &limits);
    let mut buffer = vec![0; 4096];
    while let Ok(Some(_)) = reader.next_entry() {
        while let Ok(1..) = reader.data(&mut buffer) {}
    }
});
