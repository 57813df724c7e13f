//! One 512-byte tar header (POSIX ustar and GNU), read strictly.

use super::archive_error;
use crate::Result;

/// Bytes of a header and unit of padding.
pub(super) const BLOCK: usize = 512;

/// A header's fields as written.
pub(super) struct RawHeader {
    pub(super) path: Vec<u8>,
    pub(super) link: Vec<u8>,
    pub(super) kind: u8,
    pub(super) mode: i64,
    pub(super) uid: i64,
    pub(super) gid: i64,
    pub(super) size: i64,
    pub(super) mtime: i64,
    pub(super) major: i64,
    pub(super) minor: i64,
}

impl RawHeader {
    /// Reads a block that is not all zeros.
    pub(super) fn parse(block: &[u8; BLOCK]) -> Result<Self> {
        let sum: i64 = block
            .iter()
            .enumerate()
            .map(|(i, b)| if (148..156).contains(&i) { 32 } else { i64::from(*b) })
            .sum();
        if number(&block[148..156])? != sum {
            return Err(archive_error("bad header checksum"));
        }
        let gnu = &block[257..265] == b"ustar  \0";
        if !gnu && &block[257..263] != b"ustar\0" {
            return Err(archive_error("neither a POSIX nor a GNU tar header"));
        }
        let mut path = field(&block[..100]).to_vec();
        let prefix = if gnu { &[][..] } else { field(&block[345..500]) };
        if !prefix.is_empty() {
            path = [prefix, b"/", &path].concat();
        }
        Ok(Self {
            path,
            link: field(&block[157..257]).to_vec(),
            kind: block[156],
            mode: number(&block[100..108])?,
            uid: number(&block[108..116])?,
            gid: number(&block[116..124])?,
            size: number(&block[124..136])?,
            mtime: number(&block[136..148])?,
            major: number(&block[329..337])?,
            minor: number(&block[337..345])?,
        })
    }
}

/// A text field: up to its first NUL.
fn field(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len())]
}

/// A number: octal digits between spaces and NULs, or GNU's base 256 when the first bit is set.
fn number(bytes: &[u8]) -> Result<i64> {
    if bytes[0] & 0x80 != 0 {
        let negative = bytes[0] == 0xff;
        let mut value: i64 = if negative { -1 } else { i64::from(bytes[0] & 0x7f) };
        for byte in &bytes[1..] {
            value = value
                .checked_mul(256)
                .and_then(|v| v.checked_add(i64::from(*byte)))
                .ok_or_else(|| archive_error("a number in a header is too large"))?;
        }
        return Ok(value);
    }
    let text = bytes.split(|b| *b == 0).next().unwrap_or_default().trim_ascii();
    text.iter().try_fold(0_i64, |value, digit| match digit {
        b'0'..=b'7' => Ok(value * 8 + i64::from(digit - b'0')),
        _ => Err(archive_error("a number in a header is not octal")),
    })
}
