//! Architectures and the two names each has: Debian's and the kernel's.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Debian's name, then every kernel name that means the same (the first is the one written).
const NAMES: &[(&str, &[&str])] = &[
    ("amd64", &["x86_64"]),
    ("arm64", &["aarch64"]),
    ("armel", &["armv6l", "armel"]),
    ("armhf", &["armv7l", "armv8l"]),
    ("i386", &["i686", "i586", "i386"]),
    ("loong64", &["loongarch64"]),
    ("mips64el", &["mips64"]),
    ("powerpc", &["ppc"]),
    ("ppc64", &["ppc64"]),
    ("ppc64el", &["ppc64le"]),
    ("riscv64", &["riscv64"]),
    ("s390x", &["s390x"]),
];

/// An architecture, held by Debian's name (`amd64`), which is what image names use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Architecture(&'static str);

impl Architecture {
    /// The architecture this program was built for.
    pub fn host() -> Self {
        let kernel = match std::env::consts::ARCH {
            "x86" => "i686",
            "arm" => "armv7l",
            "powerpc64" => "ppc64le",
            other => other,
        };
        kernel.parse().unwrap_or(Self("amd64"))
    }

    /// Debian's name, as in image names: `amd64`.
    pub fn debian(&self) -> &'static str {
        self.0
    }

    /// The kernel's name, as in `metadata.yaml`: `x86_64`.
    pub fn kernel(&self) -> &'static str {
        NAMES.iter().find(|(debian, _)| *debian == self.0).map_or(self.0, |(_, kernel)| kernel[0])
    }

    /// Every name a kernel of it may have.
    pub fn kernels(&self) -> &'static [&'static str] {
        NAMES.iter().find(|(debian, _)| *debian == self.0).map_or(&[], |(_, kernels)| kernels)
    }

    /// Every architecture known.
    pub fn all() -> impl Iterator<Item = Self> {
        NAMES.iter().map(|(debian, _)| Self(debian))
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.0)
    }
}

impl FromStr for Architecture {
    type Err = Error;

    /// Reads either name.
    fn from_str(text: &str) -> Result<Self> {
        NAMES
            .iter()
            .find(|(debian, kernel)| *debian == text || kernel.contains(&text))
            .map(|(debian, _)| Self(debian))
            .ok_or_else(|| {
                let known: Vec<_> = Self::all().map(|a| a.0).collect();
                Error::name("architecture", text, format!("known are {}", known.join(", ")))
            })
    }
}

impl TryFrom<String> for Architecture {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Architecture> for String {
    fn from(arch: Architecture) -> Self {
        arch.0.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_names_mean_the_same() {
        for arch in Architecture::all() {
            assert_eq!(arch.kernel().parse::<Architecture>().unwrap(), arch);
            assert_eq!(arch.debian().parse::<Architecture>().unwrap(), arch);
        }
        assert!("sparc/../x".parse::<Architecture>().is_err());
    }
}
