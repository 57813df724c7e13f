//! `server.toml`: whatever it says, reading it ends, with a message that has a line or with settings.
#![no_main]

use libfuzzer_sys::fuzz_target;
use millstream_server::config::Config;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Err(reason) = Config::parse(text) {
        assert!(!reason.is_empty());
    }
});
