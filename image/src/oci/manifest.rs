//! Manifest: configuration and layers of one image.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Descriptor, absent, check_head, check_length, media_type, nullable, parse, to_bytes};
use crate::{Error, Result};

const WHAT: &str = "OCI manifest";

/// An image manifest, OCI's or Docker's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// Its own media type; older writers leave it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// The configuration.
    pub config: Descriptor,
    /// The layers, lowest first.
    #[serde(deserialize_with = "nullable")]
    pub layers: Vec<Descriptor>,
    /// Free-form facts.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    #[serde(default, rename = "manifests", deserialize_with = "absent", skip_serializing)]
    is_index: bool,
}

impl Manifest {
    /// A manifest of this configuration and these layers.
    pub fn new(config: Descriptor, layers: Vec<Descriptor>) -> Self {
        Self {
            schema_version: 2,
            media_type: Some(media_type::MANIFEST.to_owned()),
            config,
            layers,
            annotations: BTreeMap::new(),
            is_index: false,
        }
    }

    /// Reads a manifest of at most [`super::MAX_SIZE`] bytes and [`super::MAX_LIST`] layers.
    ///
    /// # Errors
    /// With what is wrong; also for a document that is an index at the same time.
    pub fn parse(text: &[u8]) -> Result<Self> {
        let manifest: Self = parse(WHAT, text)?;
        let allowed = [media_type::MANIFEST, media_type::DOCKER_MANIFEST];
        check_head(WHAT, manifest.schema_version, manifest.media_type.as_deref(), allowed)?;
        check_length(WHAT, "layers", manifest.layers.len())?;
        if manifest.is_index {
            return Err(Error::document(WHAT, "it lists manifests like an index"));
        }
        Ok(manifest)
    }

    /// The document's bytes.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        to_bytes(WHAT, self)
    }
}
