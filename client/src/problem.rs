//! What a check finds wrong with images kept here.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// What kind of thing is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The index cannot be read, or contradicts itself.
    Database,
    /// A row of the index cannot be read, or says other than `image.json`.
    Row,
    /// A name means no image.
    Alias,
    /// The index lists an image whose directory is gone.
    MissingImage,
    /// An image is here, and the index does not list it.
    UnlistedImage,
    /// `image.json` is missing or damaged.
    Record,
    /// A file of an image is missing.
    MissingFile,
    /// An image's files are not as long as they were.
    WrongSize,
    /// An image's files do not have the digest they must have.
    WrongHash,
    /// A file cannot be read.
    Unreadable,
    /// A file or directory that nothing needs.
    Stray,
    /// What a download, import, deletion or unpacking left that was cut short.
    Staging,
    /// What was seen of a remote cannot be read.
    Trust,
    /// The table of remotes cannot be read.
    Remotes,
    /// An unpacked image that containers rest on is missing or incomplete.
    Tree,
    /// An unpacked image that no container rests on, of an image that is not in the store.
    UnusedTree,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Database => "database",
            Self::Row => "row",
            Self::Alias => "alias",
            Self::MissingImage => "missing image",
            Self::UnlistedImage => "unlisted image",
            Self::Record => "record",
            Self::MissingFile => "missing file",
            Self::WrongSize => "wrong size",
            Self::WrongHash => "wrong hash",
            Self::Unreadable => "unreadable",
            Self::Stray => "stray",
            Self::Staging => "staging",
            Self::Trust => "trust",
            Self::Remotes => "remotes",
            Self::Tree => "unpacked image",
            Self::UnusedTree => "unused image",
        };
        f.pad(text)
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// What kind of thing.
    pub kind: Kind,
    /// Where.
    pub path: PathBuf,
    /// What is wrong there.
    pub reason: String,
    /// What was done about it; none: it is as it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repaired: Option<String>,
    /// What else there is to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

/// What was looked at, and what is wrong with it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Images whose files were read.
    pub images: usize,
    /// In the order found.
    pub problems: Vec<Problem>,
}

/// Gathers problems, and heals them where that is wanted.
#[derive(Debug)]
pub struct Mender {
    repair: bool,
    /// What was found so far.
    pub report: Report,
}

impl Mender {
    /// One that has found nothing yet; `repair`: heal what can be healed.
    pub fn new(repair: bool) -> Self {
        Self { repair, report: Report::default() }
    }

    /// Whether it heals.
    pub fn repairs(&self) -> bool {
        self.repair
    }

    /// Notes a problem. `heal` is called where healing is wanted; it says what it did, or why it could
    /// not.
    pub fn found<E: fmt::Display>(
        &mut self,
        kind: Kind,
        path: &Path,
        reason: impl Into<String>,
        heal: impl FnOnce() -> Result<String, E>,
    ) -> &mut Problem {
        let mut problem =
            Problem { kind, path: path.to_owned(), reason: reason.into(), repaired: None, advice: None };
        if self.repair {
            match heal() {
                Ok(done) => problem.repaired = Some(done),
                Err(error) => problem.advice = Some(error.to_string()),
            }
        }
        self.report.problems.push(problem);
        let last = self.report.problems.len() - 1;
        &mut self.report.problems[last]
    }

    /// Notes a problem that nobody but the user can do something about.
    pub fn told(&mut self, kind: Kind, path: &Path, reason: impl Into<String>, advice: impl Into<String>) {
        let problem = Problem {
            kind,
            path: path.to_owned(),
            reason: reason.into(),
            repaired: None,
            advice: Some(advice.into()),
        };
        self.report.problems.push(problem);
    }
}
