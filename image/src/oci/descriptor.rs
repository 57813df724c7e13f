//! What points at content.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Digest, Platform, nullable};
use crate::{Error, Result};

/// Media type, digest and size of some content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What it is.
    pub media_type: String,
    /// Which bytes it is.
    pub digest: Digest,
    /// How many bytes it is.
    pub size: u64,
    /// Free-form facts.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// In an index: what the image runs on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
}

impl Descriptor {
    /// Describes bytes in memory.
    pub fn of(media_type: &str, data: &[u8]) -> Self {
        Self::new(media_type, Digest::of(data), data.len() as u64)
    }

    /// Describes content by its digest and size.
    pub fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        Self { media_type: media_type.to_owned(), digest, size, annotations: BTreeMap::new(), platform: None }
    }

    /// Fails unless `data` is the content described.
    ///
    /// # Errors
    /// With expected and found size or digest.
    pub fn verify(&self, data: &[u8]) -> Result<()> {
        let what = self.digest.to_string();
        if data.len() as u64 != self.size {
            let reason = format!("it has {} bytes, expected {}", data.len(), self.size);
            return Err(Error::Mismatch { what, reason });
        }
        self.digest.verify(&what, data)
    }
}
