//! What a remote speaks.

use serde::{Deserialize, Serialize};

/// How a remote's catalogue is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// A stream tree with `streams/v1/index.json`.
    #[default]
    Simplestreams,
    /// A tree with `meta/1.0/index-system`, as LXC's templates read it: its images have no
    /// fingerprints, and only `lxc-create` can use them.
    Lxc,
    /// The public API of an LXD or Incus, `/1.0/images`.
    Lxd,
    /// A registry of OCI or Docker images: it has no list, its images are named `REPOSITORY:TAG`.
    Oci,
}

impl Protocol {
    /// As in lists and in the file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Simplestreams => "simplestreams",
            Self::Lxc => "lxc",
            Self::Lxd => "lxd",
            Self::Oci => "oci",
        }
    }

    /// Whether what is read can be signed at all.
    pub fn has_signatures(self) -> bool {
        matches!(self, Self::Simplestreams | Self::Lxc)
    }
}
