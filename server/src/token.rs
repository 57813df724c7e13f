//! Bearer tokens: 256 random bits, of which a server keeps the SHA-256 alone. That needs no salt and
//! no slow hash: nobody tries out so many.

use std::fmt::Write;

use millstream_image::Sha256Digest;
use rustls::crypto::ring::default_provider;

/// How a token begins, so that searches for leaked secrets find it.
const PREFIX: &str = "mst_";

/// Makes a token, and what a configuration holds of it.
pub fn create() -> (String, Sha256Digest) {
    let mut bytes = [0; 32];
    default_provider().secure_random.fill(&mut bytes).expect("the system has random numbers");
    let token = bytes.iter().fold(PREFIX.to_owned(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    });
    let digest = Sha256Digest::of(token.as_bytes());
    (token, digest)
}
