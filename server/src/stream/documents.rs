//! The files of one publication, each with its signatures, held in memory until they are written.
//!
//! What is as it was stands in the next publication as a second name for the same file.

use std::collections::BTreeMap;
use std::fs;
use std::panic::resume_unwind;
use std::path::Path;
use std::thread;

use millstream_image::lxc_index::COMPAT_LEVEL;
use millstream_image::simplestreams::{
    self, Freshness, INDEX_PATH, Index, IndexEntry, Products, signed_path,
};
use millstream_image::{Error, Result, Sha256Digest};

use super::Signing;
use super::catalogue::{Catalogue, content_id, document_path, lxc_index};
use super::layout::{BY_HASH, CURRENT};
use super::upstream::promised;

/// The largest product document that is published. Readers refuse more than 25 MiB of signed text.
const MAX_SIZE: usize = 24 << 20;

/// LXC's index, of which all others are second names.
const LXC_INDEX: &str = "meta/1.0/index-system";

/// One publication.
#[derive(Default)]
pub(super) struct Documents {
    /// Path from the root, and contents.
    pub(super) files: Vec<(String, Vec<u8>)>,
    /// A second name (left) for a file (right) of the publication.
    pub(super) links: Vec<(String, String)>,
    /// Files of the publication before, which are in this one as well.
    pub(super) kept: Vec<String>,
    /// Documents by hash that the publication before listed and this one does not.
    pub(super) replaced: Vec<String>,
    /// What is still to be signed, which takes its time.
    unsigned: Vec<Unsigned>,
}

enum Unsigned {
    /// The index, which the signed tools want to be another.
    Index(Index),
    /// A product document, by its path.
    Products(String, Vec<u8>),
    /// LXC's index, with `.asc` beside it.
    Lxc(Vec<u8>),
}

impl Documents {
    /// Renders what changed of `catalogue`, which then lists it, and what changes always. Signatures follow,
    /// see [`Self::sign_during`].
    pub(super) fn render(
        catalogue: &mut Catalogue,
        freshness: &Freshness,
        signing: &Signing<'_>,
    ) -> crate::Result<Self> {
        let root = catalogue.root().to_path_buf();
        let bad = |error: Error| crate::Error::image(&root)(error);
        let mut documents = Self::default();
        let published = published_lxc(catalogue, signing)?;
        let changed: Vec<_> = catalogue.changed().cloned().collect();
        let (lxc, rendered) = thread::scope(|scope| {
            let lxc = scope.spawn(|| lxc_text(catalogue, &published));
            let of = |distribution: &String| catalogue.documents().get(distribution);
            let rendered: Result<Vec<_>> = changed
                .iter()
                .map(|distribution| {
                    match of(distribution).filter(|document| !document.products.products.is_empty()) {
                        Some(document) => documents.products(distribution, &document.products).map(Some),
                        None => Ok(None),
                    }
                })
                .collect();
            (lxc.join().unwrap_or_else(|panic| resume_unwind(panic)), rendered)
        });
        for (distribution, after) in changed.iter().zip(rendered.map_err(bad)?) {
            let before = catalogue.entries.remove(distribution);
            let by_hash = |entry: &IndexEntry| entry.by_hash.clone();
            let (old, new) = (before.as_ref().and_then(by_hash), after.as_ref().and_then(by_hash));
            documents.replaced.extend(old.filter(|old| new.as_ref() != Some(old)));
            catalogue.entries.extend(after.map(|entry| (distribution.clone(), entry)));
        }
        for (_, entry) in catalogue.entries.iter().filter(|(name, _)| !changed.contains(name)) {
            let path = &entry.path;
            documents.kept.extend([path.clone(), format!("{path}.gpg"), signed_path(path)]);
            documents.kept.extend(entry.by_hash.clone());
        }
        documents.unsigned.push(Unsigned::Index(index(catalogue, freshness)));
        documents.lxc(lxc?);
        Ok(documents)
    }

    /// Signs what is to be signed while `work` renders more into the publication.
    pub(super) fn sign_during(
        &mut self,
        root: &Path,
        signing: &Signing<'_>,
        work: impl FnOnce(&mut Self) -> crate::Result<()>,
    ) -> crate::Result<()> {
        let unsigned = std::mem::take(&mut self.unsigned);
        let sign = || unsigned.into_iter().map(|document| document.sign(signing)).collect::<Result<Vec<_>>>();
        let (signed, done) = thread::scope(|scope| {
            let signing = scope.spawn(sign);
            let done = work(self);
            (signing.join().unwrap_or_else(|panic| resume_unwind(panic)), done)
        });
        done?;
        self.files.extend(signed.map_err(crate::Error::image(root))?.into_iter().flatten());
        Ok(())
    }

    /// The document of one distribution, and its entry in the index.
    fn products(&mut self, distribution: &str, products: &Products) -> Result<IndexEntry> {
        let path = document_path(distribution);
        let bytes = simplestreams::to_bytes(products)?;
        if bytes.len() > MAX_SIZE {
            let reason = format!(
                "{} bytes are more than the {MAX_SIZE} readers accept; remove old images",
                bytes.len()
            );
            return Err(Error::Document { document: path, reason });
        }
        let digest = Sha256Digest::of(&bytes);
        let by_hash = format!("{BY_HASH}/{digest}.json");
        let entry = IndexEntry {
            datatype: products.datatype.clone(),
            path: path.clone(),
            format: products.format.clone(),
            updated: products.updated.clone(),
            products: products.products.keys().cloned().collect(),
            sha256: Some(digest),
            size: Some(bytes.len() as u64),
            by_hash: Some(by_hash.clone()),
        };
        self.unsigned.push(Unsigned::Products(path.clone(), bytes));
        self.links.push((by_hash, path));
        Ok(entry)
    }

    /// LXC's index. Its template asks for `index-MODE.LEVEL` first; every image suits all levels
    /// and both modes (`meta.tar.xz` holds what differs), so all of them are one file.
    fn lxc(&mut self, text: String) {
        let first = LXC_INDEX;
        self.unsigned.push(Unsigned::Lxc(text.into_bytes()));
        for name in lxc_names().filter(|name| name != first) {
            self.links.push((format!("{name}.asc"), format!("{first}.asc")));
            self.links.push((name, first.into()));
        }
    }
}

impl Unsigned {
    /// Its files: `NAME.json`, `NAME.json.gpg` and `NAME.sjson`, or LXC's index and its `.asc`.
    fn sign(self, signing: &Signing<'_>) -> Result<Vec<(String, Vec<u8>)>> {
        match self {
            Self::Index(index) => {
                let plain = simplestreams::to_bytes(&index)?;
                let signed = simplestreams::to_bytes(&index.for_signed_readers())?;
                simplestreams_files(INDEX_PATH.into(), plain, Some(&signed), signing)
            }
            Self::Products(path, bytes) => simplestreams_files(path, bytes, None, signing),
            Self::Lxc(text) => {
                let signature = signing.key.sign_detached(text.as_slice(), signing.now)?;
                Ok(vec![(format!("{LXC_INDEX}.asc"), signature.into_bytes()), (LXC_INDEX.into(), text)])
            }
        }
    }
}

/// The files of a document; `signed` is what the signed tools read, where that is something else.
fn simplestreams_files(
    path: String,
    plain: Vec<u8>,
    signed: Option<&[u8]>,
    &Signing { key, now, .. }: &Signing<'_>,
) -> Result<Vec<(String, Vec<u8>)>> {
    let signature = key.sign_detached(plain.as_slice(), now)?;
    let text = std::str::from_utf8(signed.unwrap_or(&plain))
        .map_err(|e| Error::Document { document: path.clone(), reason: e.to_string() })?;
    let cleartext = key.sign_cleartext(text, now)?;
    Ok(vec![
        (signed_path(&path), cleartext.into_bytes()),
        (format!("{path}.gpg"), signature.into_bytes()),
        (path, plain),
    ])
}

/// Paths of LXC's index: for each mode, plain and for each level.
pub(super) fn lxc_names() -> impl Iterator<Item = String> {
    let suffixes =
        || std::iter::once(String::new()).chain((1..=COMPAT_LEVEL).map(|level| format!(".{level}")));
    let names = |mode| suffixes().map(move |suffix| format!("meta/1.0/index-{mode}{suffix}"));
    names("system").chain(names("user"))
}

fn index(catalogue: &Catalogue, freshness: &Freshness) -> Index {
    let entries = catalogue.entries.iter();
    Index {
        format: "index:1.0".into(),
        index: entries.map(|(distribution, entry)| (content_id(distribution), entry.clone())).collect(),
        updated: freshness.created.to_rfc2822(),
        millstream: Some(freshness.clone()),
    }
}

/// What of LXC's index is published, if it can be believed; else all documents are read, to make it anew.
fn published_lxc(catalogue: &mut Catalogue, signing: &Signing<'_>) -> crate::Result<String> {
    let path = catalogue.root().join(CURRENT).join(LXC_INDEX);
    let read = || {
        let (text, signature) = (fs::read(&path).ok()?, fs::read(path.with_added_extension("asc")).ok()?);
        signing.key.keyring().verify_detached(text.as_slice(), &signature, signing.now).ok()?;
        String::from_utf8(text).ok()
    };
    let published = read();
    if published.is_none() {
        catalogue.read_all()?;
    }
    Ok(published.unwrap_or_default())
}

/// LXC's index: new lines for what was read, the `published` ones for the rest.
fn lxc_text(catalogue: &Catalogue, published: &str) -> crate::Result<String> {
    let mut lines: BTreeMap<&str, String> = BTreeMap::new();
    for line in published.lines() {
        let distribution = line.split(';').next().unwrap_or_default();
        let text = lines.entry(distribution).or_default();
        text.push_str(line);
        text.push('\n');
    }
    let promised = promised(catalogue.root())?;
    for (distribution, document) in catalogue.documents() {
        let published = lines.remove(distribution.as_str()).filter(|_| !document.renewed);
        let published = published.unwrap_or_default();
        lines.insert(distribution, lxc_index(catalogue.root(), &document.products, &promised, &published));
    }
    Ok(lines.into_values().collect())
}
