//! How people name images and narrow lists.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use millstream_image::{Alias, Architecture, Fingerprint};

use crate::remotes::{LOCAL, RemoteName};
use crate::{Error, Result};

/// The fewest digits of a fingerprint that stand for it.
const MIN_PREFIX: usize = 6;

/// Where an image is looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// `local:NAME`: this machine's store.
    Local,
    /// `REMOTE:NAME`.
    Remote(RemoteName),
    /// `NAME`: the store, then the default remote.
    Anywhere,
}

impl FromStr for Place {
    type Err = Error;

    /// Reads what stands before the colon.
    fn from_str(text: &str) -> Result<Self> {
        if text == LOCAL { Ok(Self::Local) } else { text.parse().map(Self::Remote) }
    }
}

/// An image's name as typed: `[remote:]alias`, `[remote:]dist/release[/variant][/arch]`, or a
/// fingerprint or at least six digits of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageName {
    /// Where to look.
    pub place: Place,
    /// What to look for.
    pub image: ImageRef,
}

impl FromStr for ImageName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (place, image) = match text.split_once(':') {
            Some((place, image)) => (place.parse()?, image),
            None => (Place::Anywhere, text),
        };
        Ok(Self { place, image: image.parse()? })
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Local => write!(f, "{LOCAL}:{}", self.image),
            Place::Remote(remote) => write!(f, "{remote}:{}", self.image),
            Place::Anywhere => self.image.fmt(f),
        }
    }
}

/// The part of a name after the colon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageRef(Alias);

impl ImageRef {
    /// As typed.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// As an alias.
    pub fn alias(&self) -> &Alias {
        &self.0
    }

    /// The digits, if this can be a fingerprint or the beginning of one.
    pub fn fingerprint_prefix(&self) -> Option<&str> {
        let text = self.as_str();
        let hex = text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        (hex && (MIN_PREFIX..=64).contains(&text.len())).then_some(text)
    }

    /// The names and architectures it can mean, in the order they are tried: the whole as a name
    /// for `host`; without its last part, where that names an architecture.
    pub fn readings(&self, host: Architecture) -> Vec<(&str, Architecture)> {
        let mut readings = vec![(self.as_str(), host)];
        if let Some((name, last)) = self.as_str().rsplit_once('/')
            && let Ok(arch) = last.parse()
        {
            readings.push((name, arch));
        }
        readings
    }
}

impl FromStr for ImageRef {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        text.parse().map(Self).map_err(|_| {
            Error::name(text, "not an image name; expected [REMOTE:]DIST/RELEASE[/VARIANT][/ARCH], an alias, or 6 or more digits of a fingerprint")
        })
    }
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Whether a product's parts are what a name `dist/release[/variant]` says.
pub(crate) fn names_product(name: &str, distribution: &str, releases: &[&str], variant: &str) -> bool {
    let parts: Vec<_> = name.split('/').collect();
    let (dist, release, wanted) = match parts[..] {
        [dist, release] => (dist, release, "default"),
        [dist, release, variant] => (dist, release, variant),
        _ => return false,
    };
    dist.eq_ignore_ascii_case(distribution) && releases.contains(&release) && wanted == variant
}

/// One condition on a list: `key=value` on a property, or a word that is part of an alias or
/// begins a fingerprint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    /// `key=value`, letter case aside; `*` in the value stands for anything.
    Property {
        /// Property, `alias` or `fingerprint`.
        key: String,
        /// Wanted value.
        value: String,
    },
    /// A word.
    Word(String),
}

/// What filters look at.
#[derive(Clone, Copy, Debug)]
pub struct Filtered<'a> {
    /// The image's fingerprint.
    pub fingerprint: Fingerprint,
    /// Its aliases.
    pub aliases: &'a [Alias],
    /// Its properties.
    pub properties: &'a BTreeMap<String, String>,
}

impl Filter {
    /// Whether an image passes.
    pub fn matches(&self, image: Filtered<'_>) -> bool {
        match self {
            Self::Word(word) => {
                let word = word.to_lowercase();
                image.aliases.iter().any(|alias| alias.as_str().to_lowercase().contains(&word))
                    || image.fingerprint.to_string().starts_with(&word)
            }
            Self::Property { key, value } => match key.as_str() {
                "alias" => image.aliases.iter().any(|alias| matches(value, alias.as_str())),
                "fingerprint" => image.fingerprint.to_string().starts_with(&value.to_lowercase()),
                key => image.properties.get(key).is_some_and(|found| matches(value, found)),
            },
        }
    }

    /// Whether it chooses an architecture.
    pub fn is_architecture(&self) -> bool {
        matches!(self, Self::Property { key, .. } if key == "architecture")
    }
}

impl FromStr for Filter {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let Some((key, value)) = text.split_once('=') else {
            if text.is_empty() {
                return Err(Error::name(text, "an empty filter; expected KEY=VALUE or a word"));
            }
            return Ok(Self::Word(text.to_owned()));
        };
        let key = match key.to_lowercase().as_str() {
            "arch" => "architecture".to_owned(),
            "dist" | "distribution" => "os".to_owned(),
            "" => return Err(Error::name(text, "no key before \"=\"")),
            other => other.to_owned(),
        };
        let architecture = (key == "architecture").then(|| value.parse::<Architecture>().ok()).flatten();
        let value = architecture.map_or_else(|| value.to_owned(), |arch| arch.debian().to_owned());
        Ok(Self::Property { key, value })
    }
}

/// Letter case aside, with `*` for anything.
fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.to_lowercase(), text.to_lowercase());
    let Some((head, tail)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut rest) = text.strip_prefix(head) else { return false };
    let mut parts: Vec<_> = tail.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_where_and_what() {
        let name = |text: &str| text.parse::<ImageName>().unwrap();
        assert_eq!(name("images:debian/bookworm").place, Place::Remote("images".parse().unwrap()));
        assert_eq!(name("local:x").place, Place::Local);
        assert_eq!(name("debian/bookworm").place, Place::Anywhere);
        assert_eq!(name("images:debian/12").to_string(), "images:debian/12");
        for bad in ["", ":", "a:", ":a", "a:b:c", "../x", "a b", "a:../../etc/passwd", "a:b\n"] {
            assert!(bad.parse::<ImageName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn fingerprints_need_six_lower_case_digits() {
        let prefix = |text: &str| text.parse::<ImageRef>().unwrap().fingerprint_prefix().map(str::to_owned);
        assert_eq!(prefix("abc123"), Some("abc123".into()));
        assert_eq!(prefix("abc12"), None);
        assert_eq!(prefix("ABC123"), None);
        assert_eq!(prefix("debian"), None);
    }

    #[test]
    fn the_last_part_can_be_an_architecture() {
        let host = "amd64".parse().unwrap();
        let image: ImageRef = "debian/bookworm/aarch64".parse().unwrap();
        assert_eq!(image.readings(host)[1], ("debian/bookworm", "arm64".parse().unwrap()));
        assert_eq!("debian/bookworm".parse::<ImageRef>().unwrap().readings(host).len(), 1);
    }

    #[test]
    fn filters_match_properties_words_and_patterns() {
        let properties = BTreeMap::from([
            ("architecture".to_owned(), "amd64".to_owned()),
            ("os".to_owned(), "Debian".to_owned()),
        ]);
        let aliases = ["debian/bookworm".parse().unwrap()];
        let fingerprint = Fingerprint::new(millstream_image::Sha256Digest::of(b"x"));
        let image = Filtered { fingerprint, aliases: &aliases, properties: &properties };
        let passes = |text: &str| text.parse::<Filter>().unwrap().matches(image);
        let digits = &fingerprint.to_string()[..8];
        for good in ["os=debian", "dist=DEB*", "arch=x86_64", "bookworm", digits, "alias=*/book*", "os=*"] {
            assert!(passes(good), "{good}");
        }
        for bad in ["os=alpine", "arch=arm64", "trixie", "alias=book*", "nothing=x", "os=*x", "os=debian*x"] {
            assert!(!passes(bad), "{bad}");
        }
        assert!("".parse::<Filter>().is_err() && "=x".parse::<Filter>().is_err());
    }
}
