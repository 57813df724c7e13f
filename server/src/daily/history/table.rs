//! The table of runs.

use std::path::Path;
use std::time::Duration;

use chrono::{DateTime, SubsecRound, Utc};
use rusqlite::types::Type;
use rusqlite::{Connection, Params, Row, params};

use super::Run;
use crate::{Error, Result};

/// How long a process waits for another one's write.
const BUSY: Duration = Duration::from_secs(10);

/// What `user_version` says.
const VERSION: u32 = 1;

const TABLE: &str = "
    CREATE TABLE IF NOT EXISTS runs (
        id       INTEGER PRIMARY KEY AUTOINCREMENT,
        job      TEXT NOT NULL,
        product  TEXT NOT NULL,
        recorder TEXT NOT NULL,
        started  INTEGER NOT NULL,
        ended    INTEGER,
        run      TEXT NOT NULL -- all of it, JSON
    ) STRICT;
    CREATE INDEX IF NOT EXISTS runs_of ON runs (job, product, id);
    CREATE INDEX IF NOT EXISTS running ON runs (id) WHERE ended IS NULL;
";

pub(super) fn open(path: &Path) -> Result<Connection> {
    let set_up = |path: &Path| {
        let mut db = Connection::open(path)?;
        db.busy_timeout(BUSY)?;
        // No write-ahead log: turning it on fails at once where another process is opening, whatever
        // the time-out, and there is little to write.
        let transaction = db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        let version: u32 = transaction.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        if version < VERSION {
            transaction.execute_batch(TABLE)?;
            transaction.pragma_update(None, "user_version", VERSION)?;
        }
        transaction.commit()?;
        Ok((db, version))
    };
    match set_up(path).map_err(|error| fault(path, &error))? {
        (_, version) if version > VERSION => {
            let reason = format!("its format {version} is newer than this Millstream knows; update it");
            Err(Error::History { path: path.to_path_buf(), reason })
        }
        (db, _) => Ok(db),
    }
}

pub(super) fn fault(path: &Path, error: &rusqlite::Error) -> Error {
    let reason = match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::NotADatabase | rusqlite::ErrorCode::DatabaseCorrupt) => {
            format!("{error}; it is damaged: move it away, and a new history begins")
        }
        _ => error.to_string(),
    };
    Error::History { path: path.to_path_buf(), reason }
}

pub(super) fn seconds(time: DateTime<Utc>) -> DateTime<Utc> {
    time.trunc_subsecs(0)
}

pub(super) fn insert(db: &Connection, run: &Run, recorder: &str) -> rusqlite::Result<i64> {
    let sql = "INSERT INTO runs (job, product, recorder, started, run) VALUES (?1, ?2, ?3, ?4, ?5)";
    db.execute(sql, params![run.job, run.product, recorder, run.started.timestamp(), json(run)?])?;
    Ok(db.last_insert_rowid())
}

pub(super) fn update(db: &Connection, run: &Run) -> rusqlite::Result<()> {
    let ended = run.ended.map(|ended| ended.timestamp());
    db.execute("UPDATE runs SET ended = ?2, run = ?3 WHERE id = ?1", params![run.id, ended, json(run)?])?;
    Ok(())
}

/// Runs for which `which` holds.
pub(super) fn select(db: &Connection, which: &str, values: impl Params) -> rusqlite::Result<Vec<Run>> {
    let mut statement = db.prepare_cached(&format!("SELECT id, run FROM runs WHERE {which}"))?;
    statement.query_map(values, run)?.collect()
}

pub(super) fn latest(db: &Connection) -> rusqlite::Result<Vec<Run>> {
    let which = "id IN (SELECT max(id) FROM runs GROUP BY job, product) ORDER BY job, product";
    select(db, which, [])
}

/// Who records runs that have not ended.
pub(super) fn recorders(db: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut statement = db.prepare("SELECT DISTINCT recorder FROM runs WHERE ended IS NULL")?;
    statement.query_map([], |row| row.get(0))?.collect()
}

/// Runs of a job, but the newest `keep` of each product, that still have a log.
pub(super) fn with_old_logs(db: &Connection, job: &str, keep: u32) -> rusqlite::Result<Vec<Run>> {
    let which = format!("id IN ({OLD}) AND json_extract(run, '$.log') IS NOT NULL");
    select(db, &which, params![job, keep])
}

/// Forgets runs of a job but the newest `keep` of each product.
pub(super) fn forget(db: &Connection, job: &str, keep: u32) -> rusqlite::Result<()> {
    db.execute(&format!("DELETE FROM runs WHERE id IN ({OLD})"), params![job, keep])?;
    Ok(())
}

const OLD: &str = "
    SELECT id FROM (
        SELECT id, ended, row_number() OVER (PARTITION BY product ORDER BY id DESC) AS place
        FROM runs WHERE job = ?1
    ) WHERE place > ?2 AND ended IS NOT NULL";

fn run(row: &Row<'_>) -> rusqlite::Result<Run> {
    let text: String = row.get(1)?;
    let run: Run = serde_json::from_str(&text)
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(1, Type::Text, Box::new(error)))?;
    Ok(Run { id: row.get(0)?, ..run })
}

fn json(run: &Run) -> rusqlite::Result<String> {
    serde_json::to_string(run).map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
}
