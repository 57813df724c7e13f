use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{daily, upstream};
use crate::mirror::Filter;
use crate::schedule::Cron;

/// `[[mirror]]`: another server's images, brought at set times; as `millstream mirror` does.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mirror {
    /// What it is called in messages: letters, digits, `.`, `_` and `-`.
    #[serde(deserialize_with = "daily::name")]
    pub name: String,
    /// When, in UTC.
    pub schedule: Cron,
    /// URL or name of a remote.
    pub url: String,
    /// The stream to fill; relative paths begin at the configuration's directory.
    pub root: PathBuf,
    /// Only what one of these patterns matches.
    #[serde(default)]
    pub include: Vec<String>,
    /// Nothing that one of these patterns matches.
    #[serde(default)]
    pub exclude: Vec<String>,
    /// Only these root file systems.
    #[serde(default)]
    pub types: Vec<String>,
    /// So many of the newest images of each product.
    pub latest: Option<u32>,
    /// Public key to believe: a file, or a fingerprint.
    pub key: Option<String>,
    /// Certificates of a private authority, PEM.
    pub ca: Option<PathBuf>,
    /// Believe documents that nobody signed.
    #[serde(default)]
    pub insecure_no_signature: bool,
    /// Name of the key that signs the copy.
    pub sign_with: Option<String>,
    /// Make unified archives of what comes without.
    #[serde(default)]
    pub unified: bool,
    /// Images fetched at once; four without it.
    pub jobs: Option<u8>,
    /// Bytes a second: a number, or text as `"10MB"`.
    #[serde(default, deserialize_with = "upstream::size")]
    pub limit_rate: Option<u64>,
    /// Hours the files of retired images stay; 24 without it.
    pub grace_hours: Option<u32>,
}

impl Mirror {
    /// Checks what types cannot.
    pub(super) fn check(&self) -> Result<(), String> {
        let wrong = |reason: String| Err(format!("[[mirror]] {}: {reason}", self.name));
        if let Err(error) = Filter::new(&self.include, &self.exclude, &self.types) {
            return wrong(error.to_string());
        }
        if self.latest == Some(0) || self.jobs.is_some_and(|jobs| !(1..=32).contains(&jobs)) {
            return wrong("latest is at least 1, jobs from 1 to 32".into());
        }
        if self.grace_hours.is_some_and(|hours| hours > 8760) {
            return wrong("grace_hours is at most 8760".into());
        }
        if self.insecure_no_signature && self.key.is_some() {
            return wrong("key and insecure_no_signature exclude each other".into());
        }
        Ok(())
    }

    /// Paths begin at `dir`.
    pub(super) fn below(&mut self, dir: &Path) {
        self.root = dir.join(&self.root);
        self.ca = self.ca.take().map(|ca| dir.join(ca));
        self.key = self.key.take().map(|key| upstream::key_below(dir, key));
    }

    /// What `millstream` is given to do it.
    pub fn arguments(&self) -> Vec<String> {
        let text = |value: Option<String>| value.into_iter().collect::<Vec<_>>();
        let path = |path: &Option<PathBuf>| text(path.as_ref().map(|path| path.display().to_string()));
        let options = [
            ("--include", self.include.clone()),
            ("--exclude", self.exclude.clone()),
            ("--type", self.types.clone()),
            ("--latest", text(self.latest.map(|n| n.to_string()))),
            ("--key", text(self.key.clone())),
            ("--ca", path(&self.ca)),
            ("--sign-with", text(self.sign_with.clone())),
            ("--jobs", text(self.jobs.map(|n| n.to_string()))),
            ("--limit-rate", text(self.limit_rate.map(|n| n.to_string()))),
            ("--grace", text(self.grace_hours.map(|n| n.to_string()))),
        ];
        let mut arguments = vec!["mirror".to_owned()];
        for (option, values) in options {
            arguments.extend(values.into_iter().map(|value| format!("{option}={value}")));
        }
        if self.insecure_no_signature {
            arguments.push("--insecure-no-signature".into());
        }
        if self.unified {
            arguments.push("--unified".into());
        }
        arguments.extend(["--".into(), self.url.clone(), self.root.display().to_string()]);
        arguments
    }
}
