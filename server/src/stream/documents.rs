//! The files of one publication, each with its signatures, held in memory until they are written.

use std::time::SystemTime;

use millstream_image::lxc_index::COMPAT_LEVEL;
use millstream_image::openpgp::SigningKey;
use millstream_image::simplestreams::{
    self, Freshness, IMAGES_PATH, INDEX_PATH, Index, IndexEntry, signed_path,
};
use millstream_image::{Error, Result, Sha256Digest};

use super::catalogue::{Catalogue, lxc_index};
use super::layout::BY_HASH;

/// The largest product document that is published. Readers refuse more than 25 MiB of signed text.
const MAX_SIZE: usize = 24 << 20;

/// One publication.
#[derive(Default)]
pub(super) struct Documents {
    /// Path from the root, and contents.
    pub(super) files: Vec<(String, Vec<u8>)>,
    /// A second name (left) for a file (right) of the publication.
    pub(super) links: Vec<(String, String)>,
}

impl Documents {
    /// Renders and signs everything that `catalogue` offers.
    pub(super) fn render(
        catalogue: &Catalogue,
        freshness: &Freshness,
        key: &SigningKey,
        now: SystemTime,
    ) -> Result<Self> {
        let mut documents = Self::default();
        let images = &catalogue.bytes;
        if images.len() > MAX_SIZE {
            return Err(Error::Document {
                document: IMAGES_PATH.into(),
                reason: format!(
                    "{} bytes are more than the {MAX_SIZE} readers accept; remove old images",
                    images.len()
                ),
            });
        }
        let by_hash = format!("{BY_HASH}/{}.json", Sha256Digest::of(images));
        let index = index(catalogue, freshness, &by_hash);
        documents.simplestreams(IMAGES_PATH, images.clone(), images, key, now)?;
        documents.links.push((by_hash, IMAGES_PATH.into()));
        let plain = simplestreams::to_bytes(&index)?;
        let signed = simplestreams::to_bytes(&index.for_signed_readers())?;
        documents.simplestreams(INDEX_PATH, plain, &signed, key, now)?;
        documents.lxc(lxc_index(&catalogue.products), key, now)?;
        Ok(documents)
    }

    /// `NAME.json`, `NAME.json.gpg` and `NAME.sjson`.
    fn simplestreams(
        &mut self,
        path: &str,
        plain: Vec<u8>,
        signed: &[u8],
        key: &SigningKey,
        now: SystemTime,
    ) -> Result<()> {
        let signature = key.sign_detached(plain.as_slice(), now)?;
        let text = std::str::from_utf8(signed)
            .map_err(|e| Error::Document { document: path.into(), reason: e.to_string() })?;
        self.files.push((signed_path(path), key.sign_cleartext(text, now)?.into_bytes()));
        self.files.push((format!("{path}.gpg"), signature.into_bytes()));
        self.files.push((path.into(), plain));
        Ok(())
    }

    /// LXC's index. Its template asks for `index-MODE.LEVEL` first; every image suits all levels
    /// and both modes (`meta.tar.xz` holds what differs), so all of them are one file.
    fn lxc(&mut self, text: String, key: &SigningKey, now: SystemTime) -> Result<()> {
        let first = "meta/1.0/index-system";
        let signature = key.sign_detached(text.as_bytes(), now)?;
        self.files.push((first.into(), text.into_bytes()));
        self.files.push((format!("{first}.asc"), signature.into_bytes()));
        for name in lxc_names().filter(|name| name != first) {
            self.links.push((format!("{name}.asc"), format!("{first}.asc")));
            self.links.push((name, first.into()));
        }
        Ok(())
    }
}

/// Paths of LXC's index: for each mode, plain and for each level.
pub(super) fn lxc_names() -> impl Iterator<Item = String> {
    let suffixes =
        || std::iter::once(String::new()).chain((1..=COMPAT_LEVEL).map(|level| format!(".{level}")));
    let names = |mode| suffixes().map(move |suffix| format!("meta/1.0/index-{mode}{suffix}"));
    names("system").chain(names("user"))
}

fn index(catalogue: &Catalogue, freshness: &Freshness, by_hash: &str) -> Index {
    let products = &catalogue.products;
    let entry = IndexEntry {
        datatype: products.datatype.clone(),
        path: IMAGES_PATH.into(),
        format: products.format.clone(),
        updated: products.updated.clone(),
        products: products.products.keys().cloned().collect(),
        sha256: Some(Sha256Digest::of(&catalogue.bytes)),
        size: Some(catalogue.bytes.len() as u64),
        by_hash: Some(by_hash.into()),
    };
    Index {
        format: "index:1.0".into(),
        index: [(products.content_id.clone(), entry)].into(),
        updated: freshness.created.to_rfc2822(),
        millstream: Some(freshness.clone()),
    }
}
