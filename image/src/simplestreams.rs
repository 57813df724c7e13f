//! Simplestreams documents: `index.json` and the product documents it lists.
//!
//! Written so that LXD 5, Incus 6 and the reference Python tools read them; what only Millstream
//! reads are extra fields, which those ignore. Source of the format: the reference implementation
//! `simplestreams` and the readers in LXD and Incus.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::openpgp::KeyFingerprint;
use crate::{Error, Product, Result, Serial, Sha256Digest};

/// The largest document that is read, in bytes.
pub const MAX_SIZE: u64 = 32 << 20;
/// Where the index stands in a tree.
pub const INDEX_PATH: &str = "streams/v1/index.json";

/// `index.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Index {
    /// Always `index:1.0`.
    pub format: String,
    /// The product documents, by name.
    pub index: BTreeMap<String, IndexEntry>,
    /// When the index was written, RFC 2822.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub updated: String,
    /// What only Millstream reads; covered by the signature.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub millstream: Option<Freshness>,
}

/// One product document in `index.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexEntry {
    /// `image-downloads`.
    #[serde(default)]
    pub datatype: String,
    /// Path from the root of the tree.
    pub path: String,
    /// `products:1.0`.
    #[serde(default)]
    pub format: String,
    /// When the document was written, RFC 2822.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub updated: String,
    /// Names of the products inside.
    #[serde(default)]
    pub products: Vec<String>,
    /// SHA-256 of the JSON document (not of its signed form). Not called `sha256` in the file: the
    /// reference tools would take that for the digest of what `path` names, the signed form.
    #[serde(default, rename = "document_sha256", skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Sha256Digest>,
    /// Size of that document in bytes.
    #[serde(default, rename = "document_size", skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Path of a copy that never changes, named by its hash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by_hash: Option<String>,
}

/// What binds a signed document to its place and time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Freshness {
    /// The document's own path in the tree, so that it cannot stand in for another.
    pub path: String,
    /// When it was written.
    pub created: DateTime<Utc>,
    /// After this it is refused as frozen.
    pub expires: DateTime<Utc>,
    /// Counts up with every publication of the tree.
    pub generation: u64,
    /// The stream's keys, in full. While one takes over from another there are several, and each
    /// signs everything; who believes one of them so learns the others. Empty says nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<KeyFingerprint>,
}

/// A product document: `images-debian.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Products {
    /// Always `products:1.0`.
    pub format: String,
    /// Name of the document in the index: `images:debian`.
    #[serde(default)]
    pub content_id: String,
    /// `image-downloads`.
    #[serde(default)]
    pub datatype: String,
    /// When it was written, RFC 2822.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub updated: String,
    /// The products, by product name (any string upstream; ours are [`Product`]s).
    pub products: BTreeMap<String, ProductEntry>,
}

/// One product: the same distribution, release, architecture and variant over time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProductEntry {
    /// Aliases, one comma-separated string.
    #[serde(default)]
    pub aliases: String,
    /// Debian's or the kernel's architecture name.
    #[serde(default)]
    pub arch: String,
    /// Distribution as shown: `Debian`.
    #[serde(default)]
    pub os: String,
    /// `bookworm`.
    #[serde(default)]
    pub release: String,
    /// `Bookworm` or `bookworm`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release_codename: Option<String>,
    /// As shown: `12` or `bookworm`.
    #[serde(default)]
    pub release_title: String,
    /// `YYYY-MM-DD`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub support_eol: Option<String>,
    /// `default`.
    #[serde(default)]
    pub variant: String,
    /// What the image asks of its host: `cgroup`, `secureboot`, `privileged`, `nesting`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub requirements: BTreeMap<String, String>,
    /// Versions by serial.
    #[serde(default)]
    pub versions: BTreeMap<String, Version>,
}

/// One image of a product.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// Files by name.
    #[serde(default)]
    pub items: BTreeMap<String, Item>,
}

/// One file of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// `lxd.tar.xz`, `incus.tar.xz`, `root.tar.xz`, `squashfs`, …
    pub ftype: String,
    /// Path from the root of the tree.
    pub path: String,
    /// Bytes.
    #[serde(default)]
    pub size: u64,
    /// SHA-256 of the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Sha256Digest>,
    /// On metadata items: SHA-256 of metadata followed by `rootfs.tar.xz`; the oldest of the names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub combined_sha256: Option<Sha256Digest>,
    /// On metadata items: the same under the name newer readers prefer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub combined_rootxz_sha256: Option<Sha256Digest>,
    /// On metadata items: SHA-256 of metadata followed by `rootfs.squashfs`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub combined_squashfs_sha256: Option<Sha256Digest>,
    /// On deltas: the version they start from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delta_base: Option<String>,
    /// SHA-256 of the uncompressed archive; only Millstream reads it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256_uncompressed: Option<Sha256Digest>,
}

impl Index {
    /// Reads an index.
    pub fn parse(text: &[u8]) -> Result<Self> {
        let index: Self = parse("simplestreams index", text)?;
        expect_format("simplestreams index", &index.format, "index:1.0")?;
        Ok(index)
    }

    /// The entries that list images.
    pub fn image_entries(&self) -> impl Iterator<Item = (&String, &IndexEntry)> {
        self.index.iter().filter(|(_, e)| {
            e.datatype == "image-downloads" && e.format == "products:1.0" && !e.products.is_empty()
        })
    }

    /// The same index for the signed tools, which want every path to end in `.sjson`.
    #[must_use]
    pub fn for_signed_readers(mut self) -> Self {
        for entry in self.index.values_mut() {
            entry.path = signed_path(&entry.path);
        }
        if let Some(freshness) = &mut self.millstream {
            freshness.path = signed_path(&freshness.path);
        }
        self
    }
}

impl Products {
    /// Reads a product document.
    pub fn parse(text: &[u8]) -> Result<Self> {
        let products: Self = parse("simplestreams products", text)?;
        expect_format("simplestreams products", &products.format, "products:1.0")?;
        Ok(products)
    }

    /// Reads the products of a document one by one into what `P` keeps of them: a fraction of the memory, and
    /// of the time, that all of a large document takes.
    pub fn parse_into<P: DeserializeOwned>(text: &[u8]) -> Result<P> {
        #[derive(Deserialize)]
        struct Document<P> {
            format: String,
            products: P,
        }
        let document: Document<P> = parse("simplestreams products", text)?;
        expect_format("simplestreams products", &document.format, "products:1.0")?;
        Ok(document.products)
    }

    /// An empty document, by its name in the index.
    pub fn empty(content_id: String) -> Self {
        Self {
            format: "products:1.0".into(),
            content_id,
            datatype: "image-downloads".into(),
            updated: String::new(),
            products: BTreeMap::new(),
        }
    }
}

impl ProductEntry {
    /// The newest version whose name begins with a date, as readers choose it.
    pub fn newest(&self) -> Option<(&String, &Version)> {
        self.versions
            .iter()
            .rev()
            .find(|(name, _)| name.len() >= 8 && name.as_bytes()[..8].iter().all(u8::is_ascii_digit))
    }

    /// The typed name of this product, when it is one of ours.
    pub fn product(&self) -> Result<Product> {
        let variant = if self.variant.is_empty() { "default" } else { &self.variant };
        Product::new(&self.os, &self.release, self.arch.parse()?, variant)
    }

    /// Aliases, separated.
    pub fn alias_list(&self) -> impl Iterator<Item = &str> {
        self.aliases.split(',').map(str::trim).filter(|alias| !alias.is_empty())
    }

    /// Serials of all versions that have one.
    pub fn serials(&self) -> impl Iterator<Item = Serial> + '_ {
        self.versions.keys().filter_map(|name| name.parse().ok())
    }
}

/// The path of a document's cleartext-signed form: `.json` becomes `.sjson`.
pub fn signed_path(path: &str) -> String {
    path.strip_suffix(".json").map_or_else(|| path.to_owned(), |stem| format!("{stem}.sjson"))
}

/// A document as bytes: compact JSON, keys in a fixed order, one newline at the end.
pub fn to_bytes(document: &impl Serialize) -> Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec(document).map_err(|e| Error::document("simplestreams", e))?;
    bytes.push(b'\n');
    Ok(bytes)
}

fn parse<'a, T: Deserialize<'a>>(what: &str, text: &'a [u8]) -> Result<T> {
    if text.len() as u64 > MAX_SIZE {
        return Err(Error::document(
            what,
            format!("{} bytes are more than the {MAX_SIZE} allowed", text.len()),
        ));
    }
    serde_json::from_slice(text).map_err(|e| Error::document(what, e))
}

fn expect_format(what: &str, found: &str, expected: &str) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    Err(Error::document(what, format!("format is {found:?}, expected {expected:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_other_servers_write_and_ignores_the_rest() {
        let text = br#"{"format":"index:1.0","index":{"images":{"datatype":"image-downloads","path":"streams/v1/images.json","format":"products:1.0","products":["a"],"x":1},"other":{"path":"y"}}}"#;
        let index = Index::parse(text).unwrap();
        assert_eq!(index.image_entries().count(), 1);
        assert_eq!(index.clone().for_signed_readers().index["images"].path, "streams/v1/images.sjson");
    }

    /// `sstream-mirror` takes `sha256` for the digest of what `path` names, which is the signed form.
    #[test]
    fn digest_of_the_plain_document_has_a_name_of_its_own() {
        let entry =
            IndexEntry { sha256: Some(Sha256Digest::of(b"x")), size: Some(1), ..IndexEntry::default() };
        let text = serde_json::to_string(&entry).unwrap();
        assert!(text.contains("\"document_sha256\"") && !text.contains("\"sha256\""), "{text}");
        assert_eq!(serde_json::from_str::<IndexEntry>(&text).unwrap(), entry);
    }

    #[test]
    fn newest_skips_names_without_a_date() {
        let mut product = ProductEntry::default();
        for name in ["20260101_0000", "20260102_0000", "latest"] {
            product.versions.insert(name.into(), Version::default());
        }
        assert_eq!(product.newest().unwrap().0, "20260102_0000");
    }

    #[test]
    fn refuses_other_formats_and_bad_hashes() {
        assert!(Index::parse(br#"{"format":"index:2.0","index":{}}"#).is_err());
        assert!(Products::parse(br#"{"format":"index:1.0","products":{}}"#).is_err());
        let bad = br#"{"format":"products:1.0","products":{"p":{"versions":{"1":{"items":{"i":{"ftype":"x","path":"y","sha256":"../../x"}}}}}}}"#;
        assert!(Products::parse(bad).is_err());
        let deep = "[".repeat(200_000);
        assert!(Products::parse(deep.as_bytes()).is_err());
    }
}
