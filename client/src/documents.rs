//! From a remote's tree to documents that may be believed.
//!
//! Of a signed remote only `index.sjson` is trusted to begin with: verified, fresh, not older than
//! what was seen, and naming its own path. It vouches for the product documents by size and hash;
//! where a foreign stream's index has no hashes, each document carries its own signature. What was
//! seen is remembered when all of it has passed.

use std::collections::{BTreeMap, VecDeque};
use std::thread::available_parallelism;
use std::time::SystemTime;

use chrono::{DateTime, Utc};
use millstream_image::Sha256Digest;
use millstream_image::openpgp::{KeyFingerprint, Keyring};
use millstream_image::simplestreams::{INDEX_PATH, Index, IndexEntry, MAX_SIZE, signed_path};
use tokio::task::{JoinHandle, spawn_blocking};

use crate::cache::DocumentCache;
use crate::catalogue::Part;
use crate::remotes::Remote;
use crate::tree::{Tree, TreePath};
use crate::trust::{Sight, Sights, TrustFile, check_clock, check_fresh};
use crate::{Error, Result};

/// Product documents one index may list.
const MAX_DOCUMENTS: usize = 64;
/// Product documents that are parsed at a time, at most.
const PARSED_AT_ONCE: usize = 4;

/// What a reading needs beside the remote itself.
pub(crate) struct Reader<'a> {
    pub remote: &'a Remote,
    pub tree: &'a Tree,
    pub trust: &'a TrustFile,
    /// Where documents that never change are kept, by hash.
    pub cache: DocumentCache<'a>,
    /// The one reading of the clock that everything is judged by.
    pub now: SystemTime,
}

/// What a remote says, believed.
pub(crate) struct Reading {
    pub parts: Vec<Part>,
    /// The keys it says are its own; empty when it says nothing of them.
    pub keys: Vec<KeyFingerprint>,
}

impl Reader<'_> {
    /// Fetches and checks the index and every product document in it.
    pub(crate) async fn read(&self) -> Result<Reading> {
        let Some(keyring) = self.remote.trust.keyring()? else { return self.read_unsigned().await };
        match self.read_signed(&keyring).await {
            // A publication may have come between the index and a document: once more.
            Err(error) if error.is_missing() => self.read_signed(&keyring).await,
            other => other,
        }
    }

    async fn read_signed(&self, keyring: &Keyring) -> Result<Reading> {
        let pinned = keyring.fingerprints();
        let before = self.trust.load(&pinned)?;
        let path: TreePath = signed_path(INDEX_PATH).parse()?;
        let url = self.tree.url(&path);
        let mut seen = BTreeMap::new();
        let (text, mut sight) = self.signed(keyring, &path).await?;
        let index = Index::parse(&text).map_err(|e| Error::document(&url, e))?;
        if let Some(freshness) = &index.millstream {
            if freshness.path != path.as_str() {
                let reason = format!("it was signed as {}, not as {path}", freshness.path.escape_debug());
                return Err(Error::Signature { url, reason });
            }
            check_fresh(freshness, self.now.into())
                .map_err(|reason| Error::Expired { url: url.clone(), reason })?;
            sight.created = freshness.created;
            sight.generation = Some(freshness.generation);
        }
        self.compare(&before, &path, &sight)?;
        seen.insert(path.to_string(), sight);
        let mut parsing = Parsing::default();
        for (name, entry) in bounded(&index, &url)? {
            let (url, text) = match (&entry.by_hash, entry.sha256, entry.size) {
                (Some(by_hash), Some(sha256), Some(size)) => self.by_hash(by_hash, sha256, size).await?,
                _ => self.foreign(keyring, (name, entry), &before, &mut seen).await?,
            };
            parsing.add(url, text).await?;
        }
        let parts = parsing.finish().await?;
        self.trust.record(&pinned, seen)?;
        let keys = index.millstream.map(|freshness| freshness.keys).unwrap_or_default();
        Ok(Reading { parts, keys })
    }

    /// Fetches a cleartext-signed document and returns the text that was signed.
    async fn signed(&self, keyring: &Keyring, path: &TreePath) -> Result<(Vec<u8>, Sight)> {
        let url = self.tree.url(path);
        let refused = |reason: String| Error::Signature { url: url.clone(), reason };
        let message = match self.tree.document(path, MAX_SIZE).await {
            Err(error) if error.is_missing() => {
                return Err(refused(
                    "there is no signed document here, but this remote must be signed".into(),
                ));
            }
            other => other?,
        };
        let (text, verified) =
            keyring.verify_cleartext(&message, self.now).map_err(|e| refused(e.to_string()))?;
        let created: DateTime<Utc> = verified.created.into();
        check_clock(created, self.now.into()).map_err(|reason| Error::Expired { url, reason })?;
        let sha256 = Sha256Digest::of(&text);
        Ok((text, Sight { signers: verified.signers, created, generation: None, sha256 }))
    }

    pub(crate) fn compare(&self, before: &Sights, path: &TreePath, sight: &Sight) -> Result<()> {
        let Some(before) = before.get(path.as_str()) else { return Ok(()) };
        sight.follows(before).map_err(|reason| Error::Rollback { url: self.tree.url(path), reason })
    }

    /// A document the index names by hash; it never changes, so it is kept.
    async fn by_hash(&self, path: &str, sha256: Sha256Digest, size: u64) -> Result<(String, Vec<u8>)> {
        let path: TreePath = path.parse()?;
        let url = self.tree.url(&path);
        if size > MAX_SIZE {
            return Err(Error::document(url, format!("{size} bytes are more than the {MAX_SIZE} allowed")));
        }
        if let Some(text) = self.cache.get(sha256) {
            return Ok((url, text));
        }
        let text = self.tree.document(&path, size).await?;
        check_hash(&url, &text, Some(size), Some(sha256))?;
        self.cache.put(sha256, &text);
        Ok((url, text))
    }

    /// A document of a stream that is not ours, with a signature of its own.
    async fn foreign(
        &self,
        keyring: &Keyring,
        (name, entry): (&str, &IndexEntry),
        before: &Sights,
        seen: &mut BTreeMap<String, Sight>,
    ) -> Result<(String, Vec<u8>)> {
        // Some signed indexes still name the unsigned form.
        let path: TreePath = signed_path(&entry.path).parse()?;
        let url = self.tree.url(&path);
        let (text, sight) = self.signed(keyring, &path).await?;
        self.compare(before, &path, &sight)?;
        check_hash(&url, &text, entry.size, entry.sha256)?;
        let products: Named = serde_json::from_slice(&text).map_err(|e| Error::document(&url, e))?;
        if !products.content_id.is_empty() && products.content_id != name {
            let reason =
                format!("it is \"{}\", the index names it \"{name}\"", products.content_id.escape_debug());
            return Err(Error::Signature { url, reason });
        }
        seen.insert(path.to_string(), sight);
        Ok((url, text))
    }

    /// Where the user waived signatures. Nothing is remembered: what nobody signed proves nothing.
    async fn read_unsigned(&self) -> Result<Reading> {
        let path: TreePath = INDEX_PATH.parse()?;
        let url = self.tree.url(&path);
        let text = self.tree.document(&path, MAX_SIZE).await?;
        let index = Index::parse(&text).map_err(|e| Error::document(&url, e))?;
        let mut parsing = Parsing::default();
        for (_, entry) in bounded(&index, &url)? {
            let path: TreePath = entry.path.parse()?;
            let url = self.tree.url(&path);
            let text = self.tree.document(&path, MAX_SIZE).await?;
            check_hash(&url, &text, entry.size, entry.sha256)?;
            parsing.add(url, text).await?;
        }
        Ok(Reading { parts: parsing.finish().await?, keys: Vec::new() })
    }
}

/// The one field by which a document of a foreign stream says which it is.
#[derive(serde::Deserialize)]
struct Named {
    #[serde(default)]
    content_id: String,
}

/// Documents being parsed, a few at a time: parsed they take several times their size.
#[derive(Default)]
struct Parsing {
    running: VecDeque<JoinHandle<Result<Part>>>,
    done: Vec<Part>,
}

impl Parsing {
    async fn add(&mut self, url: String, text: Vec<u8>) -> Result<()> {
        let processors = available_parallelism().map_or(1, usize::from);
        if self.running.len() >= processors.min(PARSED_AT_ONCE) {
            self.wait().await?;
        }
        let parse = move || Part::parse(&text).map_err(|e| Error::document(url, e));
        self.running.push_back(spawn_blocking(parse));
        Ok(())
    }

    async fn wait(&mut self) -> Result<()> {
        if let Some(running) = self.running.pop_front() {
            self.done.push(running.await.map_err(|e| Error::Setup(e.to_string()))??);
        }
        Ok(())
    }

    async fn finish(mut self) -> Result<Vec<Part>> {
        while !self.running.is_empty() {
            self.wait().await?;
        }
        Ok(self.done)
    }
}

/// Reads `key.asc`, the public key a tree offers. It proves nothing until its fingerprint has been
/// compared with one from elsewhere.
pub(crate) async fn offered_key(tree: &Tree) -> Result<Keyring> {
    const MAX_KEY: u64 = 1 << 20;
    let path: TreePath = "key.asc".parse()?;
    let bytes = tree.document(&path, MAX_KEY).await?;
    Keyring::from_bytes(&bytes).map_err(|e| Error::document(tree.url(&path), e))
}

fn bounded<'a>(index: &'a Index, url: &str) -> Result<Vec<(&'a str, &'a IndexEntry)>> {
    let entries: Vec<_> = index.image_entries().map(|(name, entry)| (name.as_str(), entry)).collect();
    if entries.len() > MAX_DOCUMENTS {
        let reason = format!("it lists {} product documents, allowed are {MAX_DOCUMENTS}", entries.len());
        return Err(Error::document(url, reason));
    }
    Ok(entries)
}

fn check_hash(url: &str, text: &[u8], size: Option<u64>, sha256: Option<Sha256Digest>) -> Result<()> {
    if let Some(size) = size.filter(|size| *size != text.len() as u64) {
        return Err(Error::mismatch(url, format!("it is {} bytes, the index says {size}", text.len())));
    }
    let found = Sha256Digest::of(text);
    if let Some(expected) = sha256.filter(|expected| *expected != found) {
        return Err(Error::mismatch(url, format!("SHA-256 is {found}, the index says {expected}")));
    }
    Ok(())
}
