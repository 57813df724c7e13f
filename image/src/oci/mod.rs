//! OCI images: the documents of a layout or registry, read with limits and written reproducibly.
//!
//! Docker's older media types have the same shape and are read as well. Source of the formats: the
//! OCI Image Format Specification, version 1.1, and Docker's "Image Manifest V 2, Schema 2".

mod config;
mod descriptor;
mod digest;
mod index;
pub mod layout;
mod manifest;
mod platform;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};

pub use config::{Config, History, ImageConfig, RootFs};
pub use descriptor::Descriptor;
pub use digest::Digest;
pub use index::Index;
pub use manifest::Manifest;
pub use platform::Platform;

use crate::{Error, Result};

/// The largest index, manifest or configuration that is read, in bytes: what the OCI Distribution
/// Specification asks registries to accept.
pub const MAX_SIZE: usize = 4 << 20;
/// The most layers of a manifest, and manifests of an index.
pub const MAX_LIST: usize = 1024;

/// Media types.
pub mod media_type {
    /// Index of manifests.
    pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    /// Manifest of one image.
    pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    /// Configuration of one image.
    pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    /// Uncompressed layer.
    pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
    /// Layer compressed with gzip.
    pub const LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
    /// Layer compressed with zstd.
    pub const LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
    /// Docker's index.
    pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    /// Docker's manifest.
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    /// Docker's configuration.
    pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
    /// Docker's layer, compressed with gzip.
    pub const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
    /// Docker's layer, uncompressed.
    pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
}

/// What stands behind a reference: the image itself, or a choice of images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Document {
    /// A choice, by platform.
    Index(Index),
    /// One image.
    Manifest(Manifest),
}

impl Document {
    /// Reads an index or a manifest. `stated` is the media type a descriptor or a server gave it;
    /// the document may repeat it but not contradict it.
    ///
    /// # Errors
    /// With what is wrong: another kind of document, too large, or a list that is too long.
    pub fn parse(stated: &str, text: &[u8]) -> Result<Self> {
        match stated {
            media_type::INDEX | media_type::DOCKER_INDEX => Index::parse(text).map(Self::Index),
            media_type::MANIFEST | media_type::DOCKER_MANIFEST => Manifest::parse(text).map(Self::Manifest),
            other => Err(Error::document(
                "OCI document",
                format!("media type {other:?} is neither an image manifest nor an index of them"),
            )),
        }
    }
}

/// Reads a bounded JSON document.
fn parse<T: DeserializeOwned>(what: &str, text: &[u8]) -> Result<T> {
    if text.len() > MAX_SIZE {
        let reason = format!("{} bytes are more than the {MAX_SIZE} allowed", text.len());
        return Err(Error::document(what, reason));
    }
    serde_json::from_slice(text).map_err(|e| Error::document(what, e))
}

/// Writes a document: compact, keys in a fixed order, so that its digest is always the same.
fn to_bytes<T: Serialize>(what: &str, document: &T) -> Result<Vec<u8>> {
    serde_json::to_vec(document).map_err(|e| Error::document(what, e))
}

/// What manifests and indices have in common: their version, and the media type they may repeat.
fn check_head(what: &str, version: u32, media_type: Option<&str>, allowed: [&str; 2]) -> Result<()> {
    if version != 2 {
        return Err(Error::document(what, format!("schema version {version} is not 2")));
    }
    match media_type {
        Some(found) if !allowed.contains(&found) => {
            Err(Error::document(what, format!("it says of itself that it is {found:?}")))
        }
        _ => Ok(()),
    }
}

fn check_length(what: &str, list: &str, length: usize) -> Result<()> {
    if length > MAX_LIST {
        return Err(Error::document(what, format!("{length} {list} are more than the {MAX_LIST} allowed")));
    }
    Ok(())
}

/// Programs written in Go say `null` for an empty list or map.
fn nullable<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// A field that must not be there at all: what has it is another kind of document.
fn absent<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Option::<serde::de::IgnoredAny>::deserialize(deserializer).map(|found| found.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn manifest() -> String {
        format!(
            r#"{{"schemaVersion":2,"mediaType":"{}","config":{{"mediaType":"{}","digest":"{DIGEST}","size":2}},
               "layers":[{{"mediaType":"{}","digest":"{DIGEST}","size":7,"annotations":null}}],"annotations":null}}"#,
            media_type::MANIFEST,
            media_type::CONFIG,
            media_type::LAYER_GZIP
        )
    }

    #[test]
    fn a_manifest_round_trips() {
        let Document::Manifest(read) = Document::parse(media_type::MANIFEST, manifest().as_bytes()).unwrap()
        else {
            panic!("not a manifest")
        };
        assert_eq!(read.layers[0].digest.to_string(), DIGEST);
        assert_eq!(Manifest::parse(&read.to_bytes().unwrap()).unwrap(), read);
    }

    #[test]
    fn one_document_cannot_be_read_as_two() {
        let both = manifest().replacen('{', r#"{"manifests":[],"#, 1);
        assert!(Manifest::parse(both.as_bytes()).is_err());
        assert!(Index::parse(both.as_bytes()).is_err());
        assert!(Document::parse(media_type::INDEX, manifest().as_bytes()).is_err());
        assert!(Document::parse("text/html", manifest().as_bytes()).is_err());
    }

    #[test]
    fn lists_sizes_and_digests_are_bounded() {
        let long = format!(r#"{{"mediaType":"x","digest":"{DIGEST}","size":1}},"#).repeat(MAX_LIST + 1);
        let index = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, long.trim_end_matches(','));
        assert!(Index::parse(index.as_bytes()).unwrap_err().to_string().contains("1025 manifests"));
        let large = manifest() + &" ".repeat(MAX_SIZE);
        assert!(Manifest::parse(large.as_bytes()).unwrap_err().to_string().contains("allowed"));
        for bad in [
            manifest().replace("sha256:e3b0", "sha256:E3B0"),
            manifest().replace("sha256:", "md5:"),
            manifest().replace(r#""size":7"#, r#""size":-7"#),
            manifest().replace(r#""schemaVersion":2"#, r#""schemaVersion":1"#),
            manifest().replacen("sha256:e3b0", "sha256:../../e3b0", 1),
        ] {
            assert!(Manifest::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
