//! `sha256:HEX`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Error, Result, Sha256Digest};

/// How OCI documents name content. SHA-256 alone: the specification's other algorithm, SHA-512, is
/// not in use.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(pub Sha256Digest);

impl Digest {
    /// Digest of bytes in memory.
    pub fn of(data: &[u8]) -> Self {
        Self(Sha256Digest::of(data))
    }

    /// Where this content stands in a layout: `blobs/sha256/HEX`.
    pub fn blob_path(&self) -> PathBuf {
        PathBuf::from(format!("blobs/sha256/{}", self.0))
    }

    /// Fails unless `data` is the content named.
    ///
    /// # Errors
    /// With both digests.
    pub fn verify(&self, what: &str, data: &[u8]) -> Result<()> {
        let found = Self::of(data);
        if found == *self {
            return Ok(());
        }
        Err(Error::Mismatch { what: what.into(), reason: format!("its digest is {found}, expected {self}") })
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        text.strip_prefix("sha256:")
            .and_then(|hex| hex.parse().ok())
            .map(Self)
            .ok_or_else(|| Error::name("OCI digest", text, "expected sha256: and 64 lower-case hex digits"))
    }
}

impl TryFrom<String> for Digest {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_a_plain_name_or_nothing() {
        let digest = Digest::of(b"");
        assert_eq!(digest.to_string().parse::<Digest>().unwrap(), digest);
        assert!(digest.blob_path().starts_with("blobs/sha256"));
        assert!(digest.verify("blob", b"").is_ok() && digest.verify("blob", b"x").is_err());
        for bad in ["", "sha256:", "sha512:00", "sha256:../../etc/passwd", &digest.to_string()[7..]] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }
}
