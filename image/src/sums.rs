//! `SHA256SUMS`, as `sha256sum` writes and checks it.

use std::collections::BTreeMap;

use crate::{Error, Result, Sha256Digest};

/// File names and their digests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sums(pub BTreeMap<String, Sha256Digest>);

impl Sums {
    /// Reads lines of `DIGEST  NAME` or `DIGEST *NAME`; names are plain file names.
    pub fn parse(text: &str) -> Result<Self> {
        let mut sums = BTreeMap::new();
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.is_empty()) {
            let bad = |reason: &str| Error::document("SHA256SUMS", format!("line {}: {reason}", number + 1));
            let (digest, name) = line.split_once(' ').ok_or_else(|| bad("expected DIGEST  NAME"))?;
            let name = name.strip_prefix([' ', '*']).ok_or_else(|| bad("expected two spaces or \" *\""))?;
            if name.is_empty() || name.contains('/') || name == ".." || name == "." {
                return Err(bad("expected a plain file name"));
            }
            if sums.insert(name.to_owned(), digest.parse()?).is_some() {
                return Err(bad("this name stands twice"));
            }
        }
        Ok(Self(sums))
    }

    /// The file's text.
    pub fn to_text(&self) -> String {
        let lines: Vec<_> = self.0.iter().map(|(name, digest)| format!("{digest}  {name}\n")).collect();
        lines.concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_and_refusals() {
        let digest = Sha256Digest::of(b"x");
        let text = format!("{digest}  meta.tar.xz\n{digest}  rootfs.tar.xz\n");
        assert_eq!(Sums::parse(&text).unwrap().to_text(), text);
        for bad in [
            format!("{digest}  ../x\n"),
            format!("{digest} x\n"),
            format!("{digest}  x\n{digest}  x\n"),
            "nonsense\n".into(),
        ] {
            assert!(Sums::parse(&bad).is_err(), "{bad}");
        }
    }
}
