use std::io::Read;
use std::time::SystemTime;

use sequoia_openpgp as openpgp;

use openpgp::cert::amalgamation::ValidAmalgamation as _;
use openpgp::cert::{Cert, CertParser};
use openpgp::parse::Parse;
use openpgp::parse::stream::{
    DetachedVerifierBuilder, GoodChecksum, MessageLayer, MessageStructure, VerificationHelper,
    VerifierBuilder,
};
use openpgp::serialize::Serialize;
use openpgp::types::RevocationStatus;
use openpgp::{KeyHandle, armor};

use super::{KeyFingerprint, SKEW, cleartext, policy};
use crate::{Error, Result};

/// Above this sequoia hands out data before its verdict; so nothing larger is verified whole.
const MAX_CLEARTEXT: usize = 25 << 20;

/// Who signed, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Certificates (primary fingerprints) with a good signature, each once.
    pub signers: Vec<KeyFingerprint>,
    /// The newest good signature's time.
    pub created: SystemTime,
}

/// Public keys to verify with.
#[derive(Clone, Default)]
pub struct Keyring {
    certs: Vec<Cert>,
}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.fingerprints()).finish()
    }
}

impl Keyring {
    pub(super) fn of(certs: Vec<Cert>) -> Self {
        Self { certs }
    }

    /// Reads one or more keys, armored or binary, as `gpg --export` and apt's keyrings hold them.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let bad = |e: openpgp::anyhow::Error| Error::Key(format!("not an OpenPGP keyring: {e}"));
        let certs: Vec<Cert> =
            CertParser::from_bytes(bytes).map_err(bad)?.collect::<Result<_, _>>().map_err(bad)?;
        if certs.is_empty() {
            return Err(Error::Key("the keyring holds no key".into()));
        }
        Ok(Self { certs })
    }

    /// Adds another keyring's keys.
    pub fn merge(&mut self, other: Self) {
        self.certs.extend(other.certs);
    }

    /// Fingerprints of all keys.
    pub fn fingerprints(&self) -> Vec<KeyFingerprint> {
        self.certs.iter().map(KeyFingerprint::of).collect()
    }

    /// The same keyring without keys that are not in `allowed`.
    #[must_use]
    pub fn restricted_to(mut self, allowed: &[KeyFingerprint]) -> Self {
        self.certs.retain(|cert| allowed.contains(&KeyFingerprint::of(cert)));
        self
    }

    /// The same keyring without these keys.
    #[must_use]
    pub fn without(mut self, keys: &[KeyFingerprint]) -> Self {
        self.certs.retain(|cert| !keys.contains(&KeyFingerprint::of(cert)));
        self
    }

    /// The keys, armored in one block.
    pub fn to_armored(&self) -> Result<String> {
        let bad = |e: &dyn std::fmt::Display| Error::Key(e.to_string());
        let mut writer = armor::Writer::new(Vec::new(), armor::Kind::PublicKey).map_err(|e| bad(&e))?;
        for cert in &self.certs {
            cert.serialize(&mut writer).map_err(|e| bad(&e))?;
        }
        String::from_utf8(writer.finalize().map_err(|e| bad(&e))?).map_err(|e| bad(&e))
    }

    /// Checks a signature kept apart from its data. One good signature by a key of this keyring is
    /// enough; further ones by unknown keys do not harm.
    pub fn verify_detached(
        &self,
        data: impl Read + Send + Sync,
        signature: &[u8],
        now: SystemTime,
    ) -> Result<Verified> {
        let policy = policy();
        let mut verifier = DetachedVerifierBuilder::from_bytes(signature)
            .map_err(refused)?
            .with_policy(&policy, now + SKEW, Helper::new(self, now))
            .map_err(refused)?;
        verifier.verify_reader(data).map_err(refused)?;
        verifier.into_helper().verdict()
    }

    /// Checks a cleartext-signed message and returns the text that was signed. Only that text may
    /// be parsed.
    pub fn verify_cleartext(&self, message: &[u8], now: SystemTime) -> Result<(Vec<u8>, Verified)> {
        if message.len() > MAX_CLEARTEXT {
            return Err(Error::Signature(format!("signed text of more than {MAX_CLEARTEXT} bytes")));
        }
        cleartext::check_shape(message)?;
        let policy = policy();
        let mut verifier = VerifierBuilder::from_bytes(message)
            .map_err(refused)?
            .with_policy(&policy, now + SKEW, Helper::new(self, now))
            .map_err(refused)?;
        let mut text = Vec::new();
        verifier.read_to_end(&mut text).map_err(|e| refused(e.into()))?;
        if text.last() != Some(&b'\n') {
            text.push(b'\n'); // The last line's end belongs to the framework, not to the text.
        }
        Ok((text, verifier.into_helper().verdict()?))
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the shape map_err wants")]
fn refused(error: openpgp::anyhow::Error) -> Error {
    let chain: Vec<_> = error.chain().map(ToString::to_string).collect();
    Error::Signature(chain.join(": "))
}

struct Helper<'a> {
    keyring: &'a Keyring,
    now: SystemTime,
    good: Vec<(KeyFingerprint, SystemTime)>,
}

impl<'a> Helper<'a> {
    fn new(keyring: &'a Keyring, now: SystemTime) -> Self {
        Self { keyring, now, good: Vec::new() }
    }

    /// Sequoia asks whether the key lived when the signature says it was made; a thief of an old
    /// key can say any time, so it must also live now, and not be revoked for whatever reason.
    fn alive_now(&self, cert: &Cert, handle: &KeyHandle) -> openpgp::Result<()> {
        let policy = policy();
        let cert = cert.with_policy(&policy, self.now)?;
        cert.alive()?;
        let mut keys = cert.keys().key_handle(handle.clone());
        let key = keys.next().ok_or_else(|| openpgp::anyhow::anyhow!("the key is no longer valid"))?;
        let revoked = [cert.revocation_status(), key.revocation_status()];
        if revoked.iter().any(|status| matches!(status, RevocationStatus::Revoked(_))) {
            return Err(openpgp::anyhow::anyhow!("the key is revoked"));
        }
        key.alive()
    }

    fn verdict(self) -> Result<Verified> {
        let now = self.now;
        let created = self.good.iter().map(|(_, created)| *created).max();
        let created = created.ok_or_else(|| Error::Signature("nothing is signed".into()))?;
        if created > now + SKEW {
            return Err(Error::Signature("made in the future; check this machine's clock".into()));
        }
        let mut signers: Vec<_> = self.good.into_iter().map(|(signer, _)| signer).collect();
        signers.sort();
        signers.dedup();
        Ok(Verified { signers, created })
    }
}

impl VerificationHelper for Helper<'_> {
    fn get_certs(&mut self, ids: &[KeyHandle]) -> openpgp::Result<Vec<Cert>> {
        let wanted =
            |cert: &&Cert| cert.keys().any(|key| ids.iter().any(|id| id.aliases(key.key().key_handle())));
        Ok(self.keyring.certs.iter().filter(wanted).cloned().collect())
    }

    fn check(&mut self, structure: MessageStructure) -> openpgp::Result<()> {
        let mut reasons = Vec::new();
        for layer in structure {
            let MessageLayer::SignatureGroup { results } = layer else {
                return Err(openpgp::anyhow::anyhow!("it is encrypted or compressed"));
            };
            for result in results {
                match result {
                    Ok(GoodChecksum { sig, ka, .. }) => {
                        if let Err(error) = self.alive_now(ka.cert(), &ka.key().key_handle()) {
                            reasons.push(error.to_string());
                            continue;
                        }
                        let created = sig.signature_creation_time().unwrap_or(SystemTime::UNIX_EPOCH);
                        self.good.push((KeyFingerprint::of(ka.cert()), created));
                    }
                    Err(error) => reasons.push(error.to_string()),
                }
            }
        }
        if !self.good.is_empty() {
            return Ok(());
        }
        if reasons.is_empty() {
            reasons.push("there is none".into());
        }
        Err(openpgp::anyhow::anyhow!("no good signature: {}", reasons.join("; ")))
    }
}
