//! An image layout: a directory of blobs with `oci-layout` and `index.json` at its root.

use serde::{Deserialize, Serialize};

use super::{parse, to_bytes};
use crate::{Error, Result};

/// The file that marks a layout.
pub const MARKER: &str = "oci-layout";
/// The index.
pub const INDEX: &str = "index.json";
/// The annotation that names an image of a layout: `latest`.
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";

const VERSION: &str = "1.0.0";

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Marker {
    image_layout_version: String,
}

/// The bytes of `oci-layout`.
pub fn marker() -> Result<Vec<u8>> {
    to_bytes(MARKER, &Marker { image_layout_version: VERSION.to_owned() })
}

/// Checks the bytes of `oci-layout`.
///
/// # Errors
/// When this is another version of layout or none.
pub fn check_marker(text: &[u8]) -> Result<()> {
    let marker: Marker = parse(MARKER, text)?;
    if marker.image_layout_version == VERSION {
        return Ok(());
    }
    Err(Error::document(MARKER, format!("version {:?} is not {VERSION}", marker.image_layout_version)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_marker_is_known() {
        assert_eq!(marker().unwrap(), br#"{"imageLayoutVersion":"1.0.0"}"#);
        check_marker(&marker().unwrap()).unwrap();
        assert!(check_marker(br#"{"imageLayoutVersion":"2.0.0"}"#).is_err());
        assert!(check_marker(b"{}").is_err());
    }
}
