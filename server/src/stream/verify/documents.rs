//! Documents: signatures, and what they say of each other.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use chrono::{DateTime, Utc};
use millstream_image::Sha256Digest;
use millstream_image::simplestreams::{IMAGES_PATH, INDEX_PATH, Index, Products, signed_path};

use super::Check;
use crate::stream::catalogue::lxc_index;
use crate::stream::documents::lxc_names;
use crate::stream::layout::{BY_HASH, LINKS};

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

    /// Checks all documents; the products when they can be read.
    pub(super) fn documents(&self) -> Option<Products> {
        let index_path = signed_path(INDEX_PATH);
        let plain = self.detached(INDEX_PATH, &format!("{INDEX_PATH}.gpg"));
        let signed = self.cleartext(&index_path);
        let products = self.detached(IMAGES_PATH, &format!("{IMAGES_PATH}.gpg"));
        if let (Some(text), Some(products)) = (self.cleartext(&signed_path(IMAGES_PATH)), &products)
            && text != *products
        {
            self.problem(signed_path(IMAGES_PATH), format!("its text is not that of {IMAGES_PATH}"));
        }
        let index = plain.and_then(|bytes| self.or_problem(INDEX_PATH, Index::parse(&bytes)));
        if let (Some(index), Some(text)) = (&index, signed)
            && let Some(signed) = self.or_problem(&index_path, Index::parse(&text))
            && signed != index.for_signed_readers()
        {
            self.problem(&index_path, format!("it says something else than {INDEX_PATH}"));
        }
        let products = products?;
        if let Some(index) = index {
            self.index(&index, &products);
        }
        let products = self.or_problem(IMAGES_PATH, Products::parse(&products))?;
        self.lxc(&products);
        Some(products)
    }

    fn index(&self, index: &Index, products: &[u8]) {
        match &index.millstream {
            None => self.problem(INDEX_PATH, "it states no generation and no expiry"),
            Some(freshness) if freshness.path != INDEX_PATH => {
                self.problem(INDEX_PATH, format!("it says it is {}", freshness.path));
            }
            Some(freshness) if freshness.expires <= DateTime::<Utc>::from(self.now) => {
                let reason =
                    format!("it expired at {}; run: millstream stream sign", freshness.expires.to_rfc3339());
                self.problem(INDEX_PATH, reason);
            }
            Some(_) => {}
        }
        let Some(entry) = index.index.get("images") else {
            return self.problem(INDEX_PATH, format!("it does not list {IMAGES_PATH}"));
        };
        let digest = Sha256Digest::of(products);
        if entry.sha256 != Some(digest) || entry.size != Some(products.len() as u64) {
            self.problem(IMAGES_PATH, "size or SHA-256 is not what the index says");
        }
        if entry.by_hash != Some(format!("{BY_HASH}/{digest}.json")) {
            self.problem(INDEX_PATH, format!("by_hash does not name {IMAGES_PATH} by its hash"));
        }
        self.by_hash(entry.by_hash.as_deref());
    }

    /// Every document named by its hash has that hash, and the present one is among them.
    fn by_hash(&self, present: Option<&str>) {
        let Some(listing) = self.or_problem(BY_HASH, fs::read_dir(self.root.join(BY_HASH))) else { return };
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
        if let Some(present) = present.filter(|present| !names.contains(*present)) {
            self.problem(present, "missing, and the index lists it");
        }
    }

    fn lxc(&self, products: &Products) {
        let expected = lxc_index(products);
        for path in lxc_names() {
            let text = self.detached(&path, &format!("{path}.asc"));
            if text.is_some_and(|text| text != expected.as_bytes()) {
                self.problem(&path, format!("it does not list the newest images of {IMAGES_PATH}"));
            }
        }
    }

    fn detached(&self, path: &str, signature: &str) -> Option<Vec<u8>> {
        let (bytes, signature_bytes) = (self.read(path)?, self.read(signature)?);
        let verified = self.keyring.verify_detached(bytes.as_slice(), &signature_bytes, self.now);
        self.or_problem(signature, verified)?;
        Some(bytes)
    }

    fn cleartext(&self, path: &str) -> Option<Vec<u8>> {
        let verified = self.keyring.verify_cleartext(&self.read(path)?, self.now);
        self.or_problem(path, verified).map(|(text, _)| text)
    }
}
