//! Product names and aliases.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{Architecture, Error, Result, Serial};

const MAX_PART: usize = 64;

/// One part of a product name: letters, digits and `. _ + -`, beginning with a letter or digit.
/// So it can stand in a path, a URL and a line of LXC's index without escaping.
fn check_part(kind: &'static str, part: &str) -> Result<()> {
    let reason = if part.is_empty() {
        "it is empty"
    } else if part.len() > MAX_PART {
        "it is longer than 64 characters"
    } else if !part.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        "it must begin with a letter or digit"
    } else if !part.bytes().all(|b| b.is_ascii_alphanumeric() || b"._+-".contains(&b)) {
        "only letters, digits and . _ + - are allowed"
    } else {
        return Ok(());
    };
    Err(Error::name(kind, part, reason))
}

/// What stays the same from serial to serial: distribution, release, architecture and variant.
/// Written `debian:bookworm:amd64:default`, as the LXC image server's simplestreams do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Product {
    // Shared, as catalogues name each product in all its versions.
    distribution: Arc<str>,
    release: Arc<str>,
    architecture: Architecture,
    variant: Arc<str>,
}

impl Product {
    /// Checks the parts and joins them. The distribution is lower-cased, as in the field's trees.
    pub fn new(distribution: &str, release: &str, architecture: Architecture, variant: &str) -> Result<Self> {
        let distribution = distribution.to_lowercase();
        check_part("distribution", &distribution)?;
        check_part("release", release)?;
        check_part("variant", variant)?;
        let distribution = distribution.into();
        Ok(Self { distribution, release: release.into(), architecture, variant: variant.into() })
    }

    /// `debian`.
    pub fn distribution(&self) -> &str {
        &self.distribution
    }

    /// `bookworm`.
    pub fn release(&self) -> &str {
        &self.release
    }

    /// The architecture.
    pub fn architecture(&self) -> Architecture {
        self.architecture
    }

    /// `default`.
    pub fn variant(&self) -> &str {
        &self.variant
    }

    /// The product's directory in a stream tree: `images/debian/bookworm/amd64/default`.
    pub fn tree_path(&self) -> PathBuf {
        ["images", &*self.distribution, &self.release, self.architecture.debian(), &self.variant]
            .iter()
            .collect()
    }

    /// The directory of one of its images: [`Product::tree_path`] and the serial.
    pub fn image_path(&self, serial: Serial) -> PathBuf {
        self.tree_path().join(serial.to_string())
    }

    /// The aliases it answers to: `debian/bookworm/default`, for the default variant also
    /// `debian/bookworm`, and both again for every other name of the release (`12`).
    pub fn aliases<'a>(&self, other_releases: impl IntoIterator<Item = &'a str>) -> Vec<Alias> {
        let mut aliases: Vec<Alias> = Vec::new();
        let mut push = |name: String| {
            if let Ok(alias) = name.parse()
                && !aliases.contains(&alias)
            {
                aliases.push(alias);
            }
        };
        push(format!("{}/{}/{}", self.distribution, self.release, self.variant));
        if &*self.variant == "default" {
            push(format!("{}/{}", self.distribution, self.release));
        }
        for release in other_releases {
            push(format!("{}/{release}/{}", self.distribution, self.variant));
            if &*self.variant == "default" {
                push(format!("{}/{release}", self.distribution));
            }
        }
        aliases
    }
}

impl fmt::Display for Product {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}:{}", self.distribution, self.release, self.architecture, self.variant)
    }
}

impl FromStr for Product {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parts: Vec<_> = text.split(':').collect();
        let [distribution, release, architecture, variant] = parts[..] else {
            return Err(Error::name("product", text, "expected DISTRIBUTION:RELEASE:ARCHITECTURE:VARIANT"));
        };
        let product = Self::new(distribution, release, architecture.parse()?, variant)?;
        if &*product.distribution != distribution || product.architecture.debian() != architecture {
            return Err(Error::name(
                "product",
                text,
                "expected lower-case distribution and Debian's architecture name",
            ));
        }
        Ok(product)
    }
}

impl TryFrom<String> for Product {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Product> for String {
    fn from(product: Product) -> Self {
        product.to_string()
    }
}

/// A name for an image, chosen by people: `debian/bookworm`, `my-image`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Alias(String);

impl Alias {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Alias {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for Alias {
    type Err = Error;

    /// One to eight parts between slashes, each as in a product name.
    fn from_str(text: &str) -> Result<Self> {
        if text.split('/').count() > 8 {
            return Err(Error::name("alias", text, "it has more than eight parts"));
        }
        for part in text.split('/') {
            check_part("alias", part)?;
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for Alias {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Alias> for String {
    fn from(alias: Alias) -> Self {
        alias.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn debian() -> Product {
        "debian:bookworm:amd64:default".parse().unwrap()
    }

    #[test]
    fn product_round_trips_and_names_its_directory() {
        assert_eq!(debian().to_string(), "debian:bookworm:amd64:default");
        let path = debian().image_path("20260101_0000".parse().unwrap());
        assert_eq!(path, PathBuf::from("images/debian/bookworm/amd64/default/20260101_0000"));
    }

    #[test]
    fn default_variant_has_short_aliases() {
        let names: Vec<_> = debian().aliases(["12"]).iter().map(ToString::to_string).collect();
        assert_eq!(names, ["debian/bookworm/default", "debian/bookworm", "debian/12/default", "debian/12"]);
        let minimal: Product = "debian:bookworm:amd64:minimal".parse().unwrap();
        assert_eq!(minimal.aliases([]).len(), 1);
    }

    #[test]
    fn parts_cannot_leave_the_tree() {
        for bad in [
            "..:b:amd64:v",
            "a:..:amd64:v",
            "a:b:amd64:../v",
            "a:b/c:amd64:v",
            "a:b:amd64",
            "a:b:vax:v",
            "a:b\n:amd64:v",
            "a:b;c:amd64:v",
            "A:b:amd64:v",
            "a:b:x86_64:v",
            ":b:amd64:v",
        ] {
            assert!(bad.parse::<Product>().is_err(), "{bad}");
        }
        for bad in ["", "/", "a//b", "a/../b", "a b", "-a", "a/1/2/3/4/5/6/7/8"] {
            assert!(bad.parse::<Alias>().is_err(), "{bad}");
        }
    }
}
