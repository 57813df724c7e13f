use std::fmt;
use std::io::{self, Read};
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use sequoia_openpgp as openpgp;

use openpgp::armor;
use openpgp::cert::{Cert, CertBuilder, CipherSuite};
use openpgp::crypto::KeyPair;
use openpgp::packet::signature::SignatureBuilder;
use openpgp::parse::Parse;
use openpgp::serialize::Serialize as _;
use openpgp::serialize::stream::{Armorer, Message, Signer};
use openpgp::types::{HashAlgorithm, KeyFlags, SignatureType};
use serde::{Deserialize, Serialize};

use super::{Keyring, policy};
use crate::{Error, Result};

/// A full OpenPGP fingerprint: 40 (version 4) or 64 (version 6) upper-case hex digits. Short key
/// ids are not accepted anywhere: they can be forged.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyFingerprint(String);

impl KeyFingerprint {
    pub(super) fn of(cert: &Cert) -> Self {
        Self(cert.fingerprint().to_hex())
    }

    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for KeyFingerprint {
    type Err = Error;

    /// Reads hex digits of either case; spaces between groups are passed over.
    fn from_str(text: &str) -> Result<Self> {
        let digits: String = text.chars().filter(|c| *c != ' ').collect::<String>().to_uppercase();
        let digits = digits.strip_prefix("0X").unwrap_or(&digits);
        if !matches!(digits.len(), 40 | 64) || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            let reason = "expected all 40 (or 64) hex digits; short key ids can be forged";
            return Err(Error::name("key fingerprint", text, reason));
        }
        Ok(Self(digits.to_owned()))
    }
}

impl TryFrom<String> for KeyFingerprint {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<KeyFingerprint> for String {
    fn from(fingerprint: KeyFingerprint) -> Self {
        fingerprint.0
    }
}

/// Kinds of signing key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Algorithm {
    /// Small, fast, and constant-time in the implementation used here.
    #[default]
    Ed25519,
    /// For verifiers that do not know Ed25519.
    Rsa4096,
}

/// A key that can sign. Its secret is never shown by `Debug`.
///
/// While one key takes over from another it signs as both, see [`SigningKey::with`].
#[derive(Clone)]
pub struct SigningKey {
    cert: Cert,
    /// Keys that sign as well.
    others: Vec<Cert>,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SigningKey").field(&self.fingerprints()).finish()
    }
}

impl SigningKey {
    /// Makes a key for `user_id`. Without `validity` it does not expire: documents do, and they
    /// are signed anew every few days.
    pub fn generate(
        user_id: &str,
        algorithm: Algorithm,
        now: SystemTime,
        validity: Option<Duration>,
    ) -> Result<Self> {
        let suite = match algorithm {
            Algorithm::Ed25519 => CipherSuite::Cv25519,
            Algorithm::Rsa4096 => CipherSuite::RSA4k,
        };
        let (cert, _revocation) = CertBuilder::new()
            .add_userid(user_id)
            .set_cipher_suite(suite)
            .set_primary_key_flags(KeyFlags::empty().set_certification().set_signing())
            .set_creation_time(now)
            .set_validity_period(validity)
            .generate()
            .map_err(|e| Error::Key(format!("cannot make a key: {e}")))?;
        Ok(Self { cert, others: Vec::new() })
    }

    /// Reads a secret key, armored or binary, not protected by a passphrase.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let cert = Cert::from_bytes(bytes).map_err(|e| Error::Key(format!("not an OpenPGP key: {e}")))?;
        if !cert.is_tsk() {
            return Err(Error::Key("this is a public key; signing needs the secret key".into()));
        }
        Ok(Self { cert, others: Vec::new() })
    }

    /// The same key, which from now on makes a second signature by `other` beside each of its own.
    /// A verifier that knows either accepts them.
    #[must_use]
    pub fn with(mut self, other: Self) -> Self {
        for cert in std::iter::once(other.cert).chain(other.others) {
            if self.certs().all(|known| known.fingerprint() != cert.fingerprint()) {
                self.others.push(cert);
            }
        }
        self
    }

    fn certs(&self) -> impl Iterator<Item = &Cert> {
        std::iter::once(&self.cert).chain(&self.others)
    }

    /// The secret key, armored. Keep it in a file of mode 0600.
    pub fn to_armored_secret(&self) -> Result<String> {
        let mut out = Vec::new();
        self.cert.as_tsk().armored().serialize(&mut out).map_err(|e| Error::Key(e.to_string()))?;
        text(out)
    }

    /// The public key, armored.
    pub fn to_armored_public(&self) -> Result<String> {
        let mut out = Vec::new();
        self.cert.armored().serialize(&mut out).map_err(|e| Error::Key(e.to_string()))?;
        text(out)
    }

    /// A keyring that holds just this key, and those that sign with it.
    pub fn keyring(&self) -> Keyring {
        Keyring::of(self.certs().map(|cert| cert.clone().strip_secret_key_material()).collect())
    }

    /// Fingerprints of all keys that sign, its own first.
    pub fn fingerprints(&self) -> Vec<KeyFingerprint> {
        self.certs().map(KeyFingerprint::of).collect()
    }

    /// The key's fingerprint.
    pub fn fingerprint(&self) -> KeyFingerprint {
        KeyFingerprint::of(&self.cert)
    }

    /// The first user id.
    pub fn user_id(&self) -> String {
        let id = self.cert.userids().next();
        id.map(|id| String::from_utf8_lossy(id.userid().value()).into_owned()).unwrap_or_default()
    }

    /// When the key was made.
    pub fn created(&self) -> SystemTime {
        self.cert.primary_key().key().creation_time()
    }

    /// An armored signature kept apart from what it signs.
    pub fn sign_detached(&self, data: impl Read, now: SystemTime) -> Result<String> {
        self.sign(SignatureType::Binary, data, now)
    }

    /// Text with its signature around it, as `gpg --clearsign` makes it. The text ends in exactly
    /// one newline, which verifiers give back. Blanks at the ends of lines do not come back, so a
    /// text with any is an error.
    pub fn sign_cleartext(&self, document: &str, now: SystemTime) -> Result<String> {
        // The last line's end belongs to the framework (RFC 9580, section 7.1), not to the text.
        let Some(body) = document.strip_suffix('\n').filter(|body| !body.ends_with('\n')) else {
            return Err(Error::Key("a text to sign must end in exactly one newline".into()));
        };
        if body.split('\n').any(|line| line.ends_with([' ', '\t', '\r'])) {
            return Err(Error::Key("a text to sign must have no blanks at the end of a line".into()));
        }
        // Not by the library's own framing, which takes several times as long over a line of a megabyte.
        let signature = self.sign(SignatureType::Text, body.as_bytes(), now)?;
        let mut out = String::with_capacity(document.len() + signature.len() + 128);
        out.push_str("-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n");
        for line in document.split_inclusive('\n') {
            out.push_str(if line.starts_with('-') { "- " } else { "" });
            out.push_str(line);
        }
        out.push_str(&signature);
        Ok(out)
    }

    /// A signature by all keys, over one reading of what is signed. With SHA-256, which processors
    /// compute several times faster than the SHA-512 that would be the default.
    fn sign(&self, kind: SignatureType, mut data: impl Read, now: SystemTime) -> Result<String> {
        let mut out = Vec::new();
        let signing = |e: openpgp::anyhow::Error| Error::Key(format!("signing failed: {e}"));
        let message = Message::new(&mut out);
        let message = Armorer::new(message).kind(armor::Kind::Signature).build().map_err(signing)?;
        let signer = Signer::with_template(message, key_pair(&self.cert, now)?, SignatureBuilder::new(kind));
        let mut signer =
            signer.and_then(|signer| signer.hash_algo(HashAlgorithm::SHA256)).map_err(signing)?;
        for cert in &self.others {
            signer = signer.add_signer(key_pair(cert, now)?).map_err(signing)?;
        }
        let mut signer = signer.detached().creation_time(now).build().map_err(signing)?;
        io::copy(&mut data, &mut signer).map_err(Error::io("data to sign"))?;
        signer.finalize().map_err(signing)?;
        text(out)
    }
}

fn key_pair(cert: &Cert, now: SystemTime) -> Result<KeyPair> {
    let policy = policy();
    let keys = cert.keys().with_policy(&policy, now).supported().alive().revoked(false);
    let key = keys.for_signing().secret().next().ok_or_else(|| {
        let fingerprint = KeyFingerprint::of(cert);
        Error::Key(format!("{fingerprint} cannot sign now: expired, revoked or not a signing key"))
    })?;
    key.key().clone().into_keypair().map_err(|e| Error::Key(format!("the secret is locked: {e}")))
}

fn text(bytes: Vec<u8>) -> Result<String> {
    String::from_utf8(bytes).map_err(|e| Error::Key(e.to_string()))
}
