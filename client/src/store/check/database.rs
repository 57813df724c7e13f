//! The index: whether SQLite can read it, and whether its rows mean something.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use millstream_image::{Alias, Fingerprint, atomic};
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::super::index::{self, Index};
use super::super::{DATABASE, LockKind, Record, Store, heal, lock_store, lost};
use super::salvage::Salvage;
use crate::problem::{Kind, Mender};
use crate::{Error, Result};

/// Where a new index is made. Its name begins as a stray's does, which goes.
const NEW: &str = ".images.db.new";
/// What SQLite keeps beside a database.
const BESIDE: [&str; 3] = ["-wal", "-shm", "-journal"];

/// What the index says of each image; none: it cannot be read.
pub(super) type Rows = BTreeMap<Fingerprint, Option<Record>>;

/// Why the index cannot be used, if so.
///
/// # Errors
/// When it is of a newer format, or cannot be looked at.
pub(super) fn damage(dir: &Path) -> Result<Option<String>> {
    let path = dir.join(DATABASE);
    if !path.exists() {
        return Ok(Some("it is missing".into()));
    }
    let damage = open(&path).and_then(|db| {
        let version: usize = db.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        let mut statement = db.prepare("PRAGMA integrity_check(3)")?;
        let found: Vec<String> = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
        if found != ["ok"] {
            return Ok((version, Some(found.join("; "))));
        }
        // Made, and not filled: whoever opens it does that.
        let tables = if version == 0 { Ok(()) } else { index::probe(&db) };
        Ok((version, tables.err().map(|error| error.to_string())))
    });
    match damage {
        Ok((version, _)) if version > index::VERSION => Err(index::too_new(&path, version)),
        Ok((_, damage)) => Ok(damage),
        Err(error) if is_damage(&error) => Ok(Some(error.to_string())),
        Err(error) => Err(index::fault(&path, &error)),
    }
}

pub(super) fn open(path: &Path) -> rusqlite::Result<Connection> {
    let db = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    db.busy_timeout(index::BUSY)?;
    Ok(db)
}

fn is_damage(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error_code();
    matches!(code, Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::Unknown))
}

/// Makes a new index of the images that are here and of what can still be read of the old one.
pub(super) fn rebuild(dir: &Path) -> Result<String> {
    let _alone = lock_store(dir, LockKind::Alone)?;
    let (path, new) = (dir.join(DATABASE), dir.join(NEW));
    let with = |path: &Path, suffix: &&str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let beside: Vec<_> = BESIDE.iter().map(|suffix| with(&path, suffix)).collect();
    // A repair that was killed may have come as far as a new one.
    let mut salvage = Salvage::default();
    salvage.add(&new);
    salvage.add(&path);
    let files: Vec<_> = std::iter::once(path.clone()).chain(beside.iter().cloned()).collect();
    let kept = path.exists().then(|| lost::copy_away(dir, &files, "the damaged index of the store"));
    let kept = kept.transpose()?;
    for file in std::iter::once(new.clone()).chain(BESIDE.iter().map(|suffix| with(&new, suffix))) {
        drop(fs::remove_file(file));
    }
    let (images, names) = fill(dir, &new, salvage)?;
    for file in &beside {
        drop(fs::remove_file(file));
    }
    atomic::rename(&new, &path)?;
    let kept = kept.map(|dir| format!("; the old one is in {}", dir.display())).unwrap_or_default();
    Ok(format!("made anew, with {images} images and {names} names{kept}"))
}

/// Writes the new index, as one file.
fn fill(dir: &Path, new: &Path, salvage: Salvage) -> Result<(usize, usize)> {
    let index = Index::open(new)?;
    let mut here = BTreeSet::new();
    for fingerprint in heal::present(dir)? {
        let Ok(record) = heal::read_record(dir, fingerprint) else { continue };
        index.insert(&record)?;
        if let Some(state) = salvage.states.get(&fingerprint) {
            index.set_flags(fingerprint, state.cached, state.auto_update)?;
            if let Some(used) = state.last_used {
                index.touch(fingerprint, used)?;
            }
        }
        here.insert(fingerprint);
    }
    let mut names = 0;
    for (alias, fingerprint) in salvage.aliases.into_iter().filter(|(_, image)| here.contains(image)) {
        index.add_alias(&alias, fingerprint, true)?;
        names += 1;
    }
    index.close()?;
    fs::File::open(new).and_then(|file| file.sync_all()).map_err(Error::io(new))?;
    Ok((here.len(), names))
}

/// Rows and names one by one.
pub(super) fn check(store: &Store, mender: &mut Mender) -> Result<Rows> {
    let path = store.dir().join(DATABASE);
    let mut rows = Rows::new();
    let images = store.index().run(index::records)?;
    for (text, found) in images {
        let parsed = text.parse::<Fingerprint>().ok().filter(|fingerprint| fingerprint.to_string() == text);
        match (parsed.ok_or(()), found) {
            (Ok(fingerprint), Ok(record)) => drop(rows.insert(fingerprint, Some(record))),
            (parsed, found) => {
                let reason = found.err().unwrap_or_else(|| "its fingerprint is none".into());
                let reason = format!("the row of {:?}: {reason}", shortened(&text));
                let heal = || replace(store, &text, parsed.as_ref().ok().copied());
                let healed = mender.found(Kind::Row, &path, reason, heal).repaired.is_some();
                if let (Ok(fingerprint), false) = (parsed, healed) {
                    rows.insert(fingerprint, None);
                } else if let Ok(fingerprint) = parsed
                    && let Some((record, _)) = store.index().get(fingerprint)?
                {
                    rows.insert(fingerprint, Some(record));
                }
            }
        }
    }
    let aliases: Vec<(String, String)> = store.index().run(|db| {
        let mut statement = db.prepare("SELECT name, fingerprint FROM aliases ORDER BY name")?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        rows.collect()
    })?;
    for (text, meaning) in aliases {
        let known = meaning.parse().is_ok_and(|fingerprint| rows.contains_key(&fingerprint));
        let reason = match text.parse::<Alias>() {
            Ok(_) if known => continue,
            Ok(_) => format!("the name {text} means an image that is not here"),
            Err(error) => format!("a name cannot be one: {error}"),
        };
        let forget = || {
            let query = "DELETE FROM aliases WHERE name = ?1";
            store.index().run(|db| db.execute(query, [&text]))?;
            Ok::<_, Error>("the name is gone".to_owned())
        };
        mender.found(Kind::Alias, &path, reason, forget);
    }
    Ok(rows)
}

/// Puts what `image.json` says in a row's place, whose names it keeps; no image, no row.
fn replace(store: &Store, text: &str, fingerprint: Option<Fingerprint>) -> Result<String> {
    if let Some(fingerprint) = fingerprint
        && let Ok(record) = heal::read_record(store.dir(), fingerprint)
    {
        store.index().update(&record)?;
        store.index().set_flags(fingerprint, record.cached, record.auto_update)?;
        return Ok("written anew from image.json".into());
    }
    store.index().run(|db| db.execute("DELETE FROM images WHERE fingerprint = ?1", [text]))?;
    Ok("the row is gone".into())
}

fn shortened(text: &str) -> String {
    text.chars().take(64).collect()
}
