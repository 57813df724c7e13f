//! Whom a download is believed, and how far.

use std::fs::File;
use std::net::IpAddr;
use std::path::Path;
use std::time::SystemTime;

use millstream_image::openpgp::Keyring;

use crate::apt::mirror;
use crate::apt::sources::HostSources;
use crate::recipe::Resolved;
use crate::{Error, Result, minisign};

/// What a recipe says about trust.
pub(super) struct Trust {
    keyring: Option<Keyring>,
    minisign: minisign::Keys,
    skip: bool,
}

impl Trust {
    /// The recipe's keys: armored, fingerprints of keys known here, or minisign's.
    pub(super) fn of(resolved: &Resolved, host: &HostSources) -> Result<Self> {
        let source = &resolved.definition.source;
        if source.skip_verification {
            return Ok(Self { keyring: None, minisign: minisign::Keys::default(), skip: true });
        }
        let keyring = if source.keys.iter().all(|key| minisign::is_key(key)) {
            None
        } else {
            Some(mirror::recipe_keys(source, &mirror::known_keys(resolved, host)?.0)?)
        };
        Ok(Self { keyring, minisign: minisign::Keys::of(&source.keys)?, skip: false })
    }

    /// Whether the recipe asks for no check at all.
    pub(super) fn is_skipped(&self) -> bool {
        self.skip
    }

    /// Whether there is a key to check signatures with.
    pub(super) fn has_keys(&self) -> bool {
        self.keyring.is_some() || self.has_minisign_keys()
    }

    /// Whether there is one for signatures by minisign.
    pub(super) fn has_minisign_keys(&self) -> bool {
        !self.minisign.is_empty()
    }

    /// The keys as a file, when there are any.
    pub(super) fn armored(&self) -> Result<Option<String>> {
        self.keyring.as_ref().map(|keys| Ok(keys.to_armored()?)).transpose()
    }

    /// Fails when `url` could be changed on its way and nothing would show it: `signed` says that a
    /// signature is going to be checked.
    pub(super) fn check_way(&self, url: &str, signed: bool) -> Result<()> {
        if self.skip || is_private(url) || (signed && self.has_keys()) {
            return Ok(());
        }
        let hint = if signed {
            "put the distribution's public key into source.keys, or use https"
        } else {
            "it is not signed, so use https"
        };
        Err(Error::Refused(format!(
            "{url}: plain http shows nobody who changed it on the way; {hint} \
             (source.skip_verification: true takes it as it is)"
        )))
    }

    /// Checks a signature by minisign. Where the recipe has keys of OpenPGP alone, it is as good as
    /// none, so the way must be a private one.
    pub(super) fn minisign(&self, what: &str, data: &[u8], signature: &[u8]) -> Result<()> {
        if self.has_minisign_keys() {
            return self.minisign.verify(what, data, signature);
        }
        self.check_way(what, false).map_err(|_| {
            Error::Refused(format!(
                "{what} is a signature by minisign, and none of the keys in source.keys is one of minisign; \
                 put it there as the distribution publishes it (RW…), or use https"
            ))
        })
    }

    /// Checks a signature over a file.
    pub(super) fn detached(&self, what: &str, file: &Path, signature: &[u8]) -> Result<()> {
        let file = File::open(file).map_err(Error::io(file))?;
        let checked = self.keys().verify_detached(file, signature, SystemTime::now());
        checked.map(|_| ()).map_err(|error| untrusted(what, &error))
    }

    /// Checks a signature over bytes.
    pub(super) fn detached_bytes(&self, what: &str, data: &[u8], signature: &[u8]) -> Result<()> {
        let checked = self.keys().verify_detached(data, signature, SystemTime::now());
        checked.map(|_| ()).map_err(|error| untrusted(what, &error))
    }

    /// The text of a cleartext-signed message.
    pub(super) fn cleartext(&self, what: &str, message: &[u8]) -> Result<Vec<u8>> {
        let checked = self.keys().verify_cleartext(message, SystemTime::now());
        checked.map(|(text, _)| text).map_err(|error| untrusted(what, &error))
    }

    fn keys(&self) -> Keyring {
        self.keyring.clone().unwrap_or_default()
    }
}

fn untrusted(what: &str, error: &millstream_image::Error) -> Error {
    Error::Untrusted { what: what.to_owned(), reason: error.to_string() }
}

/// Whether nobody between here and the server can change what comes: TLS, or this very machine.
pub(super) fn is_private(url: &str) -> bool {
    let Some((scheme, rest)) = url.split_once("://") else { return false };
    if scheme.eq_ignore_ascii_case("https") {
        return true;
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let host = match host.strip_prefix('[') {
        Some(bracketed) => bracketed.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tls_and_this_machine_are_private() {
        for good in ["https://m.example/x", "http://127.0.0.1:80/x", "http://[::1]:8/x", "http://localhost/"]
        {
            assert!(is_private(good), "{good}");
        }
        for bad in [
            "http://m.example/127.0.0.1/",
            "http://127.0.0.1@m.example/",
            "http://127.0.0.1.m.example/",
            "http://[fe80::1]/",
            "ftp://localhost.example/",
        ] {
            assert!(!is_private(bad), "{bad}");
        }
    }

    #[test]
    fn plain_http_needs_a_signature_or_consent() {
        let trust = |skip| Trust { keyring: None, minisign: minisign::Keys::default(), skip };
        let text = trust(false).check_way("http://m.example/x", true).unwrap_err().to_string();
        assert!(text.contains("source.keys") && text.contains("https"), "{text}");
        assert!(trust(false).check_way("http://m.example/x", false).is_err());
        assert!(trust(true).check_way("http://m.example/x", false).is_ok());
        let keys = Trust { keyring: Some(Keyring::default()), ..trust(false) };
        assert!(keys.check_way("http://m.example/x", true).is_ok());
        assert!(keys.check_way("http://m.example/x", false).is_err(), "keys do not help what is unsigned");
    }
}
