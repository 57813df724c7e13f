//! OpenPGP: the one key that signs a tree, and the keyrings that verify trees and archives.
//!
//! On sequoia-openpgp with its pure-Rust backend. Every check is made at a time the caller gives,
//! so that one operation judges everything by one clock reading.

mod cleartext;
mod key;
mod keyring;

use std::time::Duration;

use sequoia_openpgp::policy::{AsymmetricAlgorithm, StandardPolicy};

pub use key::{Algorithm, KeyFingerprint, SigningKey};
pub use keyring::{Keyring, Verified};

/// How far in the future a signature may seem to be made, for clocks that differ.
pub const SKEW: Duration = Duration::from_mins(5);

/// Sequoia's policy, which already refuses SHA-1 and MD5, without RSA below 3072 bits.
fn policy() -> StandardPolicy<'static> {
    let mut policy = StandardPolicy::new();
    policy.reject_asymmetric_algo(AsymmetricAlgorithm::RSA2048);
    policy
}
