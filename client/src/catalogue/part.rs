//! A document on its way into the catalogue.

use millstream_image::simplestreams::{ProductEntry, Products};

use super::{CatalogueImage, bind, images};

/// A product document, reduced to its images: a fraction of its size.
#[derive(Debug)]
pub(crate) struct Part {
    pub(super) entries: Vec<Listed>,
}

/// One product of it.
#[derive(Debug)]
pub(super) struct Listed {
    pub(super) name: String,
    pub(super) aliases: String,
    /// Distribution in lower case, and release.
    pub(super) release: (String, String),
    pub(super) images: Result<Vec<CatalogueImage>, String>,
}

impl Part {
    /// Reads a document.
    pub(crate) fn parse(text: &[u8]) -> Result<Self, millstream_image::Error> {
        Products::parse(text).map(Self::new)
    }

    pub(super) fn new(document: Products) -> Self {
        let listed = |(name, entry): (String, ProductEntry)| {
            let bound = bind(&name, &entry);
            let images = bound.and_then(|(product, aliases)| images(&product, aliases, &entry));
            let release = (entry.os.to_lowercase(), entry.release);
            // Only refusals tell them again.
            let aliases = if images.is_err() { entry.aliases } else { String::new() };
            Listed { name, aliases, release, images }
        };
        let entries = document.products.into_iter().map(listed).collect();
        Self { entries }
    }
}
