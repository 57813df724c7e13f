//! What `source.url` names: an image of a registry or of a layout on this machine.

use std::path::{Path, PathBuf};

use millstream_client::oci;

use crate::{Error, Result};

/// An image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reference {
    /// In a registry.
    Registry(oci::Reference),
    /// In a layout or an archive of one.
    Layout {
        /// The directory, or the archive.
        path: PathBuf,
        /// Which of its images.
        tag: Option<String>,
    },
}

impl Reference {
    /// Reads `oci:PATH[:TAG]` or `oci-archive:PATH[:TAG]`, else the name of an image in a registry.
    pub(super) fn parse(text: &str, default: Option<&str>, recipe_dir: &Path) -> Result<Self> {
        for prefix in ["oci:", "oci-archive:"] {
            if let Some(rest) = text.strip_prefix(prefix) {
                let (path, tag) = match rest.rsplit_once(':') {
                    Some((path, tag)) if !tag.contains('/') => (path, Some(tag.to_owned())),
                    _ => (rest, None),
                };
                return Ok(Self::Layout { path: recipe_dir.join(path), tag });
            }
        }
        let parsed = oci::Reference::parse(text, default);
        parsed.map(Self::Registry).map_err(|error| Error::Refused(format!("source.url: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_are_told_from_registries() {
        let parse = |text: &str| Reference::parse(text, None, Path::new("/r"));
        let layout = |path: &str, tag: Option<&str>| Reference::Layout {
            path: path.into(),
            tag: tag.map(str::to_owned),
        };
        assert_eq!(parse("oci:layout:tag").unwrap(), layout("/r/layout", Some("tag")));
        assert_eq!(parse("oci:/a/layout").unwrap(), layout("/a/layout", None));
        assert!(matches!(parse("r.example/a:1").unwrap(), Reference::Registry(_)));
        assert!(parse("http://r.example/a").unwrap_err().to_string().starts_with("source.url"));
    }
}
