//! A careful client of a tree on disk.

use std::fs::{self, File};
use std::path::Path;
use std::time::SystemTime;

use millstream_image::Sha256Digest;
use millstream_image::openpgp::Keyring;
use millstream_image::simplestreams::{Index, Products};

/// Reads the tree as a careful client does and returns the generation: the signed index, the
/// product document it names by hash, and every file that lists.
pub fn read(root: &Path, keyring: &Keyring) -> Result<u64, String> {
    let now = SystemTime::now();
    let file = |path: &str| fs::read(root.join(path)).map_err(|e| format!("{path}: {e}"));
    let (text, _) =
        keyring.verify_cleartext(&file("streams/v1/index.sjson")?, now).map_err(|e| e.to_string())?;
    let index = Index::parse(&text).map_err(|e| e.to_string())?;
    for entry in index.index.values() {
        let bytes = file(entry.by_hash.as_ref().unwrap())?;
        if entry.sha256 != Some(Sha256Digest::of(&bytes)) || entry.size != Some(bytes.len() as u64) {
            return Err("the product document is not what the index says".into());
        }
        let products = Products::parse(&bytes).map_err(|e| e.to_string())?;
        let versions = products.products.values().flat_map(|product| product.versions.values());
        for item in versions.flat_map(|version| version.items.values()) {
            let (digest, size) = File::open(root.join(&item.path))
                .and_then(Sha256Digest::of_reader)
                .map_err(|e| format!("{}: {e}", item.path))?;
            if (Some(digest), size) != (item.sha256, item.size) {
                return Err(format!("{} is not what the documents say", item.path));
            }
        }
    }
    Ok(index.millstream.unwrap().generation)
}
