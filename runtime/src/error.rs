use std::path::{Path, PathBuf};

/// What can go wrong while running programs in namespaces.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused something.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or directory concerned.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
    /// The sandbox could not be set up.
    #[error("cannot set up a sandbox in {}: {reason}", rootfs.display())]
    Setup {
        /// The root file system concerned.
        rootfs: PathBuf,
        /// Which step failed and why.
        reason: String,
    },
    /// An ordinary user could not be made root of a user namespace.
    #[error("cannot work without root here: {reason}")]
    UserNamespace {
        /// What is missing, and how to get it.
        reason: String,
    },
    /// The program ran longer than allowed and was ended with everything it had started.
    #[error("{program} ran longer than {seconds} seconds and was ended")]
    Timeout {
        /// The program.
        program: String,
        /// The limit.
        seconds: u64,
    },
    /// The user asked to stop.
    #[error("interrupted")]
    Cancelled,
}

/// Result with this crate's error.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn io(path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        move |source| Self::Io { path, source }
    }
}
