//! Signing apart from adding: documents renewed in time, and keys that take over from others.

use std::fs::{self, File};
use std::path::Path;
use std::time::SystemTime;

use chrono::{DateTime, Utc};
use millstream_image::atomic;
use millstream_image::openpgp::{KeyFingerprint, Keyring};

use super::catalogue::Catalogue;
use super::layout::{KEY, SIGNED};
use super::staging::Claim;
use super::{Signing, Stream};
use crate::{Error, Result};

impl Stream {
    /// Publishes the same images again: fresh signatures, a new expiry. Returns when they expire.
    ///
    /// Where `signing` has other keys than the stream, they are its keys from now on: images get the
    /// signatures that are missing, and documents name the keys. One of the stream's keys must be among
    /// them, and should stay until clients have learned the others.
    pub fn sign(&self, signing: &Signing<'_>) -> Result<DateTime<Utc>> {
        let (_lock, mut catalogue) = self.write_as(signing, |stream| stream.check_keys_overlap(signing))?;
        catalogue.renew_all()?;
        if self.keys()? != signing.key.fingerprints() {
            // Whatever is cut off here: what was signed before stays so.
            self.sign_images(&catalogue, signing)?;
            self.write_key(signing)?;
        }
        let freshness = self.next(&catalogue, signing)?;
        self.publish(&mut catalogue, &freshness, signing)?;
        Ok(freshness.expires)
    }

    /// Whether documents should be signed anew at `now`: half of their time is over. Those of a stream
    /// that nothing changes so never expire when this is asked now and then.
    pub fn is_due(&self, now: SystemTime) -> Result<bool> {
        let catalogue = Catalogue::load(self.root(), &self.keyring()?, now)?;
        let now = DateTime::<Utc>::from(now);
        Ok(catalogue.freshness.is_none_or(|fresh| (fresh.expires - now) * 2 < fresh.expires - fresh.created))
    }

    /// Fingerprints of the keys that sign the stream; more than one while one takes over.
    pub fn keys(&self) -> Result<Vec<KeyFingerprint>> {
        Ok(self.keyring()?.fingerprints())
    }

    /// Writes the public keys.
    pub(super) fn write_key(&self, signing: &Signing<'_>) -> Result<()> {
        let path = self.root().join(KEY);
        let public = signing.key.keyring().to_armored().map_err(Error::image(&path))?;
        atomic::write(&path, public.as_bytes()).map_err(Error::image(&path))
    }

    fn check_keys_overlap(&self, signing: &Signing<'_>) -> Result<()> {
        let ours = self.keys()?;
        if signing.key.fingerprints().iter().any(|key| ours.contains(key)) {
            return Ok(());
        }
        self.check_key(signing.key)
    }

    /// Gives every listed image the signatures that `signing` makes, where they are missing.
    fn sign_images(&self, catalogue: &Catalogue, signing: &Signing<'_>) -> Result<()> {
        let mut known = self.keyring()?;
        known.merge(signing.key.keyring());
        let work = Claim::new(self.root())?;
        for (product, serial, ..) in catalogue.images() {
            let dir = self.root().join(product.image_path(serial));
            // A mirrored image may have only some of them.
            for path in SIGNED.map(|name| dir.join(name)).iter().filter(|path| path.exists()) {
                sign_file(path, &known, signing, work.path())?;
            }
        }
        Ok(())
    }
}

/// Signs a file anew unless it has all signatures. Only what a key of ours signed before is signed, so
/// that no damage gets a signature. Written in `work`, so that nothing else is ever in an image's
/// directory.
fn sign_file(path: &Path, known: &Keyring, signing: &Signing<'_>, work: &Path) -> Result<()> {
    let beside = path.with_added_extension("asc");
    let open = || File::open(path).map_err(Error::io(path));
    let signature = fs::read(&beside).map_err(Error::io(&beside))?;
    let verified = known.verify_detached(open()?, &signature, signing.now).map_err(Error::image(path))?;
    if signing.key.fingerprints().iter().all(|key| verified.signers.contains(key)) {
        return Ok(());
    }
    let signature = signing.key.sign_detached(open()?, signing.now).map_err(Error::image(path))?;
    let new = work.join("signature");
    atomic::write(&new, signature.as_bytes()).map_err(Error::image(&beside))?;
    atomic::rename(&new, &beside).map_err(Error::image(&beside))
}
