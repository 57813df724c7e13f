//! Recipes: distrobuilder's image definitions, unmodified.
//!
//! A recipe is read with positions, so that every problem in it is told at once with its line and
//! the valid choices ([`Recipe::parse`]); then one image is picked out of it ([`Recipe::resolve`]).

mod architectures;
mod bounds;
mod check;
mod filters;
mod model;
mod overrides;
mod pongo;
mod resolve;
mod rules;
mod schema;
mod size;
mod template;

use std::fmt;

pub use model::{
    Action, Definition, EnvVar, Environment, FileEntry, Filter, Image, LxcConfig, Manager, ManagerCommand,
    PackageSet, Packages, Repository, SourceSection, Targets,
};
pub use resolve::{Fallback, Kind, Resolved};
#[cfg(test)]
pub(crate) use rules::CLOUD_INIT_NAMES;
#[cfg(test)]
pub(crate) use schema::MANAGERS;

use crate::{Error, Result};

/// Largest recipe read, in bytes.
const MAX_SIZE: usize = 1 << 20;

/// One thing wrong in a recipe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Line, from 1; 0 when the problem is in an override.
    pub line: usize,
    /// Column, from 1.
    pub column: usize,
    /// What is wrong, and what would be right.
    pub message: String,
}

/// Everything wrong in a recipe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems {
    /// The file's name, as given.
    pub file: String,
    /// At least one.
    pub list: Vec<Problem>,
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, problem) in self.list.iter().enumerate() {
            let newline = if number > 0 { "\n" } else { "" };
            match problem.line {
                0 => write!(f, "{newline}{}: {}", self.file, problem.message)?,
                line => write!(f, "{newline}{}:{line}:{}: {}", self.file, problem.column, problem.message)?,
            }
        }
        Ok(())
    }
}

/// A recipe without problems, not yet bound to one image.
#[derive(Clone, Debug)]
pub struct Recipe {
    file: String,
    value: serde_json::Value,
    positions: check::Positions,
}

impl Recipe {
    /// Reads and checks a recipe; `file` is the name for messages.
    ///
    /// # Errors
    /// All problems found, in the order of their lines.
    pub fn parse(text: &str, file: &str) -> Result<Self> {
        let problems = |list| Error::Recipe(Problems { file: file.to_owned(), list });
        let whole = |message: String| problems(vec![Problem { line: 1, column: 1, message }]);
        if text.len() > MAX_SIZE {
            return Err(whole(format!("{} bytes are more than the {MAX_SIZE} allowed", text.len())));
        }
        bounds::check(text).map_err(|problem| problems(vec![problem]))?;
        // This parser knows of keys that stand twice.
        if let Err(error) = serde_yaml_ng::from_str::<serde_yaml_ng::Value>(text) {
            let (line, column) = error.location().map_or((1, 1), |l| (l.line(), l.column()));
            return Err(problems(vec![Problem { line, column, message: error.to_string() }]));
        }
        let (value, positions) = check::check(text).map_err(problems)?;
        let recipe = Self { file: file.to_owned(), value, positions };
        let wrong = resolve::check(&recipe.definition(&recipe.value)?);
        if wrong.is_empty() { Ok(recipe) } else { Err(recipe.problems(wrong)) }
    }

    /// What looks like a mistake but may be meant.
    pub fn warnings(&self) -> Option<Problems> {
        let wrong = resolve::unknown_architectures(&self.definition(&self.value).ok()?);
        match self.problems(wrong) {
            Error::Recipe(problems) if !problems.list.is_empty() => Some(problems),
            _ => None,
        }
    }

    /// Releases the recipe itself mentions, in aliases and filters.
    fn releases(&self) -> Vec<String> {
        let mut found = std::collections::BTreeSet::new();
        collect_releases(&self.value, &mut found);
        found.into_iter().collect()
    }

    fn definition(&self, value: &serde_json::Value) -> Result<Definition> {
        serde_json::from_value(value.clone()).map_err(|error| self.problem(error.to_string()))
    }

    /// The problems of values, by their paths.
    fn problems(&self, wrong: Vec<(String, String)>) -> Error {
        let mut list: Vec<_> = wrong
            .into_iter()
            .map(|(path, message)| {
                let (line, column) = self.positions.get(&path).copied().unwrap_or_default();
                Problem { line, column, message }
            })
            .collect();
        list.sort_by_key(|problem| (problem.line, problem.column));
        Error::Recipe(Problems { file: self.file.clone(), list })
    }

    fn problem(&self, message: String) -> Error {
        self.problems(vec![("-o".into(), message)])
    }
}

fn collect_releases(value: &serde_json::Value, found: &mut std::collections::BTreeSet<String>) {
    match value {
        serde_json::Value::Object(object) => {
            for (key, value) in object {
                match (key.as_str(), value) {
                    ("releases", serde_json::Value::Array(list)) => {
                        found.extend(list.iter().filter_map(|item| item.as_str().map(str::to_owned)));
                    }
                    ("release_aliases", serde_json::Value::Object(map)) => found.extend(map.keys().cloned()),
                    _ => collect_releases(value, found),
                }
            }
        }
        serde_json::Value::Array(list) => list.iter().for_each(|item| collect_releases(item, found)),
        _ => {}
    }
}
