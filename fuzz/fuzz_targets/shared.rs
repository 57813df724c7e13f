//! What a shared storage says of itself: where documents and images are, or refused.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| millstream_server::shared::fuzz(data));
