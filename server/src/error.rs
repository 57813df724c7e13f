use std::path::{Path, PathBuf};

/// What can go wrong with trees, keys and the service.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An archive, document, key or signature is not as it must be.
    #[error("{}: {source}", path.display())]
    Image {
        /// The file or directory concerned.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: millstream_image::Error,
    },
    /// A directory is no stream, or not one that can be written.
    #[error("{}: {reason}", path.display())]
    Tree {
        /// The stream's root, or the file in it.
        path: PathBuf,
        /// What is wrong and what to do.
        reason: String,
    },
    /// An image cannot be added.
    #[error("{}: not added: {reason}", dir.display())]
    Refused {
        /// The image's directory.
        dir: PathBuf,
        /// Why not, and what to do.
        reason: String,
    },
    /// A key is missing, in the way, or too widely readable.
    #[error("key {name}: {reason}")]
    Key {
        /// The key's name.
        name: String,
        /// What is wrong and what to do.
        reason: String,
    },
    /// A certificate cannot be made, read or used.
    #[error("{}: {reason}", path.display())]
    Tls {
        /// The file concerned.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A configuration cannot be used.
    #[error("{}: {reason}", path.display())]
    Config {
        /// The configuration file.
        path: PathBuf,
        /// What is wrong with it, and in which line.
        reason: String,
    },
    /// The history of builds cannot be read or written.
    #[error("{}: {reason}", path.display())]
    History {
        /// The database.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {reason}")]
    Listen {
        /// The address as given.
        address: String,
        /// Why not, and what to do.
        reason: String,
    },
    /// A name or path cannot stand in a web server's configuration.
    #[error("\"{}\": {reason}", value.escape_debug())]
    Hosting {
        /// As given.
        value: String,
        /// Why not, and what to do.
        reason: String,
    },
    /// A filter's pattern cannot be used.
    #[error("pattern \"{}\": {reason}", pattern.escape_debug())]
    Pattern {
        /// As given.
        pattern: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An upstream server, or what came from it, cannot be used.
    #[error(transparent)]
    Upstream(#[from] millstream_client::Error),
    /// A server did not take an image.
    #[error("{url}: {reason}")]
    Push {
        /// The server, or what was sent there.
        url: String,
        /// Why not, and what to do.
        reason: String,
    },
    /// A shared storage, or what is in it, cannot be used.
    #[error("{address}: {reason}")]
    Storage {
        /// Its address, or the object's.
        address: String,
        /// Why not, and what to do.
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
    pub(crate) fn io(path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        move |source| Self::Io { path, source }
    }

    pub(crate) fn image(path: impl AsRef<Path>) -> impl FnOnce(millstream_image::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        move |source| match source {
            // It names its path itself.
            millstream_image::Error::Io { path, source } => Self::Io { path, source },
            source => Self::Image { path, source },
        }
    }

    pub(crate) fn tree(path: impl AsRef<Path>, reason: impl Into<String>) -> Self {
        Self::Tree { path: path.as_ref().to_path_buf(), reason: reason.into() }
    }

    pub(crate) fn storage(address: impl std::fmt::Display, reason: impl Into<String>) -> Self {
        Self::Storage { address: address.to_string(), reason: reason.into() }
    }

    pub(crate) fn key(name: &str, reason: impl Into<String>) -> Self {
        Self::Key { name: name.escape_debug().to_string(), reason: reason.into() }
    }

    pub(crate) fn tls(path: impl AsRef<Path>, reason: impl std::fmt::Display) -> Self {
        Self::Tls { path: path.as_ref().to_path_buf(), reason: reason.to_string() }
    }
}
