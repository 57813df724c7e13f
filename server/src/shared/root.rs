//! The one object that changes: what readers see, by path, and where it is.
//!
//! ```text
//! root.json                                   this; replaced in one step: the moment of publication
//! documents/GENERATION-ID/SHA256              what it names; never written twice
//! images/DIST/RELEASE/ARCH/VARIANT/SERIAL/ID/ files of an image; ID is its publisher's run
//! flags/ID                                    see [`crate::storage::replace`]
//! ```

use std::collections::BTreeMap;
use std::path::{Component, Path};

use millstream_image::Sha256Digest;
use serde::{Deserialize, Serialize};

use crate::storage::Exclusion;

/// Its key.
pub(super) const ROOT: &str = "root.json";
/// No root is larger, in bytes.
pub(super) const LARGEST: u64 = 64 << 20;
/// Documents.
pub(super) const DOCUMENTS: &str = "documents";
/// Where the files of images are, a document for each distribution. Hidden from readers.
const MAPS: &str = ".images";
/// What the format is called.
const FORMAT: &str = "millstream-shared:1";

/// One publication.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Root {
    pub(super) format: String,
    /// As the signed index has it.
    pub(super) generation: u64,
    /// Of whose run it is.
    pub(super) id: String,
    /// How publishers keep out of each other's way.
    pub(super) exclusion: Exclusion,
    /// Documents by path, from the root of the tree.
    pub(super) files: BTreeMap<String, Document>,
    /// Keys that no publication names any more, with the time since when, in seconds since 1970.
    #[serde(default)]
    pub(super) trash: BTreeMap<String, i64>,
}

/// One document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Document {
    pub(super) key: String,
    pub(super) sha256: Sha256Digest,
    pub(super) size: u64,
    /// Seconds since 1970; of a replaced document, when it was replaced.
    pub(super) modified: i64,
}

/// Where the images of one distribution are, by their directory.
pub(super) type Map = BTreeMap<String, Place>;

/// Where one image is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    /// Of whose run its files are.
    pub(super) id: String,
    /// Their names and sizes.
    pub(super) files: BTreeMap<String, u64>,
}

impl Root {
    /// Nothing yet.
    pub(super) fn new(exclusion: Exclusion) -> Self {
        Self {
            format: FORMAT.into(),
            generation: 0,
            id: String::new(),
            exclusion,
            files: BTreeMap::new(),
            trash: BTreeMap::new(),
        }
    }

    /// Reads one; whatever it says stays below the directory or bucket.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let root: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if root.format != FORMAT {
            return Err(format!("its format is {:?}, not {FORMAT}", root.format));
        }
        for (path, document) in &root.files {
            if !is_plain(path) || !is_document(&document.key) {
                return Err(format!("it names {path:?} at {:?}", document.key));
            }
        }
        match root.trash.keys().find(|key| !is_document(key)) {
            Some(key) => Err(format!("it names {key:?}")),
            None => Ok(root),
        }
    }

    pub(super) fn to_bytes(&self) -> Result<Vec<u8>, String> {
        serde_json::to_vec(self).map_err(|error| error.to_string())
    }

    /// Distributions that have images.
    pub(super) fn distributions(&self) -> impl Iterator<Item = &str> {
        let names = self.files.keys().filter_map(|path| path.strip_prefix(MAPS)?.strip_prefix('/'));
        names.filter_map(|name| name.strip_suffix(".json"))
    }
}

/// Path of a distribution's map.
pub(super) fn map_path(distribution: &str) -> String {
    format!("{MAPS}/{distribution}.json")
}

/// Whether a path is for who publishes only.
pub(super) fn is_hidden(path: &str) -> bool {
    path.starts_with('.') || path.starts_with("direct/")
}

/// Reads a map.
pub(super) fn parse_map(distribution: &str, bytes: &[u8]) -> Result<Map, String> {
    let map: Map = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    for (image, place) in &map {
        let whose = Path::new(image).iter().nth(1).and_then(|name| name.to_str());
        let is_image = is_plain(image) && image.starts_with("images/") && image.split('/').count() == 6;
        let names = || std::iter::once(&place.id).chain(place.files.keys());
        if !is_image
            || whose != Some(distribution)
            || !names().all(|name| is_plain(name) && !name.contains('/'))
        {
            return Err(format!("it names {image:?}"));
        }
    }
    Ok(map)
}

/// Relative, leading nowhere else, and the same key for every store.
fn is_plain(path: &str) -> bool {
    let normal = |part: Component<'_>| matches!(part, Component::Normal(_));
    !path.is_empty()
        && Path::new(path).components().all(normal)
        && path.split('/').all(|part| !part.is_empty() && part != ".")
        && path.bytes().all(|b| b.is_ascii_alphanumeric() || b"/._-+".contains(&b))
}

fn is_document(key: &str) -> bool {
    is_plain(key) && key.starts_with(DOCUMENTS) && key.split('/').count() == 3
}

/// What fuzzing reads.
pub(super) fn read(bytes: &[u8]) {
    let _ = Root::parse(bytes);
    let _ = parse_map("debian", bytes);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn root(path: &str, key: &str) -> Root {
        let mut root = Root::new(Exclusion::Flags);
        let sha256 = Sha256Digest::of(b"");
        root.files.insert(path.into(), Document { key: key.into(), sha256, size: 0, modified: 1 });
        root
    }

    #[test]
    fn what_is_written_is_read_and_what_leads_elsewhere_is_refused() {
        let good = root("streams/v1/index.json", "documents/1-a/b");
        assert_eq!(Root::parse(&good.to_bytes().unwrap()), Ok(good));
        for (path, key) in [
            ("../x", "documents/1/b"),
            ("/x", "documents/1/b"),
            ("a//b", "documents/1/b"),
            ("a/./b", "documents/1/b"),
            ("", "documents/1/b"),
            ("x", "images/1/b"),
            ("x", "documents/../b"),
            ("x", "documents"),
        ] {
            assert!(Root::parse(&root(path, key).to_bytes().unwrap()).is_err(), "{path:?} {key:?}");
        }
        assert!(Root::parse(b"{}").is_err());
        let map = |image: &str, id: &str, file: &str| {
            let place = Place { id: id.into(), files: [(file.to_owned(), 1)].into() };
            parse_map("a", &serde_json::to_vec(&Map::from([(image.to_owned(), place)])).unwrap())
        };
        assert!(map("images/a/b/c/d/e", "1", "f").is_ok());
        for (image, id, file) in [
            ("images/b/b/c/d/e", "1", "f"),
            ("images/a/b/c/d", "1", "f"),
            ("images/a/../c/d/e", "1", "f"),
            ("images/a/b/c/d/e", "..", "f"),
            ("images/a/b/c/d/e", "1", "../f"),
        ] {
            assert!(map(image, id, file).is_err(), "{image} {id} {file}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_read_stays_below(path in "(/|\\.|a|-){0,8}") {
            if is_plain(&path) {
                prop_assert!(Path::new("/r").join(&path).starts_with("/r"));
                prop_assert!(!path.split('/').any(|part| part == ".."));
            }
        }
    }
}
