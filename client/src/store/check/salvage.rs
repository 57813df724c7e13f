//! What can still be read of a damaged index: row by row, until the first that cannot.

use std::collections::BTreeMap;
use std::path::Path;

use chrono::{DateTime, Utc};
use millstream_image::{Alias, Fingerprint};
use rusqlite::Row;

use super::database::open;

/// What is not in `image.json`.
#[derive(Debug)]
pub(super) struct State {
    pub(super) last_used: Option<DateTime<Utc>>,
    pub(super) cached: bool,
    pub(super) auto_update: bool,
}

#[derive(Debug, Default)]
pub(super) struct Salvage {
    pub(super) states: BTreeMap<Fingerprint, State>,
    pub(super) aliases: BTreeMap<Alias, Fingerprint>,
}

impl Salvage {
    /// Adds what a file holds, which may be anything or nothing.
    pub(super) fn add(&mut self, path: &Path) {
        let Ok(db) = open(path) else { return };
        let read = |query: &str, each: &mut dyn FnMut(&Row<'_>) -> rusqlite::Result<()>| {
            let mut statement = db.prepare(query)?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                // A row that means nothing is passed over.
                each(row).unwrap_or_default();
            }
            rusqlite::Result::Ok(())
        };
        // What comes after damage is lost.
        let _: rusqlite::Result<()> =
            read("SELECT fingerprint, last_used, cached, auto_update FROM images", &mut |row| {
                let text: String = row.get(0)?;
                let used: Option<i64> = row.get(1)?;
                let last_used = used.and_then(|seconds| DateTime::from_timestamp(seconds, 0));
                let state = State { last_used, cached: row.get(2)?, auto_update: row.get(3)? };
                if let Ok(fingerprint) = text.parse() {
                    self.states.insert(fingerprint, state);
                }
                Ok(())
            });
        let _: rusqlite::Result<()> = read("SELECT name, fingerprint FROM aliases", &mut |row| {
            let (name, meaning): (String, String) = (row.get(0)?, row.get(1)?);
            if let (Ok(name), Ok(meaning)) = (name.parse(), meaning.parse()) {
                self.aliases.insert(name, meaning);
            }
            Ok(())
        });
    }
}
