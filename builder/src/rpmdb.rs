//! The files of rpm's sqlite database, so that they depend on what is in them alone.

use std::fs::{self, File};
use std::io;

use rusqlite::Connection;

use crate::rootfs::{Attributes, Rootfs};
use crate::{Error, Result};

/// Where a distribution may have it.
pub(crate) const PLACES: [&str; 2] = ["/var/lib/rpm", "/usr/lib/sysimage/rpm"];

/// sqlite's journal has random numbers in it, and rpm leaves it behind: what is in it goes into the
/// database. Done on a copy elsewhere, as names in the root may lead anywhere.
///
/// # Errors
/// When sqlite cannot read the database.
pub(crate) fn tidy(rootfs: &Rootfs, directory: &str) -> Result<()> {
    let place = format!("{directory}/rpmdb.sqlite");
    if !rootfs.exists(&place)? {
        return Ok(());
    }
    let work = tempfile::tempdir().map_err(Error::io("temporary directory"))?;
    let copy = work.path().join("rpmdb.sqlite");
    for suffix in ["", "-wal"] {
        let Some(mut file) = rootfs.open_file(&format!("{place}{suffix}"))? else { continue };
        let to = work.path().join(format!("rpmdb.sqlite{suffix}"));
        let mut to = File::create(&to).map_err(Error::io(&to))?;
        io::copy(&mut file, &mut to).map_err(Error::io(&place))?;
    }
    let settled = Connection::open(&copy).and_then(|database| {
        database.pragma_update(None, "trusted_schema", false)?;
        database.pragma_update_and_check(None, "journal_mode", "delete", |_| Ok(()))?;
        database.execute_batch("VACUUM")
    });
    settled.map_err(|error| Error::Refused(format!("{place}: rpm's database is broken: {error}")))?;
    let data = fs::File::open(&copy).map_err(Error::io(&copy))?;
    rootfs.write_from(&place, data, Attributes::default())?;
    rootfs.remove(&format!("{place}-wal"))?;
    rootfs.remove(&format!("{place}-shm"))
}

/// The same, where there is a journal.
///
/// # Errors
/// See [`tidy`].
pub(crate) fn settle(rootfs: &Rootfs) -> Result<()> {
    for directory in PLACES {
        if rootfs.exists(&format!("{directory}/rpmdb.sqlite-wal"))? {
            tidy(rootfs, directory)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A database as rpm leaves it: what was written last is in the journal alone.
    fn left_by_rpm(rootfs: &Rootfs) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("rpmdb.sqlite");
        let database = Connection::open(&file).unwrap();
        database.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(())).unwrap();
        database
            .execute_batch("CREATE TABLE Packages (hnum INTEGER PRIMARY KEY, blob BLOB NOT NULL)")
            .unwrap();
        for number in 0..50 {
            database.execute("INSERT INTO Packages VALUES (?1, zeroblob(2000))", [number]).unwrap();
        }
        for suffix in ["", "-wal", "-shm"] {
            let data = fs::read(dir.path().join(format!("rpmdb.sqlite{suffix}"))).unwrap();
            let place = format!("{}/rpmdb.sqlite{suffix}", PLACES[1]);
            rootfs.write(&place, &data, Attributes::default()).unwrap();
        }
    }

    #[test]
    fn the_journal_goes_into_the_database_and_its_random_numbers_go() {
        let place = format!("{}/rpmdb.sqlite", PLACES[1]);
        let settled = [(), ()].map(|()| {
            let dir = tempfile::tempdir().unwrap();
            let rootfs = Rootfs::open(dir.path()).unwrap();
            left_by_rpm(&rootfs);
            let journal = rootfs.read(&format!("{place}-wal")).unwrap().unwrap();
            settle(&rootfs).unwrap();
            assert_eq!(rootfs.list(PLACES[1]).unwrap(), ["rpmdb.sqlite"]);
            let database = Connection::open(dir.path().join(&place[1..])).unwrap();
            let count = |row: &rusqlite::Row<'_>| row.get::<_, i64>(0);
            assert_eq!(database.query_row("SELECT count(*) FROM Packages", [], count).unwrap(), 50);
            (journal, rootfs.read(&place).unwrap().unwrap())
        });
        assert!(settled[0].0 != settled[1].0, "the journals were the same to begin with");
        assert!(settled[0].1 == settled[1].1);
    }

    #[test]
    fn a_broken_database_is_refused_and_one_without_journal_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let rootfs = Rootfs::open(dir.path()).unwrap();
        let place = format!("{}/rpmdb.sqlite", PLACES[0]);
        rootfs.write(&place, &[b'x'; 5000], Attributes::default()).unwrap();
        settle(&rootfs).unwrap();
        rootfs.write(&format!("{place}-wal"), b"x", Attributes::default()).unwrap();
        let error = settle(&rootfs).unwrap_err().to_string();
        assert!(error.contains(&place) && error.contains("broken"), "{error}");
    }
}
