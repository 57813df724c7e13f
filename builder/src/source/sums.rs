//! Checksums as distributions publish them.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use millstream_image::Sha256Digest;
use sha2::{Digest, Sha512};

use crate::{Error, Result};

/// A checksum of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Checksum {
    /// SHA-256.
    Sha256(Sha256Digest),
    /// SHA-512, 128 lower-case hex digits.
    Sha512(String),
}

impl Checksum {
    /// Reads 64 or 128 hex digits.
    pub(super) fn parse(hex: &str) -> Option<Self> {
        let hex = hex.to_ascii_lowercase();
        match hex.len() {
            64 => hex.parse().ok().map(Self::Sha256),
            128 if hex.bytes().all(|b| b.is_ascii_hexdigit()) => Some(Self::Sha512(hex)),
            _ => None,
        }
    }

    /// Fails unless the file, whose SHA-256 is known already, is the one meant.
    pub(super) fn check(&self, what: &str, file: &Path, sha256: Sha256Digest) -> Result<()> {
        let found = match self {
            Self::Sha256(_) => Self::Sha256(sha256),
            Self::Sha512(_) => Self::Sha512(sha512(file).map_err(Error::io(file))?),
        };
        if found == *self {
            return Ok(());
        }
        Err(Error::Untrusted {
            what: what.to_owned(),
            reason: format!("its checksum is {found}, published is {self}"),
        })
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sha256(digest) => write!(f, "SHA-256 {digest}"),
            Self::Sha512(digest) => write!(f, "SHA-512 {digest}"),
        }
    }
}

fn sha512(file: &Path) -> io::Result<String> {
    let mut file = File::open(file)?;
    let mut state = Sha512::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            count => state.update(&buffer[..count]),
        }
    }
    let digits: Vec<_> = state.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(digits.concat())
}

/// The checksum of `name` in a text of checksums: lines of `HEX  NAME` (coreutils, with `*` or a
/// path before the name), `SHA256 (NAME) = HEX` (BSD, Fedora's and its kin's), or the digits alone.
/// Gentoo's `DIGESTS` name each algorithm in a comment; only digits of the named one count there.
pub(super) fn find(text: &str, name: &str) -> Option<Checksum> {
    let mut heading = "";
    let mut found = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if let Some(title) = line.strip_prefix('#') {
            heading = title.trim();
            continue;
        }
        let usable = matches!(heading.split_whitespace().next(), Some("SHA512" | "SHA256"))
            || !heading.ends_with(" HASH");
        if usable && let Some(checksum) = read_line(line, name) {
            found.push(checksum);
        }
    }
    // The same file with two checksums of one kind would be one or the other by chance.
    let first = found.first()?.clone();
    let alike = |a: &Checksum, b: &Checksum| std::mem::discriminant(a) == std::mem::discriminant(b);
    found.iter().all(|other| !alike(other, &first) || *other == first).then_some(first)
}

fn read_line(line: &str, name: &str) -> Option<Checksum> {
    if let Some((algorithm, rest)) = line.split_once(" (") {
        let (named, hex) = rest.rsplit_once(") = ")?;
        let known = matches!(algorithm, "SHA256" | "SHA512");
        return (known && named == name).then(|| Checksum::parse(hex))?;
    }
    let mut words = line.splitn(2, char::is_whitespace);
    let checksum = Checksum::parse(words.next()?)?;
    let Some(named) = words.next() else { return Some(checksum) };
    let named = named.trim_start().trim_start_matches('*');
    (named.rsplit('/').next() == Some(name)).then_some(checksum)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_form_in_use_is_read() {
        let (a, b) = (Sha256Digest::of(b"a"), Sha256Digest::of(b"b"));
        let long = "ab".repeat(64);
        let found = |text: &str| find(text, "f.txz");
        let expected = Some(Checksum::Sha256(a));
        for text in [
            format!("{b}  g.txz\n{a}  f.txz\n"),
            format!("{a} *f.txz\n"),
            format!("{a}  ./f.txz\n"),
            format!("# f.txz: 123 bytes\nSHA256 (g.txz) = {b}\nSHA256 (f.txz) = {a}\n"),
            format!("{a}\n"),
            a.to_string().to_uppercase(),
        ] {
            assert_eq!(found(&text), expected, "{text}");
        }
        let digests = format!("# BLAKE2B HASH\n{}  f.txz\n# SHA512 HASH\n{long}  f.txz\n", "cd".repeat(64));
        assert_eq!(found(&digests), Some(Checksum::Sha512(long)));
        for bad in [format!("{b}  g.txz\n"), format!("{a}  f.txz\n{b}  f.txz\n"), "MD5 (f.txz) = 00\n".into()]
        {
            assert_eq!(found(&bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_not(text in "(?s).{0,300}", name in "[a-z.]{1,8}") {
            let _ = find(&text, &name);
        }
    }
}
