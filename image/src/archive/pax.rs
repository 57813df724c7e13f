//! Extended headers (POSIX.1-2001, pax): `LENGTH KEY=VALUE\n` records.

use std::collections::BTreeMap;

use super::archive_error;
use crate::Result;

/// Prefix under which GNU tar, star and libarchive store extended attributes.
const XATTR: &str = "SCHILY.xattr.";

/// Characters of an attribute's name that keys hold in another form, as GNU tar writes them.
const ESCAPES: [(&str, &str); 2] = [("%", "%25"), ("=", "%3D")];

/// The key for an extended attribute.
pub(super) fn attribute(name: &str) -> String {
    XATTR.to_owned() + &ESCAPES.iter().fold(name.to_owned(), |name, (from, to)| name.replace(from, to))
}

/// The name of the extended attribute a key is for.
pub(super) fn attribute_name(key: &str) -> Option<String> {
    let name = key.strip_prefix(XATTR)?.to_owned();
    Some(ESCAPES.iter().rev().fold(name, |name, (from, to)| name.replace(to, from)))
}

/// The records of one extended header; keys are text, values any bytes.
pub(super) type Records = BTreeMap<String, Vec<u8>>;

/// Reads records; a malformed or repeated one is an error.
pub(super) fn parse(mut data: &[u8]) -> Result<Records> {
    let bad = |reason: &str| archive_error(format!("broken extended header: {reason}"));
    let mut records = Records::new();
    while !data.is_empty() {
        let space = data.iter().take(12).position(|b| *b == b' ').ok_or_else(|| bad("no length"))?;
        let digits = &data[..space];
        if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) || digits[0] == b'0' {
            return Err(bad("bad length"));
        }
        let length: usize =
            std::str::from_utf8(digits).ok().and_then(|d| d.parse().ok()).ok_or_else(|| bad("bad length"))?;
        if length <= space + 1 || length > data.len() || data[length - 1] != b'\n' {
            return Err(bad("length does not fit"));
        }
        let record = &data[space + 1..length - 1];
        let equals = record.iter().position(|b| *b == b'=').ok_or_else(|| bad("no ="))?;
        let key = std::str::from_utf8(&record[..equals]).map_err(|_| bad("key is not UTF-8"))?;
        if key.is_empty() || records.insert(key.to_owned(), record[equals + 1..].to_vec()).is_some() {
            return Err(bad("a key is empty or stands twice"));
        }
        data = &data[length..];
    }
    Ok(records)
}

/// Appends one record. Its length counts its own digits.
pub(super) fn push(out: &mut Vec<u8>, key: &str, value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    out.extend_from_slice(format!("{length} {key}=").as_bytes());
    out.extend_from_slice(value);
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_at_every_length() {
        for length in 0..1200 {
            let mut out = Vec::new();
            push(&mut out, "path", &vec![b'x'; length]);
            push(&mut out, "k", b"a=\n\0");
            let records = parse(&out).unwrap();
            assert_eq!(records["path"].len(), length);
            assert_eq!(records["k"], b"a=\n\0");
        }
    }

    #[test]
    fn broken_records_are_refused() {
        for bad in [
            "x",
            "7 a=b\n",
            "6 a=b",
            "06 a=b\n",
            "6 ab=\n6 ab=\n",
            "5 ab\n\n",
            "99 a=b\n",
            "6 =ab\n",
            "-6 a=b\n",
        ] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }
}
