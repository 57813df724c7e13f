//! Documents: signatures, and what they say of each other.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use chrono::{DateTime, Utc};
use millstream_image::Sha256Digest;
use millstream_image::openpgp::KeyFingerprint;
use millstream_image::simplestreams::{INDEX_PATH, Index, IndexEntry, Products, signed_path};

use super::Check;
use crate::stream::catalogue::{document_path, lxc_index};
use crate::stream::direct;
use crate::stream::documents::lxc_names;
use crate::stream::layout::{BY_HASH, CURRENT, KEY, LINKS};
use crate::stream::upstream::promised;

impl Check<'_> {
    pub(super) fn links(&self) {
        for (name, target) in LINKS {
            match fs::read_link(self.root.join(name)) {
                Ok(found) if found == Path::new(target) => {}
                Ok(found) => self.problem(name, format!("leads to {}, not to {target}", found.display())),
                Err(error) => self.problem(name, format!("not a link to {target}: {error}")),
            }
        }
    }

    /// Checks all documents; gives the product documents that can be read.
    pub(super) fn documents(&self) -> Vec<Products> {
        let index_path = signed_path(INDEX_PATH);
        let plain = self.detached(INDEX_PATH, &format!("{INDEX_PATH}.gpg"));
        let signed = self.cleartext(&index_path);
        let index = plain.and_then(|bytes| self.or_problem(INDEX_PATH, Index::parse(&bytes)));
        if let (Some(index), Some(text)) = (&index, signed)
            && let Some(signed) = self.or_problem(&index_path, Index::parse(&text))
            && signed != index.clone().for_signed_readers()
        {
            self.problem(&index_path, format!("it says something else than {INDEX_PATH}"));
        }
        let Some(index) = index else { return Vec::new() };
        self.freshness(&index);
        let entries = || index.index.iter();
        let products: Vec<_> = entries().filter_map(|(name, entry)| self.products(name, entry)).collect();
        self.by_hash(&entries().filter_map(|(_, entry)| entry.by_hash.clone()).collect::<Vec<_>>());
        if products.len() == index.index.len() {
            self.lxc(&products);
        }
        products
    }

    fn freshness(&self, index: &Index) {
        match &index.millstream {
            None => self.problem(INDEX_PATH, "it states no generation and no expiry"),
            Some(freshness) if freshness.path != INDEX_PATH => {
                self.problem(INDEX_PATH, format!("it says it is {}", freshness.path));
            }
            Some(freshness)
                if !freshness.keys.is_empty() && freshness.keys != self.keyring.fingerprints() =>
            {
                self.problem(KEY, "it holds other keys than the index names; run: millstream stream sign");
            }
            Some(freshness) if freshness.expires <= DateTime::<Utc>::from(self.now) => {
                let reason =
                    format!("it expired at {}; run: millstream stream sign", freshness.expires.to_rfc3339());
                self.problem(INDEX_PATH, reason);
            }
            Some(_) => {}
        }
    }

    /// One product document, in all its forms.
    fn products(&self, name: &str, entry: &IndexEntry) -> Option<Products> {
        let path = &entry.path;
        let expected = name.strip_prefix("images:").map(document_path);
        if expected.as_ref() != Some(path) {
            self.problem(INDEX_PATH, format!("it lists {path:?} as {name:?}"));
            return None;
        }
        let bytes = self.detached(path, &format!("{path}.gpg"));
        let signed = signed_path(path);
        if let (Some(text), Some(bytes)) = (self.cleartext(&signed), &bytes)
            && text != *bytes
        {
            self.problem(&signed, format!("its text is not that of {path}"));
        }
        let bytes = bytes?;
        let digest = Sha256Digest::of(&bytes);
        if entry.sha256 != Some(digest) || entry.size != Some(bytes.len() as u64) {
            self.problem(path, "size or SHA-256 is not what the index says");
        }
        if entry.by_hash != Some(format!("{BY_HASH}/{digest}.json")) {
            self.problem(INDEX_PATH, format!("by_hash does not name {path} by its hash"));
        }
        let products = self.or_problem(path, Products::parse(&bytes))?;
        if !products.products.keys().eq(&entry.products) {
            self.problem(INDEX_PATH, format!("it lists other products than {path} holds"));
        }
        self.direct(name.strip_prefix("images:").unwrap_or(name), &products);
        Some(products)
    }

    /// What other web servers read; trees of older versions have none, and nothing to say there.
    fn direct(&self, distribution: &str, products: &Products) {
        let path = Path::new(CURRENT).join(direct::path(distribution));
        let found = fs::read_to_string(self.root.join(&path)).unwrap_or_default();
        if found != direct::map(products) {
            self.problem(path, "it does not name the newest images; run: millstream stream sign");
        }
    }

    /// Every document named by its hash has that hash, and the present ones are among them.
    fn by_hash(&self, present: &[String]) {
        let dir = self.root.join(BY_HASH);
        if present.is_empty() && !dir.exists() {
            return; // A stream without images.
        }
        let Some(listing) = self.or_problem(BY_HASH, fs::read_dir(dir)) else { return };
        let mut names = BTreeSet::new();
        for item in listing.flatten() {
            let name = format!("{BY_HASH}/{}", item.file_name().to_string_lossy());
            if let Some(bytes) = self.read(&name)
                && name != format!("{BY_HASH}/{}.json", Sha256Digest::of(&bytes))
            {
                self.problem(&name, "its name is not its hash");
            }
            names.insert(name);
        }
        for present in present.iter().filter(|present| !names.contains(*present)) {
            self.problem(present, "missing, and the index lists it");
        }
    }

    fn lxc(&self, products: &[Products]) {
        let promised = promised(self.root).unwrap_or_default();
        let expected: String =
            products.iter().map(|products| lxc_index(self.root, products, &promised, "")).collect();
        for path in lxc_names() {
            let text = self.detached(&path, &format!("{path}.asc"));
            if text.is_some_and(|text| text != expected.as_bytes()) {
                self.problem(&path, "it does not list the newest images");
            }
        }
    }

    fn detached(&self, path: &str, signature: &str) -> Option<Vec<u8>> {
        let (bytes, signature_bytes) = (self.read(path)?, self.read(signature)?);
        let verified = self.keyring.verify_detached(bytes.as_slice(), &signature_bytes, self.now);
        let verified = self.or_problem(signature, verified)?;
        self.signed_by_all(signature, &verified.signers);
        Some(bytes)
    }

    fn cleartext(&self, path: &str) -> Option<Vec<u8>> {
        let verified = self.keyring.verify_cleartext(&self.read(path)?, self.now);
        let (text, verified) = self.or_problem(path, verified)?;
        self.signed_by_all(path, &verified.signers);
        Some(text)
    }

    /// While one key takes over from another, clients know either.
    fn signed_by_all(&self, path: &str, signers: &[KeyFingerprint]) {
        for key in self.keyring.fingerprints().iter().filter(|key| !signers.contains(key)) {
            self.problem(path, format!("{key} has not signed it; run: millstream stream sign"));
        }
    }
}
