//! What an image runs on, in Go's names.

use serde::{Deserialize, Serialize};

use crate::Architecture;

/// Debian's name, Go's name, and the variant where Go's name means several.
const NAMES: &[(&str, &str, Option<&str>)] = &[
    ("amd64", "amd64", None),
    ("arm64", "arm64", Some("v8")),
    ("armel", "arm", Some("v5")),
    ("armhf", "arm", Some("v7")),
    ("i386", "386", None),
    ("loong64", "loong64", None),
    ("mips64el", "mips64le", None),
    ("powerpc", "ppc", None),
    ("ppc64el", "ppc64le", None),
    ("riscv64", "riscv64", None),
    ("s390x", "s390x", None),
];

/// A platform.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// Go's name: `amd64`, `arm64`, `386`.
    pub architecture: String,
    /// `linux`.
    pub os: String,
    /// Of the processor: `v7`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl Platform {
    /// Linux on an architecture.
    pub fn linux(architecture: Architecture) -> Self {
        let debian = architecture.debian();
        let name = NAMES.iter().find(|(name, ..)| *name == debian);
        let (architecture, variant) = name.map_or((debian, None), |(_, go, variant)| (*go, *variant));
        Self {
            architecture: architecture.to_owned(),
            os: "linux".to_owned(),
            variant: variant.map(ToOwned::to_owned),
        }
    }

    /// Whether an image for this platform is what somebody who asks for `wanted` means. A variant
    /// that one of both leaves out fits.
    pub fn serves(&self, wanted: &Self) -> bool {
        let variant = match (&self.variant, &wanted.variant) {
            (Some(ours), Some(theirs)) => ours == theirs,
            _ => true,
        };
        self.os == wanted.os && self.architecture == wanted.architecture && variant
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::{Descriptor, Index};

    #[test]
    fn every_architecture_has_a_name_of_its_own() {
        let platforms: Vec<_> = Architecture::all().map(Platform::linux).collect();
        for (at, platform) in platforms.iter().enumerate() {
            assert!(platforms[..at].iter().all(|other| !other.serves(platform)), "{platform:?}");
        }
    }

    #[test]
    fn the_image_for_a_platform_is_found() {
        let of = |debian: &str| {
            let mut descriptor = Descriptor::of("m", debian.as_bytes());
            descriptor.platform = Some(Platform::linux(debian.parse().unwrap()));
            descriptor
        };
        let index = Index::new(vec![of("amd64"), of("armel"), of("armhf")]);
        let found = |debian: &str| index.select(&Platform::linux(debian.parse().unwrap()));
        assert_eq!(found("armhf"), Some(&of("armhf")));
        assert_eq!(found("s390x"), None);
        let alone = Index::new(vec![Descriptor::of("m", b"")]);
        assert!(alone.select(&Platform::linux(Architecture::host())).is_some());
    }
}
