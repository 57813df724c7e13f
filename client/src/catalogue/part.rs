//! A document on its way into the catalogue.

use std::collections::BTreeMap;
use std::fmt;

use millstream_image::simplestreams::{ProductEntry, Products};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};

use super::{CatalogueImage, bind, images};

/// A product document, reduced to its images: a fraction of its size.
#[derive(Debug)]
pub(crate) struct Part {
    /// By their names in the document.
    pub(super) entries: BTreeMap<String, Listed>,
}

/// One product of it.
#[derive(Debug)]
pub(super) struct Listed {
    pub(super) aliases: String,
    /// Distribution in lower case, and release.
    pub(super) release: (String, String),
    pub(super) images: Result<Vec<CatalogueImage>, String>,
}

impl Part {
    /// Reads a document.
    pub(crate) fn parse(text: &[u8]) -> Result<Self, millstream_image::Error> {
        Products::parse_into(text)
    }

    pub(super) fn new(document: Products) -> Self {
        let listed = |(name, entry): (String, ProductEntry)| {
            let listed = Listed::new(&name, entry);
            (name, listed)
        };
        Self { entries: document.products.into_iter().map(listed).collect() }
    }
}

impl Listed {
    fn new(name: &str, entry: ProductEntry) -> Self {
        let bound = bind(name, &entry);
        let images = bound.and_then(|(product, aliases)| images(&product, aliases, &entry));
        let release = (entry.os.to_lowercase(), entry.release);
        // Only refusals tell them again.
        let aliases = if images.is_err() { entry.aliases } else { String::new() };
        Self { aliases, release, images }
    }
}

/// Reduces each product as soon as it was read, so that the next takes the same memory.
impl<'de> Deserialize<'de> for Part {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;

        impl<'de> Visitor<'de> for Entries {
            type Value = Part;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("products by name")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Part, A::Error> {
                let mut entries = BTreeMap::new();
                while let Some((name, entry)) = map.next_entry::<String, ProductEntry>()? {
                    let listed = Listed::new(&name, entry);
                    entries.insert(name, listed);
                }
                Ok(Part { entries })
            }
        }

        deserializer.deserialize_map(Entries)
    }
}
