use std::path::{Path, PathBuf};

/// What can go wrong while finding, fetching, checking and keeping images.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The URL cannot be used.
    #[error("{url}: {reason}")]
    Url {
        /// As given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The server could not be reached, or broke off.
    #[error("{url}: {reason}")]
    Network {
        /// What was fetched, without credentials.
        url: String,
        /// The innermost cause.
        reason: String,
    },
    /// The server's certificate is not one to believe.
    #[error("{url}: {reason}")]
    Certificate {
        /// What was fetched.
        url: String,
        /// Why not.
        reason: String,
    },
    /// The server answered with something other than the file.
    #[error("{url}: the server answered {status}")]
    Status {
        /// What was fetched.
        url: String,
        /// HTTP status.
        status: u16,
    },
    /// The bytes are not the ones promised. Nothing of them is kept.
    #[error("{url}: {reason}; refused")]
    Mismatch {
        /// What was fetched.
        url: String,
        /// Expected and found.
        reason: String,
    },
    /// A document is not signed, or not by a pinned key. Nothing of it is believed.
    #[error("{url}: {reason}; refused")]
    Signature {
        /// The document.
        url: String,
        /// What is wrong with the signature.
        reason: String,
    },
    /// A signed document is older than one seen before from this remote, or differs from one that
    /// calls itself the same.
    #[error("{url}: {reason}; refused, an older state of the server is being shown")]
    Rollback {
        /// The document.
        url: String,
        /// What was seen before, and what now.
        reason: String,
    },
    /// A signed document is past its expiry, or this machine's clock cannot be right.
    #[error("{url}: {reason}; refused")]
    Expired {
        /// The document.
        url: String,
        /// The times compared.
        reason: String,
    },
    /// A document does not parse, contradicts itself, or names what it must not.
    #[error("{url}: {reason}")]
    Document {
        /// The document.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The table of remotes, or one remote in it, cannot be used as asked.
    #[error("remote \"{name}\": {reason}")]
    Remote {
        /// The remote's name as given.
        name: String,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// An image name, filter or alias is malformed.
    #[error("\"{value}\": {reason}")]
    Name {
        /// As given.
        value: String,
        /// What is expected.
        reason: String,
    },
    /// No image answers to this name, or more than one does.
    #[error("image \"{name}\": {reason}")]
    Image {
        /// The name as given.
        name: String,
        /// Why, with the nearest names.
        reason: String,
    },
    /// The store is damaged, or made by a newer version.
    #[error("image store {}: {reason}", path.display())]
    Store {
        /// The store's directory, or a file in it.
        path: PathBuf,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// A file here cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
    /// A key or other file cannot be read, or not be made.
    #[error(transparent)]
    Format(millstream_image::Error),
    /// Certificates or proxies are not usable.
    #[error("HTTP set-up: {0}")]
    Setup(String),
}

/// Result with this crate's error.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn io(path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        move |source| Self::Io { path, source }
    }

    pub(crate) fn name(value: &str, reason: impl Into<String>) -> Self {
        Self::Name { value: value.escape_debug().to_string(), reason: reason.into() }
    }

    pub(crate) fn remote(name: &impl ToString, reason: impl Into<String>) -> Self {
        Self::Remote { name: name.to_string(), reason: reason.into() }
    }

    pub(crate) fn image(name: &impl ToString, reason: impl Into<String>) -> Self {
        Self::Image { name: name.to_string(), reason: reason.into() }
    }

    pub(crate) fn document(url: impl Into<String>, reason: impl std::fmt::Display) -> Self {
        Self::Document { url: url.into(), reason: reason.to_string() }
    }

    pub(crate) fn mismatch(url: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Mismatch { url: url.into(), reason: reason.into() }
    }

    /// Whether trying again may help.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Network { .. } => true,
            Self::Status { status, .. } => matches!(status, 408 | 429 | 500..),
            _ => false,
        }
    }

    /// Whether the server says that there is no such file.
    pub fn is_missing(&self) -> bool {
        match self {
            Self::Status { status, .. } => matches!(status, 404 | 410),
            Self::Io { source, .. } => source.kind() == std::io::ErrorKind::NotFound,
            _ => false,
        }
    }
}

/// What fails in the image crate, told in this crate's words where it has them.
impl From<millstream_image::Error> for Error {
    fn from(error: millstream_image::Error) -> Self {
        match error {
            millstream_image::Error::Io { path, source } => Self::Io { path, source },
            millstream_image::Error::Name { value, reason, .. } => Self::Name { value, reason },
            other => Self::Format(other),
        }
    }
}
