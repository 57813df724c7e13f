//! How people name images of a stream.

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::time::SystemTime;

use millstream_image::{Product, Serial};

use super::{Listed, Stream};
use crate::{Error, Result};

/// Digits of a fingerprint that name an image.
const PREFIX: usize = 6;

/// `DIST/RELEASE/ARCH/VARIANT[/SERIAL]` as in the tree, an alias, or the first digits of a
/// fingerprint. Without a serial the newest image is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selector {
    text: String,
    product: Option<(Product, Option<Serial>)>,
}

impl FromStr for Selector {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let path = text.trim_matches('/');
        let parts: Vec<_> = path.strip_prefix("images/").unwrap_or(path).split(['/', ':']).collect();
        let product = match parts.as_slice() {
            [product @ .., serial] if product.len() == 4 => {
                product.join(":").parse().ok().zip(serial.parse().ok().map(Some))
            }
            product if product.len() == 4 => product.join(":").parse().ok().map(|product| (product, None)),
            _ => None,
        };
        Ok(Self { text: text.to_owned(), product })
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Selector {
    fn selects(&self, image: &Listed) -> bool {
        if let Some((product, serial)) = &self.product {
            return &image.product == product && serial.map_or(image.newest, |serial| image.serial == serial);
        }
        let by_prefix = || {
            let fingerprint = image.fingerprint.map(|fingerprint| fingerprint.to_string());
            self.text.len() >= PREFIX && fingerprint.is_some_and(|full| full.starts_with(&self.text))
        };
        image.newest && image.aliases.contains(&self.text) || by_prefix()
    }
}

impl Stream {
    /// The one image a selector means.
    ///
    /// # Errors
    /// [`Error::Tree`] when there is none, or more than one.
    pub fn find(&self, selector: &Selector, now: SystemTime) -> Result<Listed> {
        let mut found: Vec<_> = self.list(now)?.into_iter().filter(|image| selector.selects(image)).collect();
        match found.len() {
            1 => Ok(found.remove(0)),
            0 => Err(self.no_image(selector, "it has no image")),
            n => Err(self.no_image(selector, &format!("it has {n} images"))),
        }
    }

    fn no_image(&self, selector: &Selector, found: &str) -> Error {
        let root: &Path = self.root();
        let reason = format!(
            "{found} {:?}; name one as DIST/RELEASE/ARCH/VARIANT/SERIAL, and see: millstream stream list {}",
            selector.text,
            root.display()
        );
        Error::tree(root, reason)
    }
}
