//! Index: a choice of images.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Descriptor, Platform, absent, check_head, check_length, media_type, nullable, parse, to_bytes};
use crate::{Error, Result};

const WHAT: &str = "OCI index";

/// An image index, or Docker's manifest list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// Its own media type; older writers leave it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// The images, or further indices.
    #[serde(deserialize_with = "nullable")]
    pub manifests: Vec<Descriptor>,
    /// Free-form facts.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    #[serde(default, rename = "layers", deserialize_with = "absent", skip_serializing)]
    is_manifest: bool,
}

impl Index {
    /// An index of these images.
    pub fn new(manifests: Vec<Descriptor>) -> Self {
        Self {
            schema_version: 2,
            media_type: Some(media_type::INDEX.to_owned()),
            manifests,
            annotations: BTreeMap::new(),
            is_manifest: false,
        }
    }

    /// Reads an index of at most [`super::MAX_SIZE`] bytes and [`super::MAX_LIST`] manifests.
    ///
    /// # Errors
    /// With what is wrong; also for a document that is a manifest at the same time.
    pub fn parse(text: &[u8]) -> Result<Self> {
        let index: Self = parse(WHAT, text)?;
        let allowed = [media_type::INDEX, media_type::DOCKER_INDEX];
        check_head(WHAT, index.schema_version, index.media_type.as_deref(), allowed)?;
        check_length(WHAT, "manifests", index.manifests.len())?;
        if index.is_manifest {
            return Err(Error::document(WHAT, "it lists layers like a manifest"));
        }
        Ok(index)
    }

    /// The document's bytes.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        to_bytes(WHAT, self)
    }

    /// The first image that runs on `platform`; one without a platform when there is only that one.
    pub fn select(&self, platform: &Platform) -> Option<&Descriptor> {
        let fits = |d: &&Descriptor| d.platform.as_ref().is_some_and(|p| p.serves(platform));
        let only = || self.manifests.first().filter(|d| self.manifests.len() == 1 && d.platform.is_none());
        self.manifests.iter().find(fits).or_else(only)
    }
}
