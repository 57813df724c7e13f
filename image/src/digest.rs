//! SHA-256 digests, image fingerprints, and small adapters that hash or bound what passes through.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::str::FromStr;

use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

use crate::{Error, Result};

/// A SHA-256 digest; written as 64 lower-case hex digits and never as anything else.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sha256Digest([u8; 32]);

impl Sha256Digest {
    /// Digest of bytes in memory.
    pub fn of(data: &[u8]) -> Self {
        Self(Sha256::digest(data).into())
    }

    /// Digest of everything a reader yields, and how many bytes that was.
    pub fn of_reader(reader: impl Read) -> io::Result<(Self, u64)> {
        let mut hashing = HashingReader::new(reader);
        let size = io::copy(&mut hashing, &mut io::sink())?;
        Ok((hashing.finish(), size))
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    fn hex(&self) -> [u8; 64] {
        let mut text = [0; 64];
        for (pair, byte) in text.as_chunks_mut::<2>().0.iter_mut().zip(self.0) {
            *pair = [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 0xf)]];
        }
        text
    }

    /// Wraps 32 bytes that already are a digest.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl From<Sha256> for Sha256Digest {
    fn from(state: Sha256) -> Self {
        Self(state.finalize().into())
    }
}

impl fmt::Display for Sha256Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.hex()).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for Sha256Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Sha256Digest {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        digits(text)
            .map(Self)
            .ok_or_else(|| Error::name("SHA-256 digest", text, "expected 64 lower-case hex digits"))
    }
}

/// The bytes that 64 digits stand for; by table, as catalogues hold hundreds of thousands of digests.
fn digits(text: &str) -> Option<[u8; 32]> {
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    let pairs: &[[u8; 2]; 32] = pairs.try_into().ok()?;
    let mut bytes = [0; 32];
    let mut wrong = 0;
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        let (high, low) = (VALUES[usize::from(*high)], VALUES[usize::from(*low)]);
        wrong |= (high | low) & NO_DIGIT;
        *byte = high << 4 | low & 0xf;
    }
    (wrong == 0).then_some(bytes)
}

const NO_DIGIT: u8 = 0x80;

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// What each character is worth as a lower-case hex digit.
static VALUES: [u8; 256] = {
    let mut values = [NO_DIGIT; 256];
    let mut value = 0;
    while value < 16 {
        values[DIGITS[value as usize] as usize] = value;
        value += 1;
    }
    values
};

impl Serialize for Sha256Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(std::str::from_utf8(&self.hex()).map_err(serde::ser::Error::custom)?)
    }
}

impl<'de> Deserialize<'de> for Sha256Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_str(Digits)
    }
}

/// Reads a digest where it stands, without a copy of its digits.
struct Digits;

impl Visitor<'_> for Digits {
    type Value = Sha256Digest;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a SHA-256 digest")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> std::result::Result<Sha256Digest, E> {
        text.parse().map_err(E::custom)
    }
}

impl From<Sha256Digest> for String {
    fn from(digest: Sha256Digest) -> Self {
        digest.to_string()
    }
}

/// An image's fingerprint, as LXD and Incus compute it: SHA-256 of the unified tarball, or of the
/// metadata archive's bytes followed by the root file system's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fingerprint(Sha256Digest);

impl Fingerprint {
    /// Wraps the digest of an image's bytes.
    pub fn new(digest: Sha256Digest) -> Self {
        Self(digest)
    }

    /// The fingerprint of a split image.
    pub fn of_split(metadata: impl Read, rootfs: impl Read) -> io::Result<Self> {
        Sha256Digest::of_reader(metadata.chain(rootfs)).map(|(digest, _)| Self(digest))
    }

    /// The fingerprint of an image's files; of a unified image both are the same one.
    pub fn of_files(metadata: &Path, rootfs: &Path) -> Result<Self> {
        let open = |path: &Path| File::open(path).map_err(Error::io(path));
        let found = if metadata == rootfs {
            Sha256Digest::of_reader(open(rootfs)?).map(|(digest, _)| Self(digest))
        } else {
            Self::of_split(open(metadata)?, open(rootfs)?)
        };
        found.map_err(Error::io(rootfs))
    }

    /// The digest itself.
    pub fn digest(&self) -> Sha256Digest {
        self.0
    }

    /// The first 12 digits, as lists show it.
    pub fn short(&self) -> String {
        self.to_string()[..12].to_owned()
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Fingerprint {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        text.parse()
            .map(Self)
            .map_err(|_| Error::name("fingerprint", text, "expected 64 lower-case hex digits"))
    }
}

/// Hashes what is read through it.
pub struct HashingReader<R> {
    inner: R,
    state: Sha256,
    count: u64,
}

impl<R: Read> HashingReader<R> {
    /// Starts hashing at the reader's present position.
    pub fn new(inner: R) -> Self {
        Self { inner, state: Sha256::new(), count: 0 }
    }

    /// Bytes read so far.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Digest of all bytes read.
    pub fn finish(self) -> Sha256Digest {
        self.state.into()
    }
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.state.update(&buf[..n]);
        self.count += n as u64;
        Ok(n)
    }
}

/// Hashes and counts what is written through it.
pub struct HashingWriter<W> {
    inner: W,
    state: Sha256,
    count: u64,
}

impl<W: Write> HashingWriter<W> {
    /// Starts hashing at the writer's present position.
    pub fn new(inner: W) -> Self {
        Self { inner, state: Sha256::new(), count: 0 }
    }

    /// Bytes written so far.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The inner writer, for what is not bytes to hash.
    pub fn get_mut(&mut self) -> &mut W {
        &mut self.inner
    }

    /// The inner writer, the digest and the number of bytes.
    pub fn finish(self) -> (W, Sha256Digest, u64) {
        (self.inner, self.state.into(), self.count)
    }
}

impl<W: Write> Write for HashingWriter<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(buf)?;
        self.state.update(&buf[..n]);
        self.count += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Passes at most `cap` bytes; one byte more is an error, not a quiet end.
pub struct CappedReader<R> {
    inner: R,
    left: u64,
    cap: u64,
}

impl<R: Read> CappedReader<R> {
    /// Bounds a reader to `cap` bytes.
    pub fn new(inner: R, cap: u64) -> Self {
        Self { inner, left: cap, cap }
    }
}

impl<R: Read> Read for CappedReader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        // One byte beyond the cap is asked for, to tell "exactly full" from "more to come".
        let want = buf.len().min(usize::try_from(self.left).unwrap_or(usize::MAX).saturating_add(1));
        let n = self.inner.read(&mut buf[..want])?;
        match self.left.checked_sub(n as u64) {
            Some(left) => self.left = left,
            None => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("more than the {} bytes allowed here", self.cap),
                ));
            }
        }
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_is_64_lower_case_hex_digits_or_nothing() {
        let good = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(good.parse::<Fingerprint>().unwrap(), Fingerprint::new(Sha256Digest::of(b"")));
        for bad in ["", "../../etc/passwd", &good.to_uppercase(), &good[1..], &format!("{good}0")] {
            assert!(bad.parse::<Fingerprint>().is_err(), "{bad}");
        }
    }

    #[test]
    fn split_fingerprint_is_the_concatenation() {
        let split = Fingerprint::of_split(&b"meta"[..], &b"root"[..]).unwrap();
        assert_eq!(split.digest(), Sha256Digest::of(b"metaroot"));
    }

    #[test]
    fn cap_is_an_error_not_an_end() {
        let mut out = Vec::new();
        CappedReader::new(&b"12345"[..], 5).read_to_end(&mut out).unwrap();
        assert_eq!(out, b"12345");
        assert!(CappedReader::new(&b"123456"[..], 5).read_to_end(&mut out).is_err());
    }
}
