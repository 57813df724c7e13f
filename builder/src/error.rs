use std::path::{Path, PathBuf};

/// What can go wrong in a build.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The recipe has problems; all of them, a line each.
    #[error("{0}")]
    Recipe(crate::recipe::Problems),
    /// A document is not signed as it must be, or is for something else.
    #[error("{what}: refused: {reason}")]
    Untrusted {
        /// URL of the document.
        what: String,
        /// Why it is not believed.
        reason: String,
    },
    /// A mirror does not carry a release.
    #[error(
        "{url}: this mirror has no release {release}; check image.release (or source.suite) and source.url{known}"
    )]
    NoRelease {
        /// What was asked for.
        url: String,
        /// The suite.
        release: String,
        /// A hint on what else there is; may be empty.
        known: String,
    },
    /// What was asked for does not exist or cannot be done; the message says what to do instead.
    #[error("{0}")]
    Refused(String),
    /// A package file is broken.
    #[error("{}: {reason}", file.display())]
    Package {
        /// The file in the cache.
        file: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A script of the recipe or of a package failed.
    #[error("{what} failed ({status}); its last lines:\n  {last}")]
    Script {
        /// What it was for.
        what: String,
        /// How it ended.
        status: String,
        /// The end of its output.
        last: String,
    },
    /// A fresh image does not boot as it should.
    #[error("the boot test failed: {reason}{}", shown(console))]
    BootTest {
        /// What did not come up, with what the system said about it.
        reason: String,
        /// The last lines of its console.
        console: Vec<String>,
    },
    /// A build failed after it had begun; its log is kept.
    #[error("{source}\nthe whole log: {}", log.display())]
    Logged {
        /// The log.
        log: PathBuf,
        /// What failed.
        #[source]
        source: Box<Error>,
    },
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
    /// From the image room.
    #[error(transparent)]
    Image(#[from] millstream_image::Error),
    /// From the client room.
    #[error(transparent)]
    Client(#[from] millstream_client::Error),
    /// From the runtime room.
    #[error(transparent)]
    Runtime(#[from] millstream_runtime::Error),
    /// Something that should not happen.
    #[error("internal error: {0}")]
    Internal(String),
}

/// Result with this crate's error.
pub type Result<T, E = Error> = std::result::Result<T, E>;

fn shown(console: &[String]) -> String {
    if console.is_empty() {
        return String::new();
    }
    format!("\nthe last lines of its console:\n  {}", console.join("\n  "))
}

impl Error {
    pub(crate) fn io(path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        move |source| Self::Io { path, source }
    }
}
