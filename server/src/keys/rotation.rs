//! Keys that take over from others.
//!
//! The old key names its successor, and from the next `stream sign` on both sign everything: clients
//! learn the new one from documents that the old one signed. When enough time has passed the old key is
//! revoked, and the next `stream sign` leaves it out; clients then forget it.

use std::time::SystemTime;

use millstream_image::atomic;
use millstream_image::openpgp::{Algorithm, KeyFingerprint, SigningKey};

use super::{KeyInfo, KeyStore, check_name};
use crate::{Error, Result};

/// Rotations of one key that can follow each other.
const MOST: usize = 1000;

impl KeyStore {
    /// The name of the key that takes over from `name`.
    pub(super) fn next(&self, name: &str) -> Option<String> {
        let text = std::fs::read_to_string(self.dir.join(format!("{name}.next"))).ok()?;
        Some(text.trim().to_owned()).filter(|next| check_name(next).is_ok())
    }

    pub(super) fn is_revoked(&self, name: &str) -> bool {
        self.dir.join(format!("{name}.revoked")).exists()
    }

    /// Makes the key `name` hand over to the key `to`, which is made when there is none of that name;
    /// without it the new key's name is `name` with a number. Again, it finds what was done.
    ///
    /// # Errors
    /// [`Error::Key`] when there is no key `name`, or it hands over to another one already.
    pub fn rotate(&self, name: &str, to: Option<&str>, user_id: &str, now: SystemTime) -> Result<KeyInfo> {
        let old = self.load(name)?;
        let before = self.next(name);
        if let (Some(before), Some(to)) = (&before, to)
            && before != to
        {
            return Err(Error::key(name, format!("{before} takes over from it already; rotate that one")));
        }
        let to = match before.as_deref().or(to) {
            Some(to) => to.to_owned(),
            None => self.numbered(name)?,
        };
        check_name(&to)?;
        let info = if self.secret_path(&to).exists() {
            self.info(&to, &self.load(&to)?)
        } else {
            self.generate(&to, user_id, Algorithm::default(), now)?
        };
        if info.fingerprint == old.fingerprint() {
            return Err(Error::key(name, "a key cannot take over from itself; name another with --to"));
        }
        let path = self.dir.join(format!("{name}.next"));
        atomic::write(&path, to.as_bytes()).map_err(Error::image(&path))?;
        Ok(info)
    }

    fn numbered(&self, name: &str) -> Result<String> {
        let stem = name.rsplit_once('-').filter(|(_, end)| end.parse::<u32>().is_ok());
        let stem = stem.map_or(name, |(stem, _)| stem);
        let mut names = (2..MOST).map(|number| format!("{stem}-{number}"));
        let free = names.find(|name| !self.secret_path(name).exists());
        free.ok_or_else(|| Error::key(name, "no name is left for its successor; give one with --to"))
    }

    /// Makes the key sign no more: the next `stream sign` leaves it out. Its files stay.
    ///
    /// # Errors
    /// [`Error::Key`] when no other key takes over from it, as then nobody could sign.
    pub fn revoke(&self, name: &str) -> Result<KeyInfo> {
        let key = self.load(name)?;
        if self.next(name).is_none() {
            let reason = "no other key takes over from it; first type: millstream key rotate";
            return Err(Error::key(name, reason));
        }
        let path = self.dir.join(format!("{name}.revoked"));
        atomic::write(&path, b"").map_err(Error::image(&path))?;
        Ok(self.info(name, &key))
    }

    /// The keys with all these fingerprints, as one that signs with each.
    ///
    /// # Errors
    /// [`Error::Key`] when one is not here.
    pub fn find_all(&self, fingerprints: &[KeyFingerprint]) -> Result<SigningKey> {
        let keys = fingerprints.iter().map(|fingerprint| self.find(fingerprint));
        together(keys.collect::<Result<Vec<_>>>()?, fingerprints)
    }

    /// Who is to sign a stream that these keys sign now: they and their successors, without those that
    /// are revoked. Two answers, to be used one after the other, where no key is in both: clients learn
    /// the new one from what the old one signs.
    ///
    /// # Errors
    /// [`Error::Key`] when a key is not here.
    pub fn successors(&self, fingerprints: &[KeyFingerprint]) -> Result<Vec<SigningKey>> {
        let mut named = Vec::new();
        for fingerprint in fingerprints {
            named.push(self.find_named(fingerprint)?);
        }
        let mut at = 0;
        while at < named.len() {
            if let Some(next) = self.next(&named[at].0)
                && named.iter().all(|(name, _)| *name != next)
            {
                let key = self.load(&next)?;
                named.push((next, key));
            }
            at += 1;
        }
        let (all, lasting): (Vec<_>, Vec<_>) = (
            named.iter().map(|(_, key)| key.clone()).collect(),
            named.iter().filter(|(name, _)| !self.is_revoked(name)).map(|(_, key)| key.clone()).collect(),
        );
        let overlap = lasting.iter().any(|key| fingerprints.contains(&key.fingerprint()));
        let last = together(lasting, fingerprints)?;
        if overlap { Ok(vec![last]) } else { Ok(vec![together(all, fingerprints)?, last]) }
    }
}

fn together(keys: Vec<SigningKey>, wanted: &[KeyFingerprint]) -> Result<SigningKey> {
    let name = wanted.first().map_or("", KeyFingerprint::as_str);
    let joined = keys.into_iter().reduce(SigningKey::with);
    joined.ok_or_else(|| Error::key(name, "there is no key left to sign with"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn successors_sign_with_the_old_key_until_it_is_revoked() {
        let dir = tempfile::tempdir().unwrap();
        let store = KeyStore::new(dir.path());
        let now = SystemTime::now();
        let old = store.generate("a", "A", Algorithm::Ed25519, now).unwrap().fingerprint;
        let prints = |keys: &[KeyFingerprint]| -> Vec<_> {
            store.successors(keys).unwrap().iter().map(SigningKey::fingerprints).collect()
        };
        let now_signing = [old.clone()];
        assert_eq!(prints(&now_signing), [vec![old.clone()]]);
        assert!(store.revoke("a").unwrap_err().to_string().contains("key rotate"));
        let new = store.rotate("a", None, "A", now).unwrap();
        assert_eq!(new.name, "a-2");
        assert_eq!(store.rotate("a", None, "A", now).unwrap(), new, "once");
        assert!(store.rotate("a", Some("b"), "A", now).is_err());
        let both = vec![old.clone(), new.fingerprint.clone()];
        assert_eq!(prints(&now_signing), std::slice::from_ref(&both));
        assert!(store.revoke("a").unwrap().revoked);
        let alone = vec![new.fingerprint.clone()];
        assert_eq!(prints(&both), std::slice::from_ref(&alone));
        assert_eq!(prints(&now_signing), [both, alone.clone()], "never without a step in between");
        assert_eq!(store.rotate("a-2", None, "A", now).unwrap().name, "a-3");
        assert_eq!(store.find_all(&alone).unwrap().fingerprints(), alone);
    }

    #[test]
    fn imported_keys_must_be_able_to_sign() {
        let dir = tempfile::tempdir().unwrap();
        let store = KeyStore::new(dir.path().join("keys"));
        let now = SystemTime::now();
        let key = SigningKey::generate("A", Algorithm::Ed25519, now, None).unwrap();
        let secret = key.to_armored_secret().unwrap();
        assert_eq!(store.import("a", secret.as_bytes(), now).unwrap().fingerprint, key.fingerprint());
        assert!(
            store.import("a", secret.as_bytes(), now).unwrap_err().to_string().contains("never replaced")
        );
        let public = key.to_armored_public().unwrap();
        assert!(store.import("b", public.as_bytes(), now).unwrap_err().to_string().contains("secret"));
        let past = now - std::time::Duration::from_hours(2400);
        let gone = Some(std::time::Duration::from_hours(24));
        let expired = SigningKey::generate("A", Algorithm::Ed25519, past, gone).unwrap();
        let expired = expired.to_armored_secret().unwrap();
        assert!(store.import("b", expired.as_bytes(), now).unwrap_err().to_string().contains("cannot sign"));
        assert!(store.import("b", b"junk", now).is_err());
        assert!(!store.secret_path("b").exists());
    }
}
