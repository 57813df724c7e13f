//! What an image *is*.
//!
//! Names, fingerprints, `metadata.yaml`, archives, signatures, and the documents that describe
//! images: simplestreams, LXC's index, `SHA256SUMS` and the manifest. Nothing here touches the
//! network, reads the clock or keeps state: callers pass bytes and times in.

pub mod arch;
pub mod archive;
pub mod atomic;
pub mod delta;
pub mod digest;
mod error;
pub mod lxc_index;
pub mod manifest;
pub mod metadata;
pub mod name;
pub mod oci;
pub mod openpgp;
pub mod serial;
pub mod simplestreams;
pub mod spdx;
pub mod squashfs;
pub mod sums;

pub use arch::Architecture;
pub use digest::{Fingerprint, Sha256Digest};
pub use error::{Error, Result};
pub use name::{Alias, Product};
pub use serial::Serial;
