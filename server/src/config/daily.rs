use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, de::Error as _};

use super::PushTo;
use crate::schedule::Cron;

/// Most images one `[[daily]]` may stand for.
const MOST: usize = 1000;

/// `[[daily]]`: images built at set times and published into a stream.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Daily {
    /// What it is called in lists: letters, digits, `.`, `_` and `-`.
    #[serde(deserialize_with = "name")]
    pub name: String,
    /// When, in UTC.
    pub schedule: Cron,
    /// The recipe; relative paths begin at the configuration's directory.
    pub recipe: PathBuf,
    /// Root of the stream; `[serve]`'s without it.
    pub stream: Option<PathBuf>,
    /// Which images; without it the one the recipe describes.
    #[serde(default)]
    pub matrix: Matrix,
    /// Overrides of the recipe, `KEY=VALUE` as with `build -o`.
    #[serde(default)]
    pub options: Vec<String>,
    /// How many are built at the same time.
    #[serde(default = "one")]
    pub parallel: u32,
    /// What is made, as with `build --format`.
    #[serde(default)]
    pub formats: Vec<String>,
    /// How archives are compressed, as with `build --compression`; streams hold xz only.
    pub compression: Option<String>,
    /// Whether each image is started before it is published: `true`, or `"network"` for a test that
    /// gives it a network.
    #[serde(default)]
    pub test: Test,
    /// Keep so many of the newest images of each product.
    pub keep: Option<u32>,
    /// Keep images made within so many days.
    pub days: Option<u32>,
    /// Hours the files of a retired image stay.
    #[serde(default = "grace")]
    pub grace_hours: u32,
    /// Hours a build may take.
    #[serde(default = "timeout")]
    pub timeout_hours: u32,
    /// Name of the signing key; the stream's own without it.
    pub key: Option<String>,
    /// Where images go besides.
    pub push: Option<PushTo>,
    /// Shell command run for each build that fails, with the details as JSON on its input.
    pub on_failure: Option<String>,
    /// URL the same JSON is sent to.
    pub webhook: Option<String>,
}

/// How images are tested before they are published.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "TestValue")]
pub enum Test {
    /// Not at all.
    #[default]
    No,
    /// They are started.
    Boot,
    /// They are started, with a network.
    Network,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum TestValue {
    Switch(bool),
    Word(String),
}

impl TryFrom<TestValue> for Test {
    type Error = String;

    fn try_from(value: TestValue) -> Result<Self, String> {
        match value {
            TestValue::Switch(false) => Ok(Self::No),
            TestValue::Switch(true) => Ok(Self::Boot),
            TestValue::Word(word) if word == "network" => Ok(Self::Network),
            TestValue::Word(word) => Err(format!("test is true, false or \"network\", not {word:?}")),
        }
    }
}

/// All combinations of these are built; an empty list leaves it to the recipe.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Matrix {
    /// `image.release`.
    pub release: Vec<String>,
    /// `image.architecture`.
    pub architecture: Vec<String>,
    /// `image.variant`.
    pub variant: Vec<String>,
}

impl Daily {
    /// For each image of the matrix, the overrides that pick it out of the recipe.
    pub fn cells(&self) -> Vec<Vec<String>> {
        let axes = [
            ("release", &self.matrix.release),
            ("architecture", &self.matrix.architecture),
            ("variant", &self.matrix.variant),
        ];
        let mut cells = vec![self.options.clone()];
        for (key, values) in axes.into_iter().filter(|(_, values)| !values.is_empty()) {
            let with = |cell: &Vec<String>, value: &String| {
                let mut cell = cell.clone();
                cell.push(format!("image.{key}={value}"));
                cell
            };
            cells = cells.iter().flat_map(|cell| values.iter().map(move |value| with(cell, value))).collect();
        }
        cells
    }

    /// Checks what types cannot.
    pub(super) fn check(&self) -> Result<(), String> {
        let wrong = |reason: &str| Err(format!("[[daily]] {}: {reason}", self.name));
        let Matrix { release, architecture, variant } = &self.matrix;
        let cells = [release, architecture, variant].map(|axis| axis.len().max(1));
        if cells.iter().try_fold(1_usize, |all, axis| all.checked_mul(*axis)).is_none_or(|n| n > MOST) {
            return wrong("the matrix has more than 1000 images; divide it");
        }
        if !(1..=64).contains(&self.parallel) {
            return wrong("parallel is a number from 1 to 64");
        }
        if self.keep == Some(0) {
            return wrong("keep is at least 1");
        }
        if self.grace_hours > 8760 || !(1..=168).contains(&self.timeout_hours) {
            return wrong("grace_hours is at most 8760, timeout_hours from 1 to 168");
        }
        if let Some(option) = self.options.iter().find(|option| !option.contains('=')) {
            return wrong(&format!("options are KEY=VALUE, not {}", option.escape_debug()));
        }
        match self.webhook.as_deref().map(url::Url::parse) {
            Some(Ok(url)) if matches!(url.scheme(), "http" | "https") => Ok(()),
            None => Ok(()),
            Some(_) => wrong("webhook is no http or https URL"),
        }
    }

    /// Paths begin at `dir`.
    pub(super) fn below(&mut self, dir: &Path) {
        self.recipe = dir.join(&self.recipe);
        self.stream = self.stream.take().map(|stream| dir.join(stream));
        if let Some(push) = &mut self.push {
            push.below(dir);
        }
    }
}

/// A name that can be one of files.
pub(super) fn name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let name = String::deserialize(deserializer)?;
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if name.is_empty() || name.len() > 64 || name.starts_with('.') || !name.chars().all(good) {
        return Err(D::Error::custom("a name has 1 to 64 letters, digits, '.', '_', '-', no dot first"));
    }
    Ok(name)
}

fn one() -> u32 {
    1
}

fn grace() -> u32 {
    24
}

fn timeout() -> u32 {
    6
}
