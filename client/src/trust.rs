//! What has been seen of a remote: the memory that makes rollback and freeze visible.
//!
//! One small JSON file a remote, written only after everything it speaks for was checked. It never
//! goes back: of two processes the newer sight wins. Keys that are no longer pinned take their
//! sights with them, so that changing a remote's key also undoes a date far in the future.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use chrono::{DateTime, SecondsFormat, Utc};
use millstream_image::openpgp::{KeyFingerprint, SKEW};
use millstream_image::simplestreams::Freshness;
use millstream_image::{Sha256Digest, atomic};
use serde::{Deserialize, Serialize};

use crate::remotes::{RemoteName, lock_dir_of};
use crate::{Error, Result};

const VERSION: u32 = 1;

/// A signed document as it was seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sight {
    /// Who signed it.
    pub signers: Vec<KeyFingerprint>,
    /// When it was written; of documents that do not say so, when it was signed.
    pub created: DateTime<Utc>,
    /// Its generation, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// SHA-256 of the signed text.
    pub sha256: Sha256Digest,
}

impl Sight {
    /// Compares with what was seen before; the error says why `self` must be refused.
    pub(crate) fn follows(&self, before: &Self) -> Result<(), String> {
        if self.sha256 == before.sha256 {
            return Ok(());
        }
        // A key speaks that took over: what the older key said alone, maybe in the hands of a thief, is
        // not held against it.
        if self.signers.iter().any(|signer| !before.signers.contains(signer)) {
            return Ok(());
        }
        match (before.generation, self.generation) {
            (Some(seen), Some(now)) if now < seen => {
                return Err(format!("generation {now}, but {seen} was seen before"));
            }
            (Some(seen), Some(now)) if now == seen => {
                return Err(format!("generation {now} was seen before with other contents"));
            }
            (Some(_), None) => return Err("it has no generation, but earlier ones had".into()),
            _ => {}
        }
        let order = if self.generation.is_some() && self.generation != before.generation {
            self.created >= before.created
        } else {
            self.created > before.created
        };
        if order {
            return Ok(());
        }
        Err(format!("written {}, but one of {} was seen before", show(self.created), show(before.created)))
    }
}

/// Refuses documents past their expiry, or from a future that says one of the clocks is wrong.
pub(crate) fn check_fresh(freshness: &Freshness, now: DateTime<Utc>) -> Result<(), String> {
    if freshness.expires < now {
        return Err(format!("expired {}, now is {}", show(freshness.expires), show(now)));
    }
    check_clock(freshness.created, now)
}

/// Refuses times that have not come yet.
pub(crate) fn check_clock(created: DateTime<Utc>, now: DateTime<Utc>) -> Result<(), String> {
    if created > now + SKEW {
        let (created, now) = (show(created), show(now));
        return Err(format!("written {created}, but this machine's clock says {now}; check the clock"));
    }
    Ok(())
}

fn show(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// Sights of one remote's documents, by path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sights {
    version: u32,
    documents: BTreeMap<String, Sight>,
}

impl Sights {
    fn none() -> Self {
        Self { version: VERSION, documents: BTreeMap::new() }
    }

    /// What was last seen at this path.
    pub(crate) fn get(&self, path: &str) -> Option<&Sight> {
        self.documents.get(path)
    }
}

/// The file that remembers one remote.
#[derive(Clone, Debug)]
pub(crate) struct TrustFile(PathBuf);

impl TrustFile {
    pub(crate) fn new(dir: &Path, remote: &RemoteName) -> Self {
        Self(dir.join(format!("{remote}.json")))
    }

    /// What has been seen, signed by keys that are still pinned. A damaged file is an error:
    /// forgetting silently would open the door again.
    pub(crate) fn load(&self, pinned: &[KeyFingerprint]) -> Result<Sights> {
        let text = match fs::read(&self.0) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Sights::none()),
            Err(error) => return Err(Error::io(&self.0)(error)),
        };
        let bad = |reason: String| {
            let hint = "; if this is no attack, remove the remote and add it again";
            Error::document(self.0.display().to_string(), reason + hint)
        };
        let mut sights: Sights = serde_json::from_slice(&text).map_err(|e| bad(e.to_string()))?;
        if sights.version != VERSION {
            return Err(bad(format!("version {} is not known", sights.version)));
        }
        sights.documents.retain(|_, sight| sight.signers.iter().any(|signer| pinned.contains(signer)));
        Ok(sights)
    }

    /// Remembers documents that passed every check. What another process has meanwhile seen newer
    /// stays.
    pub(crate) fn record(&self, pinned: &[KeyFingerprint], seen: BTreeMap<String, Sight>) -> Result<()> {
        let _lock = lock_dir_of(&self.0)?;
        let before = self.load(pinned)?;
        let mut after = before.clone();
        for (path, sight) in seen {
            if before.get(&path).is_none_or(|before| sight.follows(before).is_ok()) {
                after.documents.insert(path, sight);
            }
        }
        if after == before && self.0.exists() {
            return Ok(());
        }
        let text = serde_json::to_vec_pretty(&after).map_err(|e| Error::document("trust state", e))?;
        Ok(atomic::write(&self.0, &text)?)
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Forgets the remote.
    pub(crate) fn remove(&self) -> Result<()> {
        match fs::remove_file(&self.0) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io(&self.0)(error)),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    fn key(digit: &str) -> KeyFingerprint {
        digit.repeat(40).parse().unwrap()
    }

    fn sight(generation: Option<u64>, minute: i64, text: &str) -> Sight {
        let created = DateTime::from_timestamp(1_700_000_000 + minute * 60, 0).unwrap();
        Sight { signers: vec![key("A")], created, generation, sha256: Sha256Digest::of(text.as_bytes()) }
    }

    #[test]
    fn time_and_generation_never_go_back() {
        let before = sight(Some(5), 5, "five");
        for good in [sight(Some(5), 5, "five"), sight(Some(6), 6, "six"), sight(Some(6), 5, "six")] {
            assert_eq!(good.follows(&before), Ok(()));
        }
        for bad in [
            sight(Some(4), 4, "four"),
            sight(Some(4), 9, "four"),
            sight(Some(5), 5, "other"),
            sight(Some(5), 9, "other"),
            sight(Some(6), 4, "six"),
            sight(None, 9, "unnumbered"),
        ] {
            assert!(bad.follows(&before).is_err(), "{bad:?}");
        }
        let foreign = sight(None, 5, "five");
        assert!(sight(None, 6, "six").follows(&foreign).is_ok());
        assert!(sight(None, 5, "other").follows(&foreign).is_err());
        assert!(sight(None, 4, "four").follows(&foreign).is_err());
    }

    #[test]
    fn another_signer_starts_anew_and_one_less_does_not() {
        let both = |sight: Sight| Sight { signers: vec![key("A"), key("B")], ..sight };
        let absurd = sight(Some(u64::MAX), 9, "thief");
        assert_eq!(both(sight(Some(6), 6, "six")).follows(&absurd), Ok(()));
        assert!(sight(Some(6), 6, "six").follows(&both(absurd.clone())).is_err());
        assert!(both(sight(Some(6), 6, "six")).follows(&both(absurd)).is_err());
    }

    #[test]
    fn record_keeps_the_newest_and_forgets_with_the_key() {
        let dir = tempfile::tempdir().unwrap();
        let file = TrustFile::new(&dir.path().join("trust"), &"r".parse().unwrap());
        let pinned = [key("A")];
        let at = |sight: Sight| BTreeMap::from([("index".to_owned(), sight)]);
        file.record(&pinned, at(sight(Some(7), 7, "seven"))).unwrap();
        file.record(&pinned, at(sight(Some(6), 6, "six"))).unwrap();
        assert_eq!(file.load(&pinned).unwrap().get("index").unwrap().generation, Some(7));
        assert!(file.load(&[key("B")]).unwrap().get("index").is_none(), "a new key starts anew");
        fs::write(&file.0, "{").unwrap();
        assert!(file.load(&pinned).is_err(), "damage is not forgetting");
        file.remove().unwrap();
        assert!(file.load(&pinned).unwrap().get("index").is_none());
    }

    #[test]
    fn clocks_are_compared() {
        let now = DateTime::from_timestamp(1_700_000_000, 0).unwrap();
        let fresh = |created: i64, expires: i64| Freshness {
            path: String::new(),
            created: now + TimeDelta::minutes(created),
            expires: now + TimeDelta::minutes(expires),
            generation: 1,
            keys: Vec::new(),
        };
        assert!(check_fresh(&fresh(-1, 1), now).is_ok());
        assert!(check_fresh(&fresh(4, 9), now).is_ok(), "clocks differ a little");
        assert!(check_fresh(&fresh(-9, -1), now).is_err());
        assert!(check_fresh(&fresh(60, 90), now).is_err());
    }
}
