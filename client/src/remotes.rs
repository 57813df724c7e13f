//! Remotes: the servers this user trusts, and how far.
//!
//! One JSON file, replaced whole under a lock. It holds all that verification needs – pinned
//! fingerprints, the public keys themselves, private authorities – so that nothing outside it can
//! change what is believed.

mod protocol;
mod url;

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::path::Path;
use std::str::FromStr;

use ::url::Url;
use millstream_image::atomic;
use millstream_image::openpgp::{KeyFingerprint, Keyring};
use serde::{Deserialize, Serialize};

pub use self::protocol::Protocol;
pub use self::url::parse_url;
use self::url::{url_text, url_texts};
use crate::access::Access;
use crate::http::{self, HttpOptions};
use crate::tree::Tree;
use crate::{Error, Result};

/// The name that means this machine's own store.
pub const LOCAL: &str = "local";
const VERSION: u32 = 1;
const MAX_NAME: usize = 63;

/// A remote's name: letters, digits, `.`, `_` and `-`, beginning with a letter or digit, at most
/// 63 bytes; `local` is taken.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RemoteName(String);

impl RemoteName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RemoteName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for RemoteName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bad = |reason: &str| Err(Error::name(text, format!("not a remote's name: {reason}")));
        if text == LOCAL {
            return bad("\"local\" is this machine's own store");
        }
        if text.is_empty() || text.len() > MAX_NAME {
            return bad("it must have 1 to 63 characters");
        }
        if !text.starts_with(|c: char| c.is_ascii_alphanumeric()) {
            return bad("it must begin with a letter or digit");
        }
        if !text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)) {
            return bad("only letters, digits and . _ - are allowed");
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for RemoteName {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<RemoteName> for String {
    fn from(name: RemoteName) -> Self {
        name.0
    }
}

/// What makes a remote's documents believable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trust {
    /// Signatures by one of these keys.
    Keys {
        /// Full fingerprints of the pinned keys.
        fingerprints: Vec<KeyFingerprint>,
        /// The public keys, armored.
        keyring: String,
    },
    /// Nothing but the transport: the user said so.
    InsecureNoSignature,
}

impl Trust {
    /// Pins all keys of a keyring.
    pub fn pin(keyring: &Keyring) -> Result<Self> {
        let mut fingerprints = keyring.fingerprints();
        fingerprints.sort();
        fingerprints.dedup();
        Ok(Self::Keys { fingerprints, keyring: keyring.to_armored()? })
    }

    /// Pins one key of a keyring, by its full fingerprint.
    pub fn pin_one(keyring: Keyring, fingerprint: &KeyFingerprint) -> Result<Self> {
        let found: Vec<_> = keyring.fingerprints().iter().map(ToString::to_string).collect();
        let pinned = keyring.restricted_to(std::slice::from_ref(fingerprint));
        if pinned.fingerprints().is_empty() {
            let reason = format!("the key found is {}, not this one", found.join(" and "));
            return Err(Error::name(fingerprint.as_str(), reason));
        }
        Self::pin(&pinned)
    }

    /// The trust that follows from a believed document that names the stream's keys: those of `named`
    /// that are pinned or among the `offered`, and no others. `None` where nothing changes, or nothing
    /// would be left.
    pub(crate) fn follow(&self, named: &[KeyFingerprint], offered: Keyring) -> Result<Option<Self>> {
        let Some(mut keyring) = self.keyring()? else { return Ok(None) };
        let known = keyring.fingerprints();
        keyring.merge(offered.without(&known));
        let keyring = keyring.restricted_to(named);
        if named.is_empty() || keyring.fingerprints().is_empty() {
            return Ok(None);
        }
        Self::pin(&keyring).map(|trust| (trust != *self).then_some(trust))
    }

    /// Whether these keys, and no others, are pinned.
    pub(crate) fn pins(&self, keys: &[KeyFingerprint]) -> bool {
        match self {
            Self::Keys { fingerprints, .. } => {
                fingerprints.len() == keys.len() && keys.iter().all(|key| fingerprints.contains(key))
            }
            Self::InsecureNoSignature => false,
        }
    }

    /// The keys to verify with; `None` where signatures were waived.
    pub(crate) fn keyring(&self) -> Result<Option<Keyring>> {
        match self {
            Self::Keys { fingerprints, keyring } => {
                Ok(Some(Keyring::from_bytes(keyring.as_bytes())?.restricted_to(fingerprints)))
            }
            Self::InsecureNoSignature => Ok(None),
        }
    }
}

/// One remote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remote {
    /// Root of the tree: `https://…/`, `http://…/` or `file:///…/`, ending in `/`.
    #[serde(with = "url_text")]
    pub url: Url,
    /// How its catalogue is read.
    #[serde(default)]
    pub protocol: Protocol,
    /// What makes it believable.
    pub trust: Trust,
    /// Private certificate authorities, PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// Further servers with the same tree, asked when the first fails, and beside it for large files.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "url_texts")]
    pub mirrors: Vec<Url>,
    /// Proxy, client certificate and token.
    #[serde(default, skip_serializing_if = "Access::is_empty")]
    pub access: Access,
}

impl Remote {
    /// Checks that parts fit together. Plain http is for signed remotes only, where the signature
    /// protects what the transport does not; unsigned ones need https or a directory.
    pub fn new(url: &str, trust: Trust, ca: Option<String>) -> Result<Self> {
        let url = parse_url(url)?;
        if trust == Trust::InsecureNoSignature && url.scheme() == "http" {
            let reason = "plain http without signatures protects nothing; use https, or a key";
            return Err(Error::Url { url: url.into(), reason: reason.into() });
        }
        if let Some(pem) = &ca {
            http::check_ca(pem, "the certificate authority given")?;
        }
        Ok(Self {
            url,
            protocol: Protocol::Simplestreams,
            trust,
            ca,
            mirrors: Vec::new(),
            access: Access::default(),
        })
    }

    /// The same remote, reached so, and by way of these mirrors.
    ///
    /// # Errors
    /// When a file of secrets cannot be used, or a mirror is no web server, or has no TLS and no
    /// signatures.
    pub fn reached(mut self, access: Access, mirrors: &[String]) -> Result<Self> {
        access.check(&self.url)?;
        if access.server_certificate.is_some() && !mirrors.is_empty() {
            let reason =
                "one certificate is accepted for the remote itself; its mirrors need authorities (--ca)";
            return Err(Error::Url { url: self.url.into(), reason: reason.into() });
        }
        for text in mirrors {
            let mirror = Self::new(text, self.trust.clone(), None)?.url;
            if mirror.scheme() == "file" || self.url.scheme() == "file" {
                let reason = "mirrors are https:// or http:// servers of a remote that is one";
                return Err(Error::Url { url: mirror.into(), reason: reason.into() });
            }
            if mirror != self.url && !self.mirrors.contains(&mirror) {
                self.mirrors.push(mirror);
            }
        }
        self.access = access;
        Ok(self)
    }

    /// Refuses what does not go together with how it is read.
    pub(crate) fn check_protocol(&self) -> Result<()> {
        let wrong = |reason: &str| Err(Error::Url { url: self.url.to_string(), reason: reason.to_owned() });
        if self.protocol.has_signatures() {
            return Ok(());
        }
        if self.is_signed() {
            return wrong("nothing is signed there; a key proves nothing, so leave it out");
        }
        if self.url.scheme() == "file" || !self.mirrors.is_empty() {
            return wrong("this protocol has one server, and no mirrors or directories");
        }
        Ok(())
    }

    /// Whether its documents must be signed.
    pub fn is_signed(&self) -> bool {
        self.trust != Trust::InsecureNoSignature
    }

    /// Its tree at the remote itself, then at each mirror; files of each also come from the others.
    pub(crate) fn trees(&self, options: &HttpOptions) -> Result<Vec<Tree>> {
        let first = match open_tree(&self.url, self.ca.as_ref(), &self.access, options)? {
            Tree::Http { client, base, .. } => (client, base),
            directory @ Tree::Directory(_) => return Ok(vec![directory]),
        };
        let bare = first.0.with_credential(&[], None)?;
        let mirrors = self.mirrors.iter().map(|url| (bare.clone(), url.to_string()));
        let all: Vec<_> = std::iter::once(first).chain(mirrors).collect();
        let tree = |at: usize| {
            let mut others = all.clone();
            let (client, base) = others.remove(at);
            Tree::Http { client, base, mirrors: others }
        };
        Ok((0..all.len()).map(tree).collect())
    }
}

pub(crate) fn open_tree(
    url: &Url,
    ca: Option<&String>,
    access: &Access,
    options: &HttpOptions,
) -> Result<Tree> {
    if url.scheme() == "file" {
        let bad = |()| Error::Url { url: url.to_string(), reason: "not a directory here".into() };
        return Ok(Tree::Directory(url.to_file_path().map_err(bad)?));
    }
    let client = access.client(url, ca, options)?;
    Ok(Tree::Http { client, base: url.to_string(), mirrors: Vec::new() })
}

/// All remotes, as the file holds them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remotes {
    version: u32,
    /// Where names without a remote are looked up, after the local store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<RemoteName>,
    /// Remotes by name.
    #[serde(default)]
    pub remotes: BTreeMap<RemoteName, Remote>,
}

impl Remotes {
    /// Reads the file; none yet means no remotes.
    pub fn load(path: &Path) -> Result<Self> {
        match fs::read(path) {
            Ok(text) => {
                Self::parse(&text).map_err(|reason| Error::document(path.display().to_string(), reason))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Ok(Self { version: VERSION, ..Self::default() })
            }
            Err(error) => Err(Error::io(path)(error)),
        }
    }

    fn parse(text: &[u8]) -> Result<Self, String> {
        let remotes: Self = serde_json::from_slice(text).map_err(|e| e.to_string())?;
        if remotes.version != VERSION {
            return Err(format!("version {} is not known; a newer Millstream wrote it", remotes.version));
        }
        if let Some(name) = remotes.default.as_ref().filter(|name| !remotes.remotes.contains_key(name)) {
            return Err(format!("the default remote \"{name}\" is not among the remotes"));
        }
        for (name, remote) in &remotes.remotes {
            Remote::new(remote.url.as_str(), remote.trust.clone(), remote.ca.clone())
                .map_err(|e| format!("remote \"{name}\": {e}"))?;
        }
        Ok(remotes)
    }

    /// Changes the file under a lock: reads, lets `change` work, and replaces it.
    pub fn update<T>(path: &Path, change: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let _lock = lock_dir_of(path)?;
        let mut remotes = Self::load(path)?;
        let result = change(&mut remotes)?;
        let text = serde_json::to_vec_pretty(&remotes).map_err(|e| Error::document("remotes", e))?;
        atomic::write(path, &text)?;
        Ok(result)
    }

    /// The remote of this name, or what names there are.
    pub fn get(&self, name: &RemoteName) -> Result<&Remote> {
        self.remotes.get(name).ok_or_else(|| {
            let known: Vec<_> = self.remotes.keys().map(RemoteName::as_str).collect();
            let reason = if known.is_empty() {
                "there is none yet; type: millstream remote add NAME URL".to_owned()
            } else {
                format!("there is none of that name; known are {}", known.join(", "))
            };
            Error::remote(&name, reason)
        })
    }

    /// Adds a remote; the first one becomes the default.
    pub fn insert(&mut self, name: RemoteName, remote: Remote) -> Result<()> {
        self.expect_free(&name)?;
        self.default.get_or_insert_with(|| name.clone());
        self.remotes.insert(name, remote);
        Ok(())
    }

    /// Refuses a name that is taken.
    pub fn expect_free(&self, name: &RemoteName) -> Result<()> {
        if self.remotes.contains_key(name) {
            let reason = "it exists already; to replace it, type: millstream remote remove NAME";
            return Err(Error::remote(&name, reason));
        }
        Ok(())
    }

    /// Removes a remote; if it was the default, there is none afterwards.
    pub fn remove(&mut self, name: &RemoteName) -> Result<Remote> {
        self.get(name)?;
        if self.default.as_ref() == Some(name) {
            self.default = None;
        }
        self.remotes.remove(name).ok_or_else(|| Error::remote(&name, "there is none of that name"))
    }
}

/// Locks the directory of a file, made if missing, until what is returned is dropped or its
/// process dies.
pub(crate) fn lock_dir_of(path: &Path) -> Result<File> {
    let dir = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(dir).map_err(Error::io(dir))?;
    let lock = File::open(dir).map_err(Error::io(dir))?;
    lock.lock().map_err(Error::io(dir))?;
    Ok(lock)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain() {
        for good in ["images", "a", "my-server.2"] {
            assert!(good.parse::<RemoteName>().is_ok(), "{good}");
        }
        for bad in ["", "local", "a:b", "a/b", "..", "-x", "a b", "ä", &"x".repeat(64)] {
            assert!(bad.parse::<RemoteName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn unsigned_needs_more_than_plain_http() {
        let insecure = || Trust::InsecureNoSignature;
        assert!(Remote::new("http://h/", insecure(), None).is_err());
        assert!(Remote::new("https://h/", insecure(), None).is_ok());
        assert!(Remote::new("https://h/", insecure(), Some("no pem".into())).is_err());
    }

    #[test]
    fn file_round_trips_and_default_follows() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config/remotes.json");
        let name: RemoteName = "a".parse().unwrap();
        let remote = Remote::new("https://h/", Trust::InsecureNoSignature, None).unwrap();
        Remotes::update(&path, |remotes| remotes.insert(name.clone(), remote.clone())).unwrap();
        let again = Remotes::update(&path, |remotes| remotes.insert(name.clone(), remote.clone()));
        assert!(again.unwrap_err().to_string().contains("exists already"));
        let remotes = Remotes::load(&path).unwrap();
        assert_eq!((remotes.default.as_ref(), remotes.get(&name).unwrap()), (Some(&name), &remote));
        Remotes::update(&path, |remotes| remotes.remove(&name)).unwrap();
        assert_eq!(Remotes::load(&path).unwrap().default, None);
    }

    #[test]
    fn broken_files_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("remotes.json");
        for bad in ["", "{}", r#"{"version":9}"#, r#"{"version":1,"default":"x"}"#] {
            fs::write(&path, bad).unwrap();
            let error = Remotes::load(&path).unwrap_err().to_string();
            assert!(error.contains("remotes.json"), "{error}");
        }
    }
}
