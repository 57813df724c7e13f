use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, de::Error as _};

/// `[serve.upstream]`: a server whose images are offered and fetched as clients ask for them.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Upstream {
    /// URL or name of a remote.
    pub url: String,
    /// Public key to believe it by: a file, or a fingerprint.
    pub key: Option<String>,
    /// Certificates of a private authority, PEM.
    pub ca: Option<PathBuf>,
    /// Believe documents that nobody signed.
    #[serde(default)]
    pub insecure_no_signature: bool,
    /// Most bytes kept: a number, or text as `"50GB"`.
    #[serde(default, deserialize_with = "size")]
    pub cache_size: Option<u64>,
}

impl Upstream {
    /// Paths begin at `dir`.
    pub(super) fn below(&mut self, dir: &Path) {
        self.ca = self.ca.take().map(|ca| dir.join(ca));
        self.key = self.key.take().map(|key| key_below(dir, key));
    }
}

/// A key's file begins at `dir`; a fingerprint is none.
pub(super) fn key_below(dir: &Path, key: String) -> String {
    let file = dir.join(&key);
    if file.exists() { file.display().to_string() } else { key }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Size {
    Bytes(u64),
    Text(String),
}

/// A number of bytes, with a unit or not.
pub(super) fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let bytes = match Size::deserialize(deserializer)? {
        Size::Bytes(bytes) => Some(bytes),
        Size::Text(text) => millstream_image::size::parse(&text),
    };
    match bytes {
        Some(bytes @ 1..) => Ok(Some(bytes)),
        _ => Err(D::Error::custom(millstream_image::size::EXPECTED)),
    }
}
