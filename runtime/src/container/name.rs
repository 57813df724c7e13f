//! Names of containers.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// A container's name, which is also its host name: 1 to 63 letters, digits and hyphens, with a
/// letter first and no hyphen last. So it can name a directory and a control group as it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContainerName(String);

impl ContainerName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Parts of names for containers that are given none.
const FIRST: [&str; 32] = [
    "amber", "bold", "brisk", "calm", "clear", "cosy", "crisp", "deep", "early", "eager", "fair", "fond",
    "gentle", "glad", "golden", "green", "keen", "kind", "light", "lucky", "mellow", "merry", "mild", "neat",
    "nimble", "proud", "quick", "quiet", "silver", "sunny", "swift", "warm",
];
const SECOND: [&str; 32] = [
    "alder", "badger", "barley", "beech", "birch", "brook", "cedar", "clover", "dipper", "elm", "fern",
    "finch", "grain", "hare", "hazel", "heron", "kestrel", "lark", "maple", "miller", "oak", "otter", "owl",
    "rowan", "rye", "sluice", "swallow", "thrush", "weir", "wheat", "willow", "wren",
];

impl ContainerName {
    /// A name made of two words and a number, most likely not taken.
    pub fn random() -> Result<Self> {
        let id = super::record::new_id()?;
        let byte = |at: usize| usize::from_str_radix(&id[at..at + 2], 16).unwrap_or(0);
        format!("{}-{}-{}", FIRST[byte(0) % 32], SECOND[byte(2) % 32], byte(4)).parse()
    }
}

impl FromStr for ContainerName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let reason = if text.is_empty() {
            "it is empty"
        } else if text.len() > 63 {
            "it is longer than 63 characters"
        } else if !text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
            "only letters, digits and hyphens are allowed"
        } else if !text.starts_with(|c: char| c.is_ascii_alphabetic()) {
            "it must begin with a letter"
        } else if text.ends_with('-') {
            "it must not end with a hyphen"
        } else if text == RESERVED {
            "this name is reserved"
        } else {
            return Ok(Self(text.to_owned()));
        };
        Err(Error::Name { name: text.chars().take(80).flat_map(char::escape_debug).collect(), reason })
    }
}

/// The directory of unpacked images stands beside those of the containers.
const RESERVED: &str = super::image::DIRECTORY;

impl fmt::Display for ContainerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl TryFrom<String> for ContainerName {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<ContainerName> for String {
    fn from(name: ContainerName) -> Self {
        name.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn host_names_pass() {
        for good in ["a", "web1", "Web-01", &"x".repeat(63)] {
            assert_eq!(good.parse::<ContainerName>().unwrap().as_str(), good);
        }
    }

    #[test]
    fn random_ones_are_names() {
        let names: std::collections::BTreeSet<_> =
            (0..50).map(|_| ContainerName::random().unwrap()).collect();
        assert!(names.len() > 40);
    }

    #[test]
    fn what_could_lead_elsewhere_does_not() {
        for bad in ["", ".", "..", "a/b", "../a", "a.b", "-a", "a-", "1a", "a b", "a\n", "ä", "images"] {
            assert!(bad.parse::<ContainerName>().is_err(), "{bad:?}");
        }
        assert!("x".repeat(64).parse::<ContainerName>().is_err());
    }

    proptest! {
        #[test]
        fn never_a_path(text in "\\PC{0,70}") {
            if let Ok(name) = text.parse::<ContainerName>() {
                let path = std::path::Path::new("/c").join(name.as_str());
                prop_assert_eq!(path.components().count(), 3);
                prop_assert!(!name.as_str().starts_with('.'));
            }
        }
    }
}
