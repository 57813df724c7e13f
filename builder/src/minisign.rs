//! Keys and signatures of minisign, with which Void Linux signs its lists of checksums.
//!
//! A key stands in `source.keys` as minisign prints it: base64 that begins with `RW`, with or without
//! the line of comment above.

use minisign_verify::{PublicKey, Signature};

use crate::{Error, Result};

/// The keys of minisign that a recipe names.
#[derive(Debug, Default)]
pub(crate) struct Keys(Vec<PublicKey>);

/// The base64 of a key, if that is what a text is.
fn base64(text: &str) -> Option<&str> {
    let last = text.trim().lines().last()?.trim();
    let shape = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=');
    // 42 bytes, of which the first are "Ed".
    (last.starts_with("RW") && last.len() == 56 && last.chars().all(shape)).then_some(last)
}

/// Whether a key of a recipe is one of minisign.
pub(crate) fn is_key(text: &str) -> bool {
    base64(text).is_some()
}

/// Whether a signature is one of minisign, or of its forerunner signify.
pub(crate) fn is_signature(signature: &[u8]) -> bool {
    signature.starts_with(b"untrusted comment:")
}

impl Keys {
    /// Those among the keys of a recipe.
    pub(crate) fn of(keys: &[String]) -> Result<Self> {
        let read = |text: &str| {
            PublicKey::from_base64(text)
                .map_err(|error| Error::Refused(format!("source.keys: {text}: no key of minisign: {error}")))
        };
        keys.iter().filter_map(|key| base64(key)).map(read).collect::<Result<_>>().map(Self)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Checks that one of the keys made this signature of `data`. `what` names the signature.
    ///
    /// # Errors
    /// [`Error::Untrusted`].
    pub(crate) fn verify(&self, what: &str, data: &[u8], signature: &[u8]) -> Result<()> {
        let refused = |reason: String| Error::Untrusted { what: what.to_owned(), reason };
        let text = String::from_utf8_lossy(signature);
        let signature = Signature::decode(&text)
            .map_err(|error| refused(format!("no signature of minisign: {error}")))?;
        let mut last = "source.keys has no key of minisign".to_owned();
        for key in &self.0 {
            // Void's are of the older form, over the list itself and not its hash.
            match key.verify(data, &signature, true) {
                Ok(()) => return Ok(()),
                Err(minisign_verify::Error::UnexpectedKeyId) => {
                    "none of the keys in source.keys made it".clone_into(&mut last);
                }
                Err(error) => return Err(refused(error.to_string())),
            }
        }
        Err(refused(last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The example of minisign's own documentation.
    const KEY: &str = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3";
    const SIGNATURE: &str = "untrusted comment: signature from minisign secret key
RUQf6LRCGA9i559r3g7V1qNyJDApGip8MfqcadIgT9CuhV3EMhHoN1mGTkUidF/z7SrlQgXdy8ofjb7bNJJylDOocrCo8KLzZwo=
trusted comment: timestamp:1633700835\tfile:test\tprehashed
wLMDjy9FLAuxZ3q4NlEvkgtyhrr0gtTu6KC4KBJdITbbOeAi1zBIYo0v4iTgt8jJpIidRJnp94ABQkJAgAooBQ==
";

    #[test]
    fn keys_are_told_from_others() {
        assert!(is_key(KEY) && is_key(&format!("untrusted comment: minisign public key\n{KEY}\n")));
        for other in
            ["0E98404D386FA1D9", "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nRWQ", "", &KEY[1..], &KEY[..55]]
        {
            assert!(!is_key(other), "{other}");
        }
        let broken = format!("RWAA{}", &KEY[4..]);
        assert!(is_key(&broken) && Keys::of(&[broken]).is_err());
        assert!(Keys::of(&["0E98404D386FA1D9".to_owned()]).unwrap().is_empty());
    }

    #[test]
    fn minisigns_own_example_is_verified() {
        let keys = Keys::of(&[KEY.to_owned()]).unwrap();
        keys.verify("x", b"test", SIGNATURE.as_bytes()).unwrap();
        for (data, signature) in [
            (&b"Test"[..], SIGNATURE.to_owned()),
            (b"test", SIGNATURE.replace("timestamp:1633700835", "timestamp:1633700836")),
            (b"test", SIGNATURE.replace("RUQf6", "RUQf7")),
            (b"test", SIGNATURE.lines().take(2).collect::<Vec<_>>().join("\n")),
            (b"test", String::new()),
        ] {
            assert!(keys.verify("x", data, signature.as_bytes()).is_err(), "{signature}");
        }
        assert!(Keys::default().verify("x", b"test", SIGNATURE.as_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn any_signature_is_refused(text in "(untrusted comment: x\n)?[A-Za-z0-9+/=\n]{0,200}(\ntrusted comment: \\PC{0,9}\n)?[A-Za-z0-9+/=]{0,90}") {
            prop_assert!(Keys::of(&[KEY.to_owned()]).unwrap().verify("x", b"test", text.as_bytes()).is_err());
            is_key(&text);
        }
    }
}
