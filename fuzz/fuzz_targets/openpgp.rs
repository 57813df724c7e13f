//! Keys, signatures and signed messages from strangers: none verifies with an empty keyring.
#![no_main]

use std::time::{Duration, SystemTime};

use libfuzzer_sys::fuzz_target;
use millstream_image::openpgp::Keyring;

fuzz_target!(|data: &[u8]| {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let _ = Keyring::from_bytes(data);
    assert!(Keyring::default().verify_cleartext(data, now).is_err());
    assert!(Keyring::default().verify_detached(&b"text"[..], data, now).is_err());
});
