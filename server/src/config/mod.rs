//! `server.toml`: what a server does without being told on the command line. One module a section;
//! unknown keys are errors, with the line.

mod access;
mod limits;
mod service;

use std::fs;
use std::path::Path;

use serde::Deserialize;

pub use access::{Area, Right};
pub use limits::PerAddress;
pub use service::Service;

use crate::{Error, Result};

/// A configuration is a page or two; anything larger is no configuration.
const LARGEST: u64 = 1 << 20;

/// The whole file.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// `[serve]`: the HTTPS service.
    pub serve: Service,
    /// `[[access]]`: private areas.
    pub access: Vec<Area>,
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// When it cannot be read, is larger than 1 MiB, is no TOML, or has a key or value that is not
    /// known; the message has the line.
    pub fn read(path: &Path) -> Result<Self> {
        let size = fs::metadata(path).map_err(Error::io(path))?.len();
        if size > LARGEST {
            return Err(refused(path, format!("{size} bytes are too many for a configuration")));
        }
        let text = fs::read_to_string(path).map_err(Error::io(path))?;
        Self::parse(&text).map_err(|reason| refused(path, reason))
    }

    /// Reads a configuration's text.
    ///
    /// # Errors
    /// What is wrong with it, and in which line.
    pub fn parse(text: &str) -> std::result::Result<Self, String> {
        toml::from_str(text).map_err(|e| e.to_string().trim_end().to_owned())
    }
}

fn refused(path: &Path, reason: String) -> Error {
    Error::Config { path: path.to_owned(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_are_read_and_mistakes_named_with_their_line() {
        let text =
            "[serve]\nroot = \"/srv/stream\"\nlisten = \"127.0.0.1:9443\"\nnames = [\"images.local\"]\n";
        let config = Config::parse(text).unwrap();
        assert_eq!(config.serve.root.as_deref(), Some(Path::new("/srv/stream")));
        assert_eq!(config.serve.names, ["images.local"]);
        assert_eq!(Config::parse("").unwrap(), Config::default());

        let unknown = Config::parse("[serve]\nlisten = \"a:1\"\nport = 1\n").unwrap_err();
        assert!(unknown.contains("line 3") && unknown.contains("`port`"), "{unknown}");
        let wrong = Config::parse("[serve]\nroot = 5\n").unwrap_err();
        assert!(wrong.contains("line 2"), "{wrong}");
    }
}
