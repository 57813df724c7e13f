//! Which images a mirror takes.

use globset::{GlobBuilder, GlobMatcher};
use millstream_image::Product;

use crate::stream::UNIFIED;
use crate::{Error, Result};

/// Kinds of root file system, as `--type` names them, with their files.
const TYPES: [(&str, &str); 2] = [("rootfs", "rootfs.tar.xz"), ("squashfs", "rootfs.squashfs")];

/// Patterns on `DIST/RELEASE/ARCH/VARIANT`, and kinds of root file system.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    include: Vec<GlobMatcher>,
    exclude: Vec<GlobMatcher>,
    types: Vec<&'static str>,
}

impl Filter {
    /// Takes what one of `include` matches, or all without any, and none of `exclude`. A pattern of
    /// fewer than four parts matches whatever follows. Without `types` every kind is taken.
    ///
    /// # Errors
    /// [`Error::Pattern`].
    pub fn new(include: &[String], exclude: &[String], types: &[String]) -> Result<Self> {
        let globs = |patterns: &[String]| patterns.iter().map(|text| glob(text)).collect::<Result<Vec<_>>>();
        let types = types.iter().map(|text| {
            let found = TYPES.iter().find(|(name, _)| name == text).map(|(_, file)| *file);
            let reason = "not a type of root file system; there are rootfs and squashfs";
            found.ok_or_else(|| Error::Pattern { pattern: text.clone(), reason: reason.into() })
        });
        Ok(Self { include: globs(include)?, exclude: globs(exclude)?, types: types.collect::<Result<_>>()? })
    }

    /// Whether images of a product are taken.
    pub fn takes(&self, product: &Product) -> bool {
        let parts =
            [product.distribution(), product.release(), product.architecture().debian(), product.variant()];
        let names: Vec<_> = (1..=parts.len()).map(|count| parts[..count].join("/")).collect();
        let any =
            |globs: &[GlobMatcher]| globs.iter().any(|glob| names.iter().any(|name| glob.is_match(name)));
        (self.include.is_empty() || any(&self.include)) && !any(&self.exclude)
    }

    /// Whether a file of an image is taken: metadata always is.
    pub(super) fn takes_file(&self, name: &str) -> bool {
        let root = TYPES.iter().any(|(_, file)| *file == name) || UNIFIED.contains(&name);
        !root || self.types.is_empty() || self.types.contains(&name)
    }
}

fn glob(text: &str) -> Result<GlobMatcher> {
    let bad = |reason: String| Error::Pattern { pattern: text.to_owned(), reason };
    if text.is_empty() || text.split('/').count() > 4 {
        return Err(bad("expected DIST[/RELEASE[/ARCH[/VARIANT]]]".into()));
    }
    let glob = GlobBuilder::new(text).literal_separator(true).build();
    Ok(glob.map_err(|e| bad(e.kind().to_string()))?.compile_matcher())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn takes(include: &[&str], exclude: &[&str], product: &str) -> bool {
        let owned = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
        let filter = Filter::new(&owned(include), &owned(exclude), &[]).unwrap();
        filter.takes(&product.parse().unwrap())
    }

    #[test]
    fn patterns_match_by_parts() {
        let product = "debian:bookworm:amd64:default";
        for good in
            ["debian", "deb*", "debian/bookworm", "*/*/amd64", "debian/*/*/default", "{debian,alpine}"]
        {
            assert!(takes(&[good], &[], product), "{good}");
            assert!(!takes(&[], &[good], product), "{good}");
        }
        for bad in ["ebian", "*/amd64", "bookworm", "debian/book", "debian/*/arm64"] {
            assert!(!takes(&[bad], &[], product), "{bad}");
        }
        assert!(takes(&[], &[], product));
        assert!(!takes(&["debian"], &["*/*/*/default"], product));
    }

    #[test]
    fn mistakes_are_told() {
        let one = |text: &str| vec![text.to_owned()];
        for bad in ["", "[", "a/b/c/d/e"] {
            assert!(Filter::new(&one(bad), &[], &[]).is_err(), "{bad:?}");
        }
        assert!(Filter::new(&[], &[], &one("vm")).is_err());
    }
}
