use millstream_image::Sha256Digest;
use serde::Deserialize;

/// `[[access]]`: a private area, and who may do what in it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Area {
    /// Where it begins, as in URLs: `/` is everything, `/images/debian` one distribution's files. Whole
    /// names count: `/images/deb` is not the beginning of `/images/debian`.
    pub path: String,
    /// What its tokens and certificates allow.
    pub right: Right,
    /// SHA-256 of bearer tokens, as `millstream token create` prints them.
    #[serde(default)]
    pub tokens: Vec<Sha256Digest>,
    /// SHA-256 of client certificates (of the DER form, as `openssl x509 -fingerprint -sha256` shows it;
    /// without colons).
    #[serde(default)]
    pub certificates: Vec<Sha256Digest>,
}

/// What may be done in an area.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Right {
    /// Fetch; everyone else is kept out.
    Read,
    /// Publish images whose directories lie in it; whoever may read may still read.
    Push,
}
