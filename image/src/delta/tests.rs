//! Deltas whose checksums are right and whose contents lie.

use std::io::{Cursor, Write};

use super::format::{Header, Identity, SectionWriter};
use super::{Limits, apply, rebuild};
use crate::{Error, Result, Sha256Digest};

const BASE: &[u8] = &[7; 1000];

/// A delta of these sections that promises `result` bytes.
fn delta(sections: [&[u8]; 4], result: u64) -> Vec<u8> {
    let identity = |size| Identity { sha256: Sha256Digest::of(b""), size };
    let mut header = Header {
        base: identity(BASE.len() as u64),
        result: identity(result),
        file: Some(identity(1000)),
        sections: Default::default(),
    };
    let mut packed = Vec::new();
    for (number, bytes) in sections.into_iter().enumerate() {
        let mut writer = SectionWriter::new().unwrap();
        writer.write_all(bytes).unwrap();
        let (bytes, sizes) = writer.finish().unwrap();
        header.sections[number] = sizes;
        packed.extend(bytes);
    }
    [header.to_bytes(), packed].concat()
}

fn numbers(values: &[u64]) -> Vec<u8> {
    let mut writer = super::format::StepWriter::default();
    for value in values {
        writer.number(*value);
    }
    writer.take()
}

fn refused<T>(result: Result<T>, expected: &str) {
    match result.map(|_| ()) {
        Err(Error::Archive { reason, .. }) => assert!(reason.contains(expected), "{reason}: not {expected}"),
        other => panic!("{other:?}: not {expected}"),
    }
}

#[test]
fn steps_that_lie_are_refused() {
    let limits = Limits { patch: 4000, ..Limits::default() };
    // Signed numbers are zigzag: 2 is one ahead, 1 is one back.
    for (control, expected) in [
        (vec![0], "leaves the result"),
        (vec![101 << 2, 0], "leaves the result"),
        (vec![100 << 2, 902 * 2], "leaves the base"),
        (vec![100 << 2, 1], "leaves the base"),
        (vec![100 << 2, u64::MAX >> 2], "leaves the base"),
        (vec![100 << 2 | 2, 0, 5000, 0], "larger than 4000 bytes"),
        (vec![100 << 2 | 2, 0, 1001, 0], "leaves the base"),
        (vec![100 << 2 | 2, 0, 10, 1000], "too many pieces"),
        (vec![100 << 2 | 2, 0, 10, 0], "piece of a changed file leaves it"),
        (vec![100 << 2 | 2, 0, 10, 1, 0, 11, 89], "piece of a changed file leaves it"),
        (vec![100 << 2 | 2, 0, 10, 1, 1, 10, 90], "piece of a changed file leaves it"),
        (vec![100 << 2 | 2, 0, 10, 1, 0, 10, 91], "piece of a changed file leaves it"),
        (vec![100 << 2 | 2, 0, 10, 2, 0, 0, 0, 0, 10, 90], "piece of a changed file leaves it"),
        (vec![100 << 2 | 2, 0, 10, 1, 0, 10, u64::MAX >> 1], "piece of a changed file leaves it"),
        (vec![100 << 2 | 3, 0, 10, 1, 0, 10, 90], "more bytes than it states"),
        (vec![100 << 2 | 1], "more bytes than it states"),
        (vec![100 << 2, 0, 0], "holds more than it needs"),
        (vec![50 << 2, 0], "more bytes than it states"),
    ] {
        let delta = delta([&numbers(&control), b"", b"", b""], 100);
        let mut out = Vec::new();
        refused(apply(&mut Cursor::new(BASE), Cursor::new(delta), &mut out, &limits), expected);
    }
    let copy = numbers(&[100 << 2, 0]);
    for sections in [[&copy[..], b"x", b"", b""], [&copy, b"", b"x", b""]] {
        let result = apply(&mut Cursor::new(BASE), Cursor::new(delta(sections, 100)), Vec::new(), &limits);
        refused(result, "holds more than it needs");
    }
    let endless = delta([&[0xff; 20], b"", b"", b""], 100);
    refused(apply(&mut Cursor::new(BASE), Cursor::new(endless), Vec::new(), &limits), "too long");
    let short = apply(
        &mut Cursor::new(&BASE[..50]),
        Cursor::new(delta([&copy, b"", b"", b""], 100)),
        Vec::new(),
        &limits,
    );
    refused(short, "the base is shorter");
}

#[test]
fn block_lists_that_lie_are_refused() {
    let file = tempfile::tempfile().unwrap();
    for (layout, expected) in [
        (vec![0, 9, 0, 0], "no xz file has"),
        (vec![0, 4, 65], "no xz file has"),
        (vec![0, 4, 1, 300, 0, 0, 0, 0, 0], "too large"),
        (vec![0, 4, 1, 21, 0, 0, 3, 0, 2, 0], "a coder that is not allowed"),
        (vec![0, 4, 1, 6, 0, 40, 3, 0, 2, 0], "a coder that is not allowed"),
        (vec![0, 4, 1, 6, 0, 30, 3, 0, 2, 0], "a coder that is not allowed"),
        (vec![0, 4, 1, 6, 0, 12, 4, 1, 2, 0], "a coder that is not allowed"),
        (vec![0, 4, 0, 1 << 40], "too long"),
        (vec![0, 4, 0, 1, 0, 0], "leaves the archive"),
        (vec![0, 4, 0, 1, 100, 0, 12, 3], "leaves the archive"),
        (vec![0, 4, 1, 6, 0, 12, 3, 0, 2, 1, 100, 0, 13, 3], "an impossible block"),
        (vec![0, 4, 1, 6, 0, 12, 3, 0, 2, 1, 101, 0, 12, 3], "leaves the archive"),
        (vec![0, 4, 0, 0], "leaves the archive"),
    ] {
        let delta = delta([b"", b"", b"", &numbers(&layout)], 100);
        refused(rebuild(&file, Cursor::new(delta), &file, Vec::new(), 1, &Limits::default()), expected);
    }
}

#[test]
fn headers_that_claim_too_much_are_refused() {
    let good = delta([b"", b"", b"", b""], 100);
    let limits = Limits { archive: 1 << 20, delta: 1 << 20, ..Limits::default() };
    for at in [44, 84, 124, 132, 140, 148, 156, 164, 172, 180, 188] {
        let mut bad = good.clone();
        bad[at..at + 8].copy_from_slice(&(1_u64 << 50).to_le_bytes());
        let end = super::format::HEADER - 4;
        let crc = crc32fast::hash(&bad[..end]).to_le_bytes();
        bad[end..end + 4].copy_from_slice(&crc);
        assert!(Header::read(&mut &bad[..], &limits).is_err(), "field at {at}");
    }
}
