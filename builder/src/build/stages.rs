//! The stages of a build: told to the user as they begin, timed, and noted with why they were run.

use std::cell::RefCell;
use std::time::Instant;

use crate::Result;

/// Something to tell the user.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// A stage begins.
    Begin(&'a str),
    /// Something worth knowing, in one line.
    Note(&'a str),
}

/// A stage that is over.
#[derive(Clone, Debug)]
pub struct Stage {
    /// `bootstrap`, `packages`, `files`, `pack`, `test`.
    pub name: String,
    /// How long it took.
    pub seconds: f64,
    /// What came out of a cache, or why it did not; may be empty.
    pub note: String,
}

/// The stages of one build.
pub(super) struct Stages<'a> {
    report: &'a dyn Fn(Event<'_>),
    done: RefCell<Vec<Stage>>,
}

impl<'a> Stages<'a> {
    pub(super) fn new(report: &'a dyn Fn(Event<'_>)) -> Self {
        Self { report, done: RefCell::default() }
    }

    /// Runs one.
    pub(super) fn run<T>(&self, name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        (self.report)(Event::Begin(name));
        let started = Instant::now();
        let result = work();
        let seconds = started.elapsed().as_secs_f64();
        self.done.borrow_mut().push(Stage { name: name.to_owned(), seconds, note: String::new() });
        result
    }

    /// Says something about the stage that was run last.
    pub(super) fn note(&self, text: &str) {
        if let Some(last) = self.done.borrow_mut().last_mut() {
            text.clone_into(&mut last.note);
        }
    }

    /// As a manifest records them.
    pub(super) fn durations(&self) -> Vec<(String, f64)> {
        self.done.borrow().iter().map(|stage| (stage.name.clone(), stage.seconds)).collect()
    }

    pub(super) fn into_done(self) -> Vec<Stage> {
        self.done.into_inner()
    }
}
