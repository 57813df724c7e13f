//! `manifest.json`: how an image came to be, beside the image.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Error, Product, Result, Serial, Sha256Digest};

/// The contents of `manifest.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Always 1 for now.
    pub version: u32,
    /// Which product this is an image of.
    pub product: Product,
    /// When it was built.
    pub serial: Serial,
    /// Distribution as shown to people: `Debian`.
    pub os: String,
    /// One line for lists.
    pub description: String,
    /// Other names of the release, for aliases: `12`.
    #[serde(default)]
    pub release_aliases: Vec<String>,
    /// What the image asks of its host.
    #[serde(default)]
    pub requirements: BTreeMap<String, String>,
    /// Seconds since 1970 to which file times were clamped.
    pub source_date_epoch: i64,
    /// The recipe after resolution, as YAML.
    pub recipe: String,
    /// Where packages or the root file system came from, without credentials.
    pub sources: Vec<Source>,
    /// Every package installed.
    pub packages: Vec<Package>,
    /// The image's files by name.
    pub files: BTreeMap<String, File>,
    /// Seconds each stage took, in order. They differ from build to build and are in no signature
    /// over the image's own bytes.
    pub durations: Vec<(String, f64)>,
    /// What else would make another image; with recipe, sources and packages it tells whether building
    /// again would make the same. Not there in manifests of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inputs: Option<Inputs>,
}

/// What went into an image besides its recipe and the packages of its sources.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inputs {
    /// Settings of the build that matter for the bytes, and the version of the builder's rules.
    pub settings: BTreeMap<String, String>,
    /// Files of the host that the recipe copies: path as the recipe has it, digest of contents and mode.
    #[serde(default)]
    pub files: BTreeMap<String, Sha256Digest>,
    /// Further repositories: URL, digest of the signed document.
    #[serde(default)]
    pub repositories: BTreeMap<String, Sha256Digest>,
    /// Digest of the packages that the sources offered for this recipe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offered: Option<Sha256Digest>,
    /// Why this cannot be told at all, when it cannot.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unknown: Vec<String>,
    /// Digest of the boot test the image has passed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tested: Option<Sha256Digest>,
}

/// A place something was fetched from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// URL, or a path for local files.
    pub url: String,
    /// Suite or file: `bookworm-security`.
    pub name: String,
    /// SHA-256 of the signed document, or of the file.
    pub sha256: Sha256Digest,
}

/// An installed package.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Package {
    /// Name: `bash`.
    pub name: String,
    /// Full version: `5.2.15-2+b7`.
    pub version: String,
    /// The package's own architecture: `amd64`, `all`.
    pub architecture: String,
    /// SHA-256 of the package file, when known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Sha256Digest>,
}

/// A file of the image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    /// Bytes.
    pub size: u64,
    /// SHA-256 of the file.
    pub sha256: Sha256Digest,
    /// SHA-256 of the archive before compression.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256_uncompressed: Option<Sha256Digest>,
    /// Bytes before compression.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_uncompressed: Option<u64>,
}

impl Manifest {
    /// Reads a manifest.
    pub fn parse(text: &[u8]) -> Result<Self> {
        let manifest: Self = serde_json::from_slice(text).map_err(|e| Error::document("manifest.json", e))?;
        if manifest.version != 1 {
            return Err(Error::document(
                "manifest.json",
                format!("version {} is not known; a newer Millstream wrote it", manifest.version),
            ));
        }
        Ok(manifest)
    }

    /// The file's bytes.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut bytes = serde_json::to_vec_pretty(self).map_err(|e| Error::document("manifest.json", e))?;
        bytes.push(b'\n');
        Ok(bytes)
    }
}
