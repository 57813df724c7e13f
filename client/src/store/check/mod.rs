//! Looking for everything that may be wrong with a store, and healing it.
//!
//! Whoever is at work on an image has its directory locked; such images are left alone. Each step of a
//! repair is one that the store survives being killed in: an image leaves by one rename and then loses its
//! row, as when it is deleted, and a new index is complete before it takes the place of the old one.

mod database;
mod images;
mod salvage;
mod strays;

use std::path::Path;
use std::thread;
use std::time::Duration;

use super::Store;
use crate::problem::{Kind, Mender};
use crate::{Error, Result};

/// How long another process needs for the two steps of an arrival or a departure.
const MOMENT: Duration = Duration::from_millis(300);

/// Looks at the store in `dir`, and at every byte of its images. Nothing there: nothing wrong.
///
/// # Errors
/// When it cannot be looked at: another process has it for long, its format is newer, or its directory
/// cannot be read.
pub fn check(dir: &Path, mender: &mut Mender) -> Result<()> {
    if !dir.exists() {
        return Ok(());
    }
    let damage = database::damage(dir)?;
    let mut usable = damage.is_none();
    if let Some(reason) = damage {
        let path = dir.join(super::DATABASE);
        usable = mender.found(Kind::Database, &path, reason, || database::rebuild(dir)).repaired.is_some();
    }
    // Images alone can be looked at without an index.
    let store = if usable { Some(Store::open_as_it_is(dir)?) } else { None };
    let rows = match &store {
        Some(store) => Some(database::check(store, mender)?),
        None => None,
    };
    images::check(dir, store.as_ref(), rows.as_ref(), mender)?;
    if let (Some(store), Some(rows)) = (&store, &rows) {
        missing(store, rows, mender)?;
    }
    strays::check(dir, mender)
}

/// Rows whose directory is gone.
fn missing(store: &Store, rows: &database::Rows, mender: &mut Mender) -> Result<()> {
    let gone = |fingerprint: &_| !store.path(*fingerprint).exists();
    let listed: Vec<_> = rows.keys().copied().filter(gone).collect();
    if listed.is_empty() {
        return Ok(());
    }
    // Another process may be deleting it.
    thread::sleep(MOMENT);
    for fingerprint in listed {
        let Some((record, state)) = store.index().get(fingerprint)? else { continue };
        if !gone(&fingerprint) {
            continue;
        }
        let path = store.path(fingerprint);
        let forget = || {
            store.index().remove(fingerprint)?;
            Ok::<_, Error>(images::without_names("it is listed no more", &state.aliases))
        };
        let problem = mender.found(Kind::MissingImage, &path, "the image is listed, but not here", forget);
        problem.advice = problem.advice.take().or_else(|| images::advice(&record, &state.aliases));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
