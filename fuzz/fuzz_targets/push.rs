//! What builders announce that push: images' names and sizes, or refused. What is read is written the same.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| millstream_server::push::try_announcement(data));
