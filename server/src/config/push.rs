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
