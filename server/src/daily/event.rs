//! What `millstream build --events` tells on standard output while it works, a line of JSON each.
//! Any other line is the directory of the image it published.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// A stage begins.
    Stage {
        /// Its name.
        name: String,
    },
    /// The image is there, and about to be published.
    Built {
        /// Nothing had to be built.
        unchanged: bool,
        /// Seconds of each stage.
        stages: Vec<(String, f64)>,
        /// Whether it was started for a test, which it passed.
        tested: bool,
    },
    /// The same image is being built by somebody else.
    Busy,
    /// It failed.
    Failed {
        /// Why.
        reason: String,
        /// Whether it was the boot test that did.
        in_test: bool,
        /// The builder's whole log.
        log: Option<PathBuf>,
    },
}

impl Event {
    /// As a line, with its end.
    pub fn to_line(&self) -> String {
        serde_json::to_string(self).unwrap_or_default() + "\n"
    }

    /// Reads a line; `None` when it is something else.
    pub fn parse(line: &str) -> Option<Self> {
        line.starts_with('{').then(|| serde_json::from_str(line).ok()).flatten()
    }
}
