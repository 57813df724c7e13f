//! Everything in a tree checked against its key: signatures, hashes, references, and that nothing
//! lies there which no document knows.

mod documents;
mod images;
mod strays;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use millstream_image::openpgp::Keyring;
use serde::Serialize;

use super::Stream;
use super::catalogue;
use super::lock::Lock;
use crate::Result;

/// What a check of a whole tree found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Images checked.
    pub images: usize,
    /// Files read.
    pub files: usize,
    /// Bytes hashed.
    pub bytes: u64,
    /// Everything that is wrong, by path.
    pub problems: Vec<Problem>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Problem {
    /// The file or directory, from the root of the tree.
    pub path: PathBuf,
    /// What is wrong with it.
    pub reason: String,
}

impl Stream {
    /// Checks everything at the time `now`. Publishers wait only while names are read, not while
    /// images are hashed.
    ///
    /// # Errors
    /// When the tree cannot be read at all; whatever is wrong with its contents is in the report.
    pub fn verify(&self, now: SystemTime) -> Result<Report> {
        let lock = Lock::shared(&self.root)?;
        let keyring = self.keyring()?;
        let check = Check::new(&self.root, &keyring, now);
        check.links();
        let products = check.documents();
        let images: Vec<_> = products.iter().flat_map(catalogue::images).collect();
        check.strays(&images);
        drop(lock);
        check.images(&images);
        Ok(check.finish(images.len()))
    }
}

impl Stream {
    /// The same for a tree whose images are not all here at once: `bring` is told to have the files of an
    /// image here, by its path from the root, and afterwards that they may go.
    pub(crate) fn verify_in_turn(
        &self,
        now: SystemTime,
        mut bring: impl FnMut(&Path, Bring) -> Result<()>,
    ) -> Result<Report> {
        let keyring = self.keyring()?;
        let check = Check::new(&self.root, &keyring, now);
        let products = check.documents();
        let images: Vec<_> = products.iter().flat_map(catalogue::images).collect();
        check.strays(&images);
        for image in &images {
            let path = image.0.image_path(image.1);
            if check.or_problem(&path, bring(&path, Bring::Here)).is_some() {
                check.images(std::slice::from_ref(image));
            }
            bring(&path, Bring::Away)?;
        }
        Ok(check.finish(images.len()))
    }
}

/// What is to become of an image's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bring {
    /// They are to be read.
    Here,
    /// They have been.
    Away,
}

/// A check under way.
pub(super) struct Check<'a> {
    root: &'a Path,
    keyring: &'a Keyring,
    now: SystemTime,
    report: Mutex<Report>,
}

impl<'a> Check<'a> {
    pub(super) fn new(root: &'a Path, keyring: &'a Keyring, now: SystemTime) -> Self {
        Self { root, keyring, now, report: Mutex::default() }
    }

    pub(super) fn finish(self, images: usize) -> Report {
        let mut report = self.report.into_inner().unwrap_or_else(PoisonError::into_inner);
        report.images = images;
        report.problems.sort();
        report.problems.dedup();
        report
    }

    fn with_report(&self, change: impl FnOnce(&mut Report)) {
        change(&mut self.report.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn problem(&self, path: impl AsRef<Path>, reason: impl Into<String>) {
        let problem = Problem { path: path.as_ref().to_path_buf(), reason: reason.into() };
        self.with_report(|report| report.problems.push(problem));
    }

    /// The value, or a problem.
    fn or_problem<T>(&self, path: impl AsRef<Path>, result: Result<T, impl ToString>) -> Option<T> {
        result.map_err(|error| self.problem(path, error.to_string())).ok()
    }

    fn read(&self, path: &str) -> Option<Vec<u8>> {
        let bytes = self.or_problem(path, fs::read(self.root.join(path)))?;
        self.with_report(|report| {
            report.files += 1;
            report.bytes += bytes.len() as u64;
        });
        Some(bytes)
    }
}
