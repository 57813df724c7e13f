//! Images of registries (OCI and Docker), as far as the network goes: names, manifests, layers.
//!
//! A digest proves all that it names. Which digest a tag means, nobody signs. Layers become a root file
//! system in the builder, where an ordinary user's files may have more than one owner.

mod reference;
mod registry;
mod remote;

use std::path::PathBuf;

use millstream_image::archive::Limits;
use millstream_image::oci::{Descriptor, Digest, Document, Index, Manifest, Platform, media_type};
use serde::Deserialize;

pub use self::reference::Reference;
pub(crate) use self::registry::answers;
pub use self::registry::{Registry, Resolved};
pub use self::remote::{DIGEST, Layout, Offered};
use crate::{Error, Result};

/// Said to who wants a list.
pub(crate) const NO_LIST: &str =
    "a registry lists no images; copy or launch one by its name, REMOTE:REPOSITORY[:TAG]";

/// An image whose parts are here, verified.
#[derive(Clone, Debug)]
pub struct Image {
    /// Of its manifest.
    pub digest: Digest,
    /// The configuration's bytes.
    pub config: Vec<u8>,
    /// Files of the layers, lowest first.
    pub layers: Vec<PathBuf>,
}

/// The manifest for a platform.
///
/// # Errors
/// With the platforms there are.
pub fn select<'i>(index: &'i Index, platform: &Platform, what: &str) -> Result<&'i Descriptor> {
    index.select(platform).ok_or_else(|| {
        let mut known: Vec<_> = index
            .manifests
            .iter()
            .filter_map(|m| m.platform.as_ref())
            .filter(|p| p.os == "linux")
            .map(|p| p.architecture.clone() + p.variant.as_deref().unwrap_or_default())
            .collect();
        known.sort();
        known.dedup();
        let (wanted, known) = (&platform.architecture, known.join(", "));
        Error::document(what, format!("there is no image for {wanted} (there: {known})"))
    })
}

/// Refuses what is no image of a root file system, or is far too large.
///
/// # Errors
/// With the layer, or the size.
pub fn check(manifest: &Manifest, what: &str) -> Result<()> {
    const LAYERS: [&str; 5] = [
        media_type::LAYER,
        media_type::LAYER_GZIP,
        media_type::LAYER_ZSTD,
        media_type::DOCKER_LAYER,
        media_type::DOCKER_LAYER_GZIP,
    ];
    if let Some(layer) = manifest.layers.iter().find(|layer| !LAYERS.contains(&layer.media_type.as_str())) {
        let reason =
            format!("it has a layer of type {:?}, which is no part of a root file system", layer.media_type);
        return Err(Error::document(what, reason));
    }
    let total = manifest.layers.iter().fold(0_u64, |sum, layer| sum.saturating_add(layer.size));
    let limit = Limits::default().unpacked;
    if total > limit {
        let reason = format!("its layers have {total} bytes, more than the {limit} allowed");
        return Err(Error::document(what, reason));
    }
    Ok(())
}

/// Reads an index or manifest. Without a stated type it says itself what it is; old ones do not, and
/// are told by what they have.
///
/// # Errors
/// When it is neither.
pub fn parse(stated: Option<&str>, text: &[u8], what: &str) -> Result<Document> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Head {
        media_type: Option<String>,
        manifests: Option<serde::de::IgnoredAny>,
    }
    let own = |head: Head| {
        let told = if head.manifests.is_some() { media_type::INDEX } else { media_type::MANIFEST };
        head.media_type.unwrap_or_else(|| told.to_owned())
    };
    let kind = match stated {
        Some(stated) => stated.to_owned(),
        None => serde_json::from_slice(text)
            .map(own)
            .map_err(|error| Error::document(what, format!("it is no image manifest: {error}")))?,
    };
    Ok(Document::parse(&kind, text)?)
}
