//! Targets and headers of requests, as far as our own code reads them: nothing leads out of the tree or the
//! file, and reading ends.
#![no_main]

use libfuzzer_sys::fuzz_target;
use millstream_server::http::fuzzing;

fuzz_target!(|data: &[u8]| {
    // The size of a file, a line with the target, and lines with a header each.
    let Some((size, data)) = data.split_at_checked(2) else { return };
    let size = u64::from(u16::from_le_bytes([size[0], size[1]]));
    let mut lines = data.split(|byte| *byte == b'\n');
    let Some(Ok(target)) = lines.next().map(std::str::from_utf8) else { return };
    let headers = lines.filter_map(|line| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        Some((&line[..colon], line[colon + 1..].trim_ascii()))
    });
    fuzzing::request(target, headers, size);
});
