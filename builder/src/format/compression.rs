//! `--compression`: which, and how hard.

use std::fmt;
use std::str::FromStr;

use millstream_image::archive::Compression;

use crate::{Error, Result};

/// A compression with its level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Which.
    pub compression: Compression,
    /// On that compression's own scale; 0 where it has none.
    pub level: u32,
}

/// Name, what it is, its usual level and its highest one.
const KNOWN: [(&str, Compression, u32, u32); 4] = [
    ("none", Compression::None, 0, 0),
    ("gzip", Compression::Gzip, 6, 9),
    ("zstd", Compression::Zstd, 12, 22),
    ("xz", Compression::Xz, 6, 9),
];

impl Setting {
    /// Its usual level.
    pub fn usual(compression: Compression) -> Self {
        let level = KNOWN.iter().find(|known| known.1 == compression).map_or(0, |known| known.2);
        Self { compression, level }
    }

    /// What follows `.tar` in a file's name.
    pub fn extension(self) -> &'static str {
        match self.compression {
            Compression::None => "",
            Compression::Gzip => ".gz",
            Compression::Zstd => ".zst",
            Compression::Xz => ".xz",
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        KNOWN.iter().find(|known| known.1 == self.compression).map_or("", |known| known.0)
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.level {
            0 if self.compression == Compression::None => f.write_str(self.name()),
            level => write!(f, "{}:{level}", self.name()),
        }
    }
}

impl FromStr for Setting {
    type Err = Error;

    /// Reads `NAME` or `NAME:LEVEL`.
    fn from_str(text: &str) -> Result<Self> {
        let (name, level) = text.split_once(':').map_or((text, None), |(name, level)| (name, Some(level)));
        let Some((_, compression, usual, highest)) = KNOWN.into_iter().find(|known| known.0 == name) else {
            return Err(Error::Refused(format!(
                "unknown compression {name:?} (valid: none, gzip, zstd, xz, each with :LEVEL)"
            )));
        };
        let level = match level {
            None => usual,
            Some(level) => level.parse().ok().filter(|level| *level <= highest).ok_or_else(|| {
                Error::Refused(format!("{name} has levels 0 to {highest}, {level:?} is none of them"))
            })?,
        };
        Ok(Self { compression, level })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_levels_are_checked() {
        let read = |text: &str| text.parse::<Setting>();
        assert_eq!(read("zstd:19").unwrap(), Setting { compression: Compression::Zstd, level: 19 });
        assert_eq!(read("xz").unwrap(), Setting::usual(Compression::Xz));
        for text in ["none", "gzip:6", "zstd:12", "xz:9"] {
            assert_eq!(read(text).unwrap().to_string(), text);
        }
        for bad in ["", "bzip2", "xz:10", "xz:", "gzip:x", "none:1", "zstd:-1"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
