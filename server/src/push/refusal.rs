//! Why a push cannot go on, in terms of what whoever pushes can do about it.

use std::io::ErrorKind;

use crate::Error;

/// An answer other than success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) kind: Kind,
    /// For whoever pushes; names no path of the server.
    pub(crate) reason: String,
    /// How much of the file is there, where a piece did not fit.
    pub(crate) offset: Option<u64>,
    /// For the operator's log.
    pub(crate) detail: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Malformed.
    Bad,
    /// Not in an area of theirs.
    Forbidden,
    /// No such upload.
    Missing,
    /// Contradicts what is here; when that is an upload, sending what is missing mends it.
    Conflict,
    /// Beyond what is allowed.
    TooLarge,
    /// What came is no image, or another one than was announced.
    Unusable,
    /// Too many at once.
    TooMany,
    /// The server failed.
    Failed,
    /// The disk is full.
    Full,
}

impl Refusal {
    pub(crate) fn new(kind: Kind, reason: impl Into<String>) -> Self {
        Self { kind, reason: reason.into(), offset: None, detail: None }
    }

    /// Bytes that do not begin where the file ends.
    pub(crate) fn misplaced(offset: u64) -> Self {
        let reason = format!("{offset} bytes of this file are here; go on there");
        Self { offset: Some(offset), ..Self::new(Kind::Conflict, reason) }
    }
}

/// Failures of the server's own; what they say of paths is for its log.
impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let full = |source: &std::io::Error| {
            matches!(
                source.kind(),
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge
            )
        };
        let (kind, reason) = match &error {
            Error::Io { source, .. } if full(source) => {
                (Kind::Full, "the server's disk is full; what has come is kept")
            }
            _ => (Kind::Failed, "the server failed; its log says why"),
        };
        Self { detail: Some(error.to_string()), ..Self::new(kind, reason) }
    }
}
