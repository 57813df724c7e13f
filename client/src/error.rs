use std::path::{Path, PathBuf};

/// What can go wrong while fetching.
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
    /// A file here cannot be written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
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

    /// Whether trying again may help.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::Network { .. } => true,
            Self::Status { status, .. } => matches!(status, 408 | 429 | 500..),
            _ => false,
        }
    }
}
