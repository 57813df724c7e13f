//! The files of one publication, each with its signatures.
//!
//! What is as it was stands in the next publication as a second name for the same file.

use std::collections::BTreeMap;
use std::fs;
use std::sync::mpsc::Sender;
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
use super::workers::joined;

/// The largest product document that is published. Readers refuse more than 25 MiB of signed text.
const MAX_SIZE: usize = 24 << 20;

/// LXC's index, of which all others are second names.
const LXC_INDEX: &str = "meta/1.0/index-system";

/// A file by its path from the root, and its contents.
pub(super) type File = (String, Vec<u8>);

/// One publication that is being made.
pub(super) struct Documents {
    /// Takes its files, and writes them while others are made.
    writer: Sender<File>,
    pub(super) names: Names,
}

/// What a publication has besides files of its own.
#[derive(Default)]
pub(super) struct Names {
    /// A second name (left) for a file (right) of the publication.
    pub(super) links: Vec<(String, String)>,
    /// Files of the publication before, which are in this one as well.
    pub(super) kept: Vec<String>,
    /// Documents by hash that the publication before listed and this one does not.
    pub(super) replaced: Vec<String>,
}

impl Documents {
    /// Renders and signs what changed of `catalogue`, which then lists it, and what changes always; what
    /// `beside` adds is made meanwhile.
    pub(super) fn render(
        catalogue: &mut Catalogue,
        freshness: &Freshness,
        signing: &Signing<'_>,
        writer: Sender<File>,
        beside: impl FnOnce(&Catalogue, &mut Self) -> crate::Result<()>,
    ) -> crate::Result<Names> {
        let published = published_lxc(catalogue, signing)?;
        let bad = crate::Error::image(catalogue.root());
        let (shown, mut documents) = (&*catalogue, Self::new(writer.clone()));
        let (simplestreams, others) = thread::scope(|scope| {
            let simplestreams = scope.spawn(|| documents.simplestreams(shown, freshness, signing));
            let mut others = Self::new(writer);
            let done = others.lxc(shown, &published, signing).and_then(|()| beside(shown, &mut others));
            (joined(simplestreams), done.map(|()| others))
        });
        let (entries, others) = (simplestreams.map_err(bad)?, others?);
        let mut names = documents.names;
        names.links.extend(others.names.links);
        names.kept.extend(others.names.kept);
        catalogue.entries = entries;
        Ok(names)
    }

    fn new(writer: Sender<File>) -> Self {
        Self { writer, names: Names::default() }
    }

    /// Adds a file.
    pub(super) fn file(&self, path: impl Into<String>, contents: impl Into<Vec<u8>>) {
        // Nobody takes it any more when writing has failed, which is told there.
        let _ = self.writer.send((path.into(), contents.into()));
    }

    /// Product documents and the index, and the index's entries.
    fn simplestreams(
        &mut self,
        catalogue: &Catalogue,
        freshness: &Freshness,
        signing: &Signing<'_>,
    ) -> Result<BTreeMap<String, IndexEntry>> {
        let mut entries = catalogue.entries.clone();
        for (distribution, document) in catalogue.documents().iter().filter(|(_, one)| one.changed) {
            let before = entries.remove(distribution).and_then(|entry| entry.by_hash);
            if document.products.products.is_empty() {
                self.names.replaced.extend(before);
                continue;
            }
            let entry = self.products(distribution, &document.products, signing)?;
            self.names.replaced.extend(before.filter(|before| entry.by_hash.as_ref() != Some(before)));
            entries.insert(distribution.clone(), entry);
        }
        let as_it_was = |name: &String| catalogue.documents().get(name).is_none_or(|one| !one.changed);
        for (_, entry) in entries.iter().filter(|(name, _)| as_it_was(name)) {
            let path = &entry.path;
            self.names.kept.extend([path.clone(), format!("{path}.gpg"), signed_path(path)]);
            self.names.kept.extend(entry.by_hash.clone());
        }
        self.index(&entries, freshness, signing)?;
        Ok(entries)
    }

    /// The document of one distribution, and its entry in the index.
    fn products(
        &mut self,
        distribution: &str,
        products: &Products,
        signing: &Signing<'_>,
    ) -> Result<IndexEntry> {
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
        self.names.links.push((by_hash, path.clone()));
        self.signed(path, bytes, None, signing)?;
        Ok(entry)
    }

    /// The index; the signed tools want another than the rest.
    fn index(
        &mut self,
        entries: &BTreeMap<String, IndexEntry>,
        freshness: &Freshness,
        signing: &Signing<'_>,
    ) -> Result<()> {
        let named = entries.iter().map(|(distribution, entry)| (content_id(distribution), entry.clone()));
        let index = Index {
            format: "index:1.0".into(),
            index: named.collect(),
            updated: freshness.created.to_rfc2822(),
            millstream: Some(freshness.clone()),
        };
        let plain = simplestreams::to_bytes(&index)?;
        let signed = simplestreams::to_bytes(&index.for_signed_readers())?;
        self.signed(INDEX_PATH.into(), plain, Some(&signed), signing)
    }

    /// A document as `NAME.json`, `NAME.json.gpg` and `NAME.sjson`; `text` is what the last has, where that is
    /// something else.
    fn signed(
        &mut self,
        path: String,
        plain: Vec<u8>,
        text: Option<&[u8]>,
        &Signing { key, now, .. }: &Signing<'_>,
    ) -> Result<()> {
        let signature = key.sign_detached(plain.as_slice(), now)?;
        let text = std::str::from_utf8(text.unwrap_or(&plain))
            .map_err(|e| Error::Document { document: path.clone(), reason: e.to_string() })?;
        let cleartext = key.sign_cleartext(text, now)?;
        self.file(signed_path(&path), cleartext);
        self.file(format!("{path}.gpg"), signature);
        self.file(path, plain);
        Ok(())
    }

    /// LXC's index and its signature. Its template asks for `index-MODE.LEVEL` first; every image suits all
    /// levels and both modes (`meta.tar.xz` holds what differs), so all of them are one file.
    fn lxc(&mut self, catalogue: &Catalogue, published: &str, signing: &Signing<'_>) -> crate::Result<()> {
        let first = LXC_INDEX;
        let text = lxc_text(catalogue, published)?;
        let signature = signing.key.sign_detached(text.as_bytes(), signing.now);
        let signature = signature.map_err(crate::Error::image(catalogue.root()))?;
        self.file(format!("{first}.asc"), signature);
        self.file(first, text);
        for name in lxc_names().filter(|name| name != first) {
            self.names.links.push((format!("{name}.asc"), format!("{first}.asc")));
            self.names.links.push((name, first.into()));
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

/// Reads what of LXC's index is published, if it can be believed. It is the catalogue's from then on.
pub(super) fn read_lxc(catalogue: &mut Catalogue, signing: &Signing<'_>) {
    let path = catalogue.root().join(CURRENT).join(LXC_INDEX);
    let believed = |(text, signature): (Vec<u8>, Vec<u8>)| {
        signing.key.keyring().verify_detached(text.as_slice(), &signature, signing.now).ok()?;
        String::from_utf8(text).ok()
    };
    let read = fs::read(&path).ok().zip(fs::read(path.with_added_extension("asc")).ok());
    catalogue.lxc = read.and_then(believed);
}

/// What of LXC's index is published; if that cannot be believed, all documents are read, to make it anew.
fn published_lxc(catalogue: &mut Catalogue, signing: &Signing<'_>) -> crate::Result<String> {
    if catalogue.lxc.is_none() {
        read_lxc(catalogue, signing);
    }
    let published = catalogue.lxc.take();
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
