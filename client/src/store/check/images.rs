//! Images one by one: what is said of them, and every byte of their files.

use std::fs::{self, File};
use std::path::Path;

use millstream_image::{Alias, Fingerprint, Sha256Digest};

use super::super::compressed::{BASE, DELTA};
use super::super::heal::{present, read_record};
use super::super::staging::try_lock;
use super::super::{ATTACHED, RECORD, Record, Store, lost};
use super::database::Rows;
use crate::import;
use crate::problem::{Kind, Mender};
use crate::{Error, Result};

/// Temporary files of this program.
const TEMPORARY: &str = ".tmp";

/// Checks every image's directory. Without rows the index is not looked at.
pub(super) fn check(
    dir: &Path,
    store: Option<&Store>,
    rows: Option<&Rows>,
    mender: &mut Mender,
) -> Result<()> {
    for fingerprint in present(dir)? {
        let path = dir.join(fingerprint.to_string());
        match try_lock(&path) {
            Ok(Some(_lock)) => {
                mender.report.images += 1;
                // A row that cannot be read was told already.
                let listed = rows.is_some_and(|rows| !matches!(rows.get(&fingerprint), Some(None)));
                let row = rows.and_then(|rows| rows.get(&fingerprint)?.as_ref());
                let image = Image { dir, path: &path, fingerprint, store, row, listed };
                image.check(mender)?;
            }
            // Somebody is at work on it, or has just deleted it.
            Ok(None) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => mender.told(Kind::Unreadable, &path, error.to_string(), "see to its permissions"),
        }
    }
    Ok(())
}

/// An image's directory, locked.
struct Image<'a> {
    /// The store's directory.
    dir: &'a Path,
    path: &'a Path,
    fingerprint: Fingerprint,
    store: Option<&'a Store>,
    /// What the index said when it was looked at.
    row: Option<&'a Record>,
    /// Whether what the index says of it, or does not say, counts.
    listed: bool,
}

/// Where a description comes from, the one that counts first.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    File,
    Row,
    Contents,
}

impl Image<'_> {
    fn check(&self, mender: &mut Mender) -> Result<()> {
        let file = read_record(self.dir, self.fingerprint);
        let row = match self.store {
            Some(store) => match store.index().get(self.fingerprint) {
                Ok(found) => found.map(|(record, _)| record),
                // One of its names means nothing, as was told already.
                Err(_) => self.row.cloned(),
            },
            None => None,
        };
        let mut wrong = None;
        for (source, record) in [
            (Source::File, file.as_ref().ok().cloned()),
            (Source::Row, row.clone()),
            (Source::Contents, None),
        ] {
            // Looking for what the files are takes a while: only where nobody says it.
            let unknown = source == Source::Contents && wrong.is_none();
            let Some(record) = record.or_else(|| self.recognize().filter(|_| unknown)) else { continue };
            match self.contents(&record) {
                Ok(()) => {
                    self.agree(source, &record, row.as_ref(), file.as_ref().err(), mender);
                    return self.strays(&record, mender);
                }
                Err(found) => wrong = wrong.or(Some((found, record))),
            }
        }
        let advice = wrong.as_ref().and_then(|(_, record)| advice(record, &self.names()));
        let (kind, reason) = match (wrong, file) {
            (Some((found, _)), _) => found,
            (None, Err(error)) => (Kind::Record, error.to_string()),
            (None, Ok(_)) => (Kind::Record, "nothing says what it is".into()),
        };
        let problem = mender.found(kind, self.path, reason.clone(), || self.take_away(&reason));
        problem.advice = problem.advice.take().or(advice);
        Ok(())
    }

    /// What is wrong with the files, if they are to be what `record` says.
    fn contents(&self, record: &Record) -> Result<(), (Kind, String)> {
        let mut names = vec![record.metadata.as_str()];
        if record.rootfs != record.metadata {
            names.push(&record.rootfs);
        }
        let parts: &[&str] = if record.uncompressed.is_some() { &[DELTA, BASE] } else { &[] };
        let mut size = 0;
        for name in names.iter().chain(parts) {
            // Links lead to the files of a store that root shares; what is there proves itself.
            match fs::metadata(self.path.join(name)) {
                Ok(meta) if meta.is_file() => size += meta.len(),
                Ok(_) => return Err((Kind::MissingFile, format!("{name} is no file"))),
                Err(error) => return Err((Kind::MissingFile, format!("{name}: {error}"))),
            }
        }
        let unreadable = |error: String| (Kind::Unreadable, error);
        if let Some(expected) = record.uncompressed {
            let read = File::open(self.path.join(&record.rootfs)).and_then(Sha256Digest::of_reader);
            let (found, _) = read.map_err(|e| unreadable(format!("{}: {e}", record.rootfs)))?;
            return if found == expected { Ok(()) } else { Err(hashes_to(&found)) };
        }
        if size != record.size {
            return Err((Kind::WrongSize, format!("its files are {size} bytes, not {}", record.size)));
        }
        let (metadata, rootfs) = (self.path.join(&record.metadata), self.path.join(&record.rootfs));
        let found = Fingerprint::of_files(&metadata, &rootfs).map_err(|e| unreadable(e.to_string()))?;
        if found == self.fingerprint { Ok(()) } else { Err(hashes_to(&found.digest())) }
    }

    /// Describes the image by its files alone, if they are it.
    fn recognize(&self) -> Option<Record> {
        let names = fs::read_dir(self.path).ok()?.flatten();
        let names: Vec<_> = names.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        let begins = |start: &str| names.iter().find(|name| name.starts_with(start)).map(String::as_str);
        let (metadata, rootfs) = match (begins("metadata.").or(begins("lxd.")), begins("rootfs.")) {
            (Some(metadata), Some(rootfs)) => (metadata, rootfs),
            _ => (begins("unified.")?, begins("unified.")?),
        };
        let found = Fingerprint::of_files(&self.path.join(metadata), &self.path.join(rootfs)).ok()?;
        let record = || import::describe(self.path, metadata, rootfs).ok();
        if found == self.fingerprint { record() } else { None }
    }

    /// The files are good: so must be what is said of them.
    fn agree(
        &self,
        source: Source,
        record: &Record,
        row: Option<&Record>,
        damaged: Option<&Error>,
        mender: &mut Mender,
    ) {
        let file = self.path.join(RECORD);
        if source != Source::File {
            let reason = damaged.map_or_else(|| "it describes other files".into(), ToString::to_string);
            let from = if source == Source::Row { "the index" } else { "the image itself" };
            mender.found(Kind::Record, &file, reason, || {
                super::super::put_record(self.path, record)?;
                Ok::<_, Error>(format!("written anew from {from}"))
            });
        }
        let (Some(store), true) = (self.store, self.listed) else { return };
        match row {
            None => {
                let list = || store.index().insert(record).map(|()| "it is listed".to_owned());
                mender.found(Kind::UnlistedImage, self.path, "the index does not list it", list);
            }
            Some(row) if !says_the_same(row, record) => {
                let reason = "the index says other than image.json";
                let update = || store.index().update(record).map(|()| "the index was corrected".to_owned());
                mender.found(Kind::Row, &file, reason, update);
            }
            Some(_) => {}
        }
    }

    /// Files that are no part of the image.
    fn strays(&self, record: &Record, mender: &mut Mender) -> Result<()> {
        let mut known = vec![RECORD, ATTACHED, record.metadata.as_str(), record.rootfs.as_str()];
        if record.uncompressed.is_some() {
            known.extend([DELTA, BASE]);
        }
        for entry in fs::read_dir(self.path).map_err(Error::io(self.path))?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if known.contains(&name.as_str()) {
                continue;
            }
            let path = entry.path();
            mender.found(Kind::Stray, &path, "it is no part of the image", || {
                if name.starts_with(TEMPORARY) {
                    return fs::remove_file(&path).map(|()| "removed".into()).map_err(Error::io(&path));
                }
                lost::take_away(self.dir, &path, "a file that was no part of an image").map(moved)
            });
        }
        Ok(())
    }

    fn names(&self) -> Vec<Alias> {
        let row = self.store.and_then(|store| store.index().get(self.fingerprint).ok().flatten());
        row.map(|(_, state)| state.aliases).unwrap_or_default()
    }

    /// As a deletion, but that the files stay.
    fn take_away(&self, why: &str) -> Result<String> {
        let names = self.names();
        let why = format!("{}: {why}", self.fingerprint);
        let to = lost::take_away(self.dir, self.path, &without_names(&why, &names))?;
        if let Some(store) = self.store {
            store.index().remove(self.fingerprint)?;
        }
        Ok(without_names(&moved(to), &names))
    }
}

fn moved(to: impl AsRef<Path>) -> String {
    format!("moved to {}", to.as_ref().display())
}

fn hashes_to(found: &Sha256Digest) -> (Kind, String) {
    (Kind::WrongHash, format!("its files hash to {found}"))
}

/// But for what only the index knows.
fn says_the_same(row: &Record, record: &Record) -> bool {
    let flags = Record { cached: row.cached, auto_update: row.auto_update, ..record.clone() };
    *row == flags
}

/// What was done, and which names went with it.
pub(super) fn without_names(done: &str, names: &[Alias]) -> String {
    if names.is_empty() {
        return done.to_owned();
    }
    let names: Vec<_> = names.iter().map(Alias::as_str).collect();
    format!("{done}; its names were {}", names.join(", "))
}

/// How to get an image back.
pub(super) fn advice(record: &Record, names: &[Alias]) -> Option<String> {
    let origin = record.origin.as_ref()?;
    let product = &origin.product;
    let name = format!("{}/{}/{}", product.distribution(), product.release(), product.variant());
    let names: Vec<_> = names.iter().map(|name| format!(" --alias {name}")).collect();
    let arch = product.architecture();
    Some(format!("millstream image copy {}:{name}/{arch}{}", origin.remote, names.concat()))
}
