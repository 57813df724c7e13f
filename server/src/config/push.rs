use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::upstream::size;

/// `[serve.push]`: what those who may push may cost, and what becomes of their images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Push {
    /// Most bytes of one image, all files together: a number, or text as `"8GiB"`.
    #[serde(deserialize_with = "some_size")]
    pub max_size: u64,
    /// Images that one token or certificate may have on the way at once.
    pub uploads: u32,
    /// Deltas are made from so many serials before, as by `stream add --deltas`.
    pub deltas: u32,
    /// Leave images for whoever has the key, as `stream add --unsigned` does.
    pub unsigned: bool,
}

impl Default for Push {
    fn default() -> Self {
        Self { max_size: 8 << 30, uploads: 8, deltas: 3, unsigned: false }
    }
}

fn some_size<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    Ok(size(deserializer)?.unwrap_or_default())
}

/// `[daily.push]`: a server that gets what is built.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PushTo {
    /// The server.
    pub url: String,
    /// File with a bearer token, mode 0600.
    pub token_file: Option<PathBuf>,
    /// File with this builder's certificate and private key, PEM, mode 0600.
    pub client_certificate: Option<PathBuf>,
    /// Certificates of a private authority, PEM.
    pub ca: Option<PathBuf>,
    /// `http://HOST:PORT`, or `direct`; the environment's without it.
    pub proxy: Option<String>,
}

impl PushTo {
    /// Paths begin at `dir`.
    pub(super) fn below(&mut self, dir: &Path) {
        for path in [&mut self.token_file, &mut self.client_certificate, &mut self.ca] {
            *path = path.take().map(|path| dir.join(path));
        }
    }
}
