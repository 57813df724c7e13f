use std::path::{Path, PathBuf};

/// What can be wrong with an image, its archives, documents or signatures.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A value that names something (fingerprint, alias, product, serial, architecture) is malformed.
    #[error("\"{value}\" is not a valid {kind}: {reason}")]
    Name {
        /// What the value should have been.
        kind: &'static str,
        /// The value as given, shortened and without control characters.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A document (JSON, YAML, index) does not parse or contradicts itself.
    #[error("{document}: {reason}")]
    Document {
        /// Which document.
        document: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An archive is broken, hostile or over a limit. One bad entry fails the whole archive.
    #[error("archive entry \"{entry}\": {reason}")]
    Archive {
        /// The entry's path as written in the archive, escaped; empty for the archive itself.
        entry: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A signature is missing, malformed, by an unknown key, expired or does not match.
    #[error("signature: {0}")]
    Signature(String),
    /// A key cannot be read, made or used.
    #[error("key: {0}")]
    Key(String),
    /// Bytes do not have the size or hash they were promised to have.
    #[error("{what}: {reason}")]
    Mismatch {
        /// Which file or stream.
        what: String,
        /// Expected and found.
        reason: String,
    },
    /// The operating system refused something.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or directory concerned.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
}

/// Result with this crate's error.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Wraps an I/O error with the path it happened on.
    pub fn io(path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        move |source| Self::Io { path, source }
    }

    pub(crate) fn name(kind: &'static str, value: &str, reason: impl Into<String>) -> Self {
        let value = value.chars().take(80).flat_map(char::escape_debug).collect();
        Self::Name { kind, value, reason: reason.into() }
    }

    pub(crate) fn document(document: impl Into<String>, reason: impl std::fmt::Display) -> Self {
        Self::Document { document: document.into(), reason: reason.to_string() }
    }
}
