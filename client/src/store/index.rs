//! The store's index in SQLite.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use millstream_image::{Alias, Fingerprint};
use rusqlite::types::Type;
use rusqlite::{Connection, ErrorCode, OptionalExtension, Row, Transaction, TransactionBehavior, params};

use super::Record;
use crate::{Error, Result};

/// How long a process waits for another one's write.
pub(super) const BUSY: Duration = Duration::from_secs(10);
const BUSY_POLL: Duration = Duration::from_millis(20);

/// One step a version; `user_version` counts the steps done.
const MIGRATIONS: &[&str] = &[
    "
    CREATE TABLE images (
        fingerprint TEXT PRIMARY KEY NOT NULL,
        record      TEXT NOT NULL, -- as image.json; cached and auto_update are the columns'
        stored      INTEGER NOT NULL,
        last_used   INTEGER,
        cached      INTEGER NOT NULL,
        auto_update INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE aliases (
        name        TEXT PRIMARY KEY NOT NULL,
        fingerprint TEXT NOT NULL REFERENCES images (fingerprint) ON DELETE CASCADE
    ) STRICT;
    CREATE INDEX aliases_of ON aliases (fingerprint);
",
    "
    ALTER TABLE images ADD COLUMN looked INTEGER; -- when a newer one was last looked for
",
];

/// The version of what is written here.
pub(super) const VERSION: usize = MIGRATIONS.len();

const COLUMNS: &str = "SELECT fingerprint, record, last_used, cached, auto_update, looked FROM images";

/// What changes while an image is here.
#[derive(Debug)]
pub(super) struct State {
    pub aliases: Vec<Alias>,
    pub last_used: Option<DateTime<Utc>>,
    pub looked: Option<DateTime<Utc>>,
}

#[derive(Debug)]
pub(super) struct Index {
    path: PathBuf,
    db: Connection,
}

impl Index {
    pub(super) fn open(path: &Path) -> Result<Self> {
        // Whoever can read it can lock it.
        let mut options = fs::OpenOptions::new();
        options.create(true).truncate(false).write(true).mode(0o600);
        drop(options.open(path).map_err(Error::io(path))?);
        let db = Connection::open(path).map_err(|e| fault(path, &e))?;
        let index = Self { path: path.to_owned(), db };
        index.run(|db| {
            db.busy_timeout(BUSY)?;
            db.pragma_update(None, "journal_mode", "WAL")?;
            db.pragma_update(None, "synchronous", "FULL")?;
            db.pragma_update(None, "foreign_keys", true)
        })?;
        index.migrate()?;
        Ok(index)
    }

    fn migrate(&self) -> Result<()> {
        let done = self.run(|db| {
            let transaction = Transaction::new_unchecked(db, TransactionBehavior::Immediate)?;
            let done: u32 = transaction.query_row("PRAGMA user_version", [], |row| row.get(0))?;
            let steps = MIGRATIONS.get(done as usize..).unwrap_or_default();
            steps.iter().try_for_each(|step| transaction.execute_batch(step))?;
            if !steps.is_empty() {
                transaction.pragma_update(None, "user_version", MIGRATIONS.len() as u32)?;
            }
            transaction.commit()?;
            Ok(done as usize)
        })?;
        if done > VERSION { Err(too_new(&self.path, done)) } else { Ok(()) }
    }

    /// Closes it as one file, with no log beside it.
    pub(super) fn close(self) -> Result<()> {
        self.run(|db| db.pragma_update(None, "journal_mode", "DELETE"))?;
        self.db.close().map_err(|(_, e)| fault(&self.path, &e))
    }

    /// Every image, the newest arrival first.
    pub(super) fn all(&self) -> Result<Vec<(Record, State)>> {
        self.run(|db| {
            let mut by_image: BTreeMap<Fingerprint, Vec<Alias>> = BTreeMap::new();
            for (alias, fingerprint) in aliases(db)? {
                by_image.entry(fingerprint).or_default().push(alias);
            }
            let mut statement = db.prepare_cached(&format!("{COLUMNS} ORDER BY stored DESC, fingerprint"))?;
            let rows = statement.query_map([], |row| {
                let mut image = image(row)?;
                image.1.aliases = by_image.remove(&image.0.fingerprint).unwrap_or_default();
                Ok(image)
            })?;
            rows.collect()
        })
    }

    pub(super) fn get(&self, fingerprint: Fingerprint) -> Result<Option<(Record, State)>> {
        self.run(|db| {
            let mut statement = db.prepare_cached(&format!("{COLUMNS} WHERE fingerprint = ?1"))?;
            let Some(mut found) = statement.query_row([fingerprint.to_string()], image).optional()? else {
                return Ok(None);
            };
            let mut names =
                db.prepare_cached("SELECT name FROM aliases WHERE fingerprint = ?1 ORDER BY name")?;
            let names = names.query_map([fingerprint.to_string()], |row| parsed(row, 0))?;
            found.1.aliases = names.collect::<Result<_, _>>()?;
            Ok(Some(found))
        })
    }

    pub(super) fn alias(&self, alias: &Alias) -> Result<Option<Fingerprint>> {
        self.run(|db| {
            let mut statement = db.prepare_cached("SELECT fingerprint FROM aliases WHERE name = ?1")?;
            statement.query_row([alias.as_str()], |row| parsed(row, 0)).optional()
        })
    }

    /// Fingerprints that begin with these lower-case hex digits.
    pub(super) fn with_prefix(&self, prefix: &str) -> Result<Vec<Fingerprint>> {
        self.run(|db| {
            let query = "SELECT fingerprint FROM images WHERE fingerprint >= ?1 AND fingerprint < ?1 || 'g'";
            let mut statement = db.prepare_cached(query)?;
            let rows = statement.query_map([prefix], |row| parsed(row, 0))?;
            rows.collect()
        })
    }

    pub(super) fn insert(&self, record: &Record) -> Result<()> {
        let text = serde_json::to_string(record).map_err(|e| Error::document("image record", e))?;
        self.run(|db| {
            db.execute(
                "INSERT INTO images (fingerprint, record, stored, cached, auto_update)
                 VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING",
                params![
                    record.fingerprint.to_string(),
                    text,
                    record.stored.timestamp(),
                    record.cached,
                    record.auto_update
                ],
            )
        })
        .map(drop)
    }

    pub(super) fn remove(&self, fingerprint: Fingerprint) -> Result<()> {
        self.run(|db| db.execute("DELETE FROM images WHERE fingerprint = ?1", [fingerprint.to_string()]))
            .map(drop)
    }

    /// Adds an alias, over another meaning only if `replace`; tells what it meant before.
    pub(super) fn add_alias(
        &self,
        alias: &Alias,
        fingerprint: Fingerprint,
        replace: bool,
    ) -> Result<Option<Fingerprint>> {
        let before = self.alias(alias)?;
        let conflict =
            if replace { "DO UPDATE SET fingerprint = excluded.fingerprint" } else { "DO NOTHING" };
        self.run(|db| {
            let query =
                format!("INSERT INTO aliases (name, fingerprint) VALUES (?1, ?2) ON CONFLICT {conflict}");
            db.execute(&query, [alias.as_str(), &fingerprint.to_string()])
        })?;
        Ok(before)
    }

    pub(super) fn remove_alias(&self, alias: &Alias) -> Result<bool> {
        self.run(|db| db.execute("DELETE FROM aliases WHERE name = ?1", [alias.as_str()]))
            .map(|count| count > 0)
    }

    /// Gives an alias another name; `false` when there is none of the old one.
    pub(super) fn rename_alias(&self, from: &Alias, to: &Alias) -> Result<bool> {
        let query = "UPDATE aliases SET name = ?2 WHERE name = ?1";
        self.run(|db| db.execute(query, [from.as_str(), to.as_str()])).map(|count| count > 0)
    }

    /// Replaces what is said of an image that is here.
    pub(super) fn update(&self, record: &Record) -> Result<()> {
        let text = serde_json::to_string(record).map_err(|e| Error::document("image record", e))?;
        let query = "UPDATE images SET record = ?2 WHERE fingerprint = ?1";
        self.run(|db| db.execute(query, params![record.fingerprint.to_string(), text])).map(drop)
    }

    pub(super) fn aliases(&self) -> Result<BTreeMap<Alias, Fingerprint>> {
        self.run(|db| Ok(aliases(db)?.into_iter().collect()))
    }

    pub(super) fn touch(&self, fingerprint: Fingerprint, now: DateTime<Utc>) -> Result<()> {
        let query = "UPDATE images SET last_used = ?2 WHERE fingerprint = ?1";
        self.run(|db| db.execute(query, params![fingerprint.to_string(), now.timestamp()])).map(drop)
    }

    pub(super) fn note_look(&self, fingerprint: Fingerprint, now: DateTime<Utc>) -> Result<()> {
        let query = "UPDATE images SET looked = ?2 WHERE fingerprint = ?1";
        self.run(|db| db.execute(query, params![fingerprint.to_string(), now.timestamp()])).map(drop)
    }

    pub(super) fn set_flags(&self, fingerprint: Fingerprint, cached: bool, auto_update: bool) -> Result<()> {
        let query = "UPDATE images SET cached = ?2, auto_update = ?3 WHERE fingerprint = ?1";
        self.run(|db| db.execute(query, params![fingerprint.to_string(), cached, auto_update])).map(drop)
    }

    /// Waits for other processes also where SQLite itself does not: while one of them recovers
    /// the log of a killed process, or is the last to close.
    pub(super) fn run<T>(&self, work: impl Fn(&Connection) -> rusqlite::Result<T>) -> Result<T> {
        let began = Instant::now();
        loop {
            match work(&self.db) {
                Err(error) if is_busy(&error) && began.elapsed() < BUSY => thread::sleep(BUSY_POLL),
                other => return other.map_err(|e| fault(&self.path, &e)),
            }
        }
    }
}

fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

/// Asks for one row of each table.
pub(super) fn probe(db: &Connection) -> rusqlite::Result<()> {
    db.prepare(COLUMNS)?.exists([])?;
    db.prepare("SELECT name, fingerprint FROM aliases")?.exists([]).map(drop)
}

/// All rows with what is wrong with each that means nothing.
pub(super) fn records(db: &Connection) -> rusqlite::Result<Vec<(String, Result<Record, String>)>> {
    let mut statement = db.prepare(COLUMNS)?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, image(row))))?;
    let told = |(text, found): (String, rusqlite::Result<(Record, State)>)| {
        (text, found.map(|(record, _)| record).map_err(|error| error.to_string()))
    };
    rows.map(|row| row.map(told)).collect()
}

fn image(row: &Row<'_>) -> rusqlite::Result<(Record, State)> {
    let text: String = row.get(1)?;
    let mut record: Record = serde_json::from_str(&text)
        .map_err(|e| rusqlite::Error::FromSqlConversionFailure(1, Type::Text, Box::new(e)))?;
    record.fingerprint = parsed(row, 0)?;
    record.cached = row.get(3)?;
    record.auto_update = row.get(4)?;
    let time = |column: usize| -> rusqlite::Result<_> {
        let seconds: Option<i64> = row.get(column)?;
        Ok(seconds.and_then(|seconds| DateTime::from_timestamp(seconds, 0)))
    };
    Ok((record, State { aliases: Vec::new(), last_used: time(2)?, looked: time(5)? }))
}

fn aliases(db: &Connection) -> rusqlite::Result<Vec<(Alias, Fingerprint)>> {
    let mut statement = db.prepare_cached("SELECT name, fingerprint FROM aliases ORDER BY name")?;
    let rows = statement.query_map([], |row| Ok((parsed(row, 0)?, parsed(row, 1)?)))?;
    rows.collect()
}

/// A text column as the type it must be: what the file says is not used raw.
fn parsed<T>(row: &Row<'_>, column: usize) -> rusqlite::Result<T>
where
    T: std::str::FromStr<Err = millstream_image::Error>,
{
    let text: String = row.get(column)?;
    text.parse().map_err(|e| rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(e)))
}

pub(super) fn fault(path: &Path, error: &rusqlite::Error) -> Error {
    let damaged = match error {
        rusqlite::Error::FromSqlConversionFailure(..) => true,
        other => {
            matches!(other.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
        }
    };
    let hint = if damaged { "; millstream store check --repair heals it" } else { "" };
    Error::Store { path: path.to_owned(), reason: format!("{error}{hint}") }
}

pub(super) fn too_new(path: &Path, version: usize) -> Error {
    let reason = format!("its format {version} is newer than this Millstream knows; update it");
    Error::Store { path: path.to_owned(), reason }
}
