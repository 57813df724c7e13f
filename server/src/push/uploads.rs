//! Uploads on disk: `.push/PUSHER/ID/` holds `upload.json`, the announcement, and `image/`, the files as
//! far as they have come.
//!
//! A file's length is how much of it has come, so nothing else has to be remembered, and whoever was cut
//! off, either side, goes on there. Nobody waits for a pusher under a lock: each piece is appended where
//! the file ends, or refused.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, Permissions, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use millstream_image::{Sha256Digest, atomic};
use rustix::fs::{OFlags, statvfs};

use super::refusal::{Kind, Refusal};
use super::wire::Announcement;
use crate::stream::PUSH;
use crate::{Error, Result};

/// An upload that nobody went on with for so long goes.
const EXPIRY: Duration = Duration::from_hours(24);
/// One that nobody went on with for so long makes room for another.
const IDLE: Duration = Duration::from_hours(1);
/// The announcement.
const HEAD: &str = "upload.json";
/// The files.
const IMAGE: &str = "image";
/// Locked while an upload is published or removed.
const LOCK: &str = "lock";

/// The uploads of a tree.
#[derive(Clone, Debug)]
pub(super) struct Uploads {
    dir: PathBuf,
}

/// One of them.
#[derive(Debug)]
pub(super) struct Upload {
    dir: PathBuf,
    pub(super) announcement: Announcement,
}

/// Bounds on the uploads of one pusher.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// At once.
    pub(super) uploads: usize,
    /// Bytes of each.
    pub(super) size: u64,
}

impl Uploads {
    pub(super) fn new(root: &Path) -> Self {
        Self { dir: root.join(PUSH) }
    }

    /// Begins an upload, or finds it begun.
    pub(super) fn open(
        &self,
        pusher: &Sha256Digest,
        announcement: Announcement,
        bounds: Bounds,
        now: SystemTime,
    ) -> Result<Upload, Refusal> {
        let id = announcement.id(pusher);
        if let Some(upload) = self.find(pusher, &id)? {
            return Ok(upload);
        }
        let size = announcement.size().filter(|size| *size <= bounds.size);
        let Some(size) = size else {
            let reason = format!("the image has more than the {} bytes allowed here", bounds.size);
            return Err(Refusal::new(Kind::TooLarge, reason));
        };
        let of_pusher = self.of(pusher);
        make_room(&of_pusher, bounds.uploads, now)?;
        let upload = Upload { dir: of_pusher.join(id.to_string()), announcement };
        upload.create(&self.dir)?;
        if free(&self.dir)? < size {
            upload.remove()?;
            return Err(Refusal::new(Kind::Full, "the server's disk has no room for this image"));
        }
        Ok(upload)
    }

    /// The upload of this name, if it is this pusher's.
    pub(super) fn find(&self, pusher: &Sha256Digest, id: &Sha256Digest) -> Result<Option<Upload>> {
        let dir = self.of(pusher).join(id.to_string());
        let path = dir.join(HEAD);
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            bytes => bytes.map_err(Error::io(&path))?,
        };
        let announcement = Announcement::parse(&bytes).ok().filter(|found| found.id(pusher) == *id);
        Ok(announcement.map(|announcement| Upload { dir, announcement }))
    }

    /// Removes what nobody went on with for a day.
    pub(super) fn expire(&self, now: SystemTime) -> Result<()> {
        for of_pusher in entries(&self.dir)? {
            for upload in entries(&of_pusher)? {
                if idle(&upload, now) >= EXPIRY {
                    remove(&upload)?;
                }
            }
            let _used = fs::remove_dir(&of_pusher);
        }
        Ok(())
    }

    fn of(&self, pusher: &Sha256Digest) -> PathBuf {
        // Not the digest itself, which is what a configuration knows a token by.
        self.dir.join(Sha256Digest::of(pusher.as_bytes()).to_string())
    }
}

impl Upload {
    /// Where its files are.
    pub(super) fn image(&self) -> PathBuf {
        self.dir.join(IMAGE)
    }

    fn create(&self, push: &Path) -> Result<()> {
        let image = self.image();
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700).create(&image).map_err(Error::io(&image))?;
        for (name, _) in self.announcement.files.iter().filter(|(_, part)| part.size == 0) {
            self.file(name)?;
        }
        let text = serde_json::to_vec(&self.announcement).map_err(|e| Error::tree(push, e.to_string()))?;
        let head = self.dir.join(HEAD);
        atomic::write(&head, &text).map_err(Error::image(&head))
    }

    /// How much of each file has come.
    pub(super) fn offsets(&self) -> Result<BTreeMap<String, u64>> {
        let length = |name: &String| {
            let path = self.image().join(name);
            match fs::symlink_metadata(&path) {
                Err(error) if error.kind() == ErrorKind::NotFound => Ok((name.clone(), 0)),
                meta => Ok((name.clone(), meta.map_err(Error::io(&path))?.len())),
            }
        };
        self.announcement.files.keys().map(length).collect()
    }

    /// Appends bytes to a file that is `offset` bytes long; its new length.
    pub(super) fn append(&self, name: &str, offset: u64, bytes: &[u8]) -> Result<u64, Refusal> {
        let Some(part) = self.announcement.files.get(name) else {
            return Err(Refusal::new(Kind::Missing, "this file was not announced"));
        };
        let file = self.file(name)?;
        let path = self.image().join(name);
        file.lock().map_err(Error::io(&path))?;
        let length = file.metadata().map_err(Error::io(&path))?.len();
        if length != offset {
            return Err(Refusal::misplaced(length));
        }
        let end = offset.checked_add(bytes.len() as u64).filter(|end| *end <= part.size);
        let Some(end) = end else {
            return Err(Refusal::new(Kind::Bad, format!("{name} has {} bytes and no more", part.size)));
        };
        file.write_all_at(bytes, offset).map_err(Error::io(&path))?;
        Ok(end)
    }

    fn file(&self, name: &str) -> Result<File> {
        let path = self.image().join(name);
        let mut options = File::options();
        let options = options.write(true).create(true).truncate(false).mode(0o644);
        let file = options.custom_flags(OFlags::NOFOLLOW.bits() as i32).open(&path);
        let file = file.map_err(Error::io(&path))?;
        // The mode it will have in the tree, so that it need not be copied there.
        file.set_permissions(Permissions::from_mode(0o644)).map_err(Error::io(&path))?;
        Ok(file)
    }

    /// Keeps others from publishing or removing it; `None` when somebody does.
    pub(super) fn lock(&self) -> Result<Option<File>> {
        lock(&self.dir)
    }

    /// Removes files that are not what was announced; their names.
    pub(super) fn drop_damaged<'a>(&self, names: impl Iterator<Item = &'a str>) -> Result<Vec<String>> {
        let mut damaged = Vec::new();
        for name in names {
            let path = self.image().join(name);
            let (sha256, _) =
                File::open(&path).and_then(Sha256Digest::of_reader).map_err(Error::io(&path))?;
            if self.announcement.files.get(name).is_some_and(|part| part.sha256 != sha256) {
                fs::remove_file(&path).map_err(Error::io(&path))?;
                damaged.push(name.to_owned());
            }
        }
        Ok(damaged)
    }

    /// Removes all of it.
    pub(super) fn remove(&self) -> Result<()> {
        remove_all(&self.dir)
    }
}

/// Keeps the number of a pusher's uploads within bounds; of those that rest the longest goes.
fn make_room(of_pusher: &Path, most: usize, now: SystemTime) -> Result<(), Refusal> {
    let mut all: Vec<_> =
        entries(of_pusher)?.into_iter().map(|upload| (idle(&upload, now), upload)).collect();
    all.sort();
    while all.len() >= most.max(1) {
        match all.pop() {
            Some((rest, upload)) if rest >= IDLE => remove(&upload)?,
            _ => {
                let reason = format!("{most} images are on the way already; let them arrive first");
                return Err(Refusal::new(Kind::TooMany, reason));
            }
        }
    }
    Ok(())
}

/// What is in a directory that may not be there.
fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    match fs::read_dir(dir) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Ok(Vec::new())
        }
        items => Ok(items.map_err(Error::io(dir))?.flatten().map(|item| item.path()).collect()),
    }
}

/// How long nothing has come.
fn idle(upload: &Path, now: SystemTime) -> Duration {
    let files = [upload.to_path_buf(), upload.join(IMAGE)].into_iter();
    let files = files.chain(entries(&upload.join(IMAGE)).unwrap_or_default());
    let times = files.filter_map(|path| fs::symlink_metadata(path).ok()?.modified().ok());
    times.max().and_then(|last| now.duration_since(last).ok()).unwrap_or_default()
}

/// Removes an upload unless somebody is publishing it.
fn remove(upload: &Path) -> Result<()> {
    if !upload.is_dir() {
        return fs::remove_file(upload).map_err(Error::io(upload));
    }
    match lock(upload)? {
        Some(_held) => remove_all(upload),
        None => Ok(()),
    }
}

fn lock(upload: &Path) -> Result<Option<File>> {
    let path = upload.join(LOCK);
    let file = File::create(&path).map_err(Error::io(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(Error::io(&path)(error)),
    }
}

/// The announcement first, so that what is left when this is cut off is no upload.
fn remove_all(upload: &Path) -> Result<()> {
    let gone = |result: std::io::Result<()>, path: &Path| match result {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::io(path)(error)),
        _ => Ok(()),
    };
    let head = upload.join(HEAD);
    gone(fs::remove_file(&head), &head)?;
    gone(fs::remove_dir_all(upload), upload)
}

/// Bytes that ordinary users may still write.
fn free(dir: &Path) -> Result<u64> {
    let stat = statvfs(dir).map_err(|errno| Error::io(dir)(errno.into()))?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::push::wire::{ANNOUNCEMENT, Part};

    fn announcement(serial: &str) -> Announcement {
        let part = |bytes: &[u8]| Part { size: bytes.len() as u64, sha256: Sha256Digest::of(bytes) };
        Announcement {
            product: "debian:bookworm:amd64:default".parse().unwrap(),
            serial: serial.parse().unwrap(),
            files: [("manifest.json", part(b"12345")), ("build.log", part(b""))]
                .map(|(name, part)| (name.to_owned(), part))
                .into(),
        }
    }

    const BOUNDS: Bounds = Bounds { uploads: 2, size: 5 };

    #[test]
    fn pieces_are_appended_where_the_file_ends() {
        let dir = tempfile::tempdir().unwrap();
        let uploads = Uploads::new(dir.path());
        let (pusher, now) = (Sha256Digest::of(b"a"), SystemTime::now());
        let upload = uploads.open(&pusher, announcement("20260101_0000"), BOUNDS, now).unwrap();
        assert_eq!(upload.append("manifest.json", 0, b"12"), Ok(2));
        for (offset, bytes) in [(0, b"12".as_slice()), (3, b"4"), (u64::MAX, b"1")] {
            assert_eq!(upload.append("manifest.json", offset, bytes), Err(Refusal::misplaced(2)));
        }
        assert_eq!(upload.append("manifest.json", 2, b"3456").unwrap_err().kind, Kind::Bad);
        assert_eq!(upload.append("rootfs.tar.xz", 0, b"1").unwrap_err().kind, Kind::Missing);
        let again = uploads.open(&pusher, announcement("20260101_0000"), BOUNDS, now).unwrap();
        assert_eq!(again.offsets().unwrap()["manifest.json"], 2);
        assert_eq!(again.append("manifest.json", 2, b"345"), Ok(5));
        assert_eq!(
            fs::metadata(again.image().join("manifest.json")).unwrap().permissions().mode(),
            0o100_644
        );
        let id = again.announcement.id(&pusher);
        assert!(uploads.find(&Sha256Digest::of(b"b"), &id).unwrap().is_none(), "another's");
        assert!(again.drop_damaged(["manifest.json", "build.log"].into_iter()).unwrap().is_empty());
        fs::write(again.image().join("manifest.json"), "12x45").unwrap();
        assert_eq!(again.drop_damaged(["manifest.json"].into_iter()).unwrap(), ["manifest.json"]);
        again.remove().unwrap();
        assert!(uploads.find(&pusher, &id).unwrap().is_none());
    }

    #[test]
    fn uploads_are_bounded_and_expire() {
        let dir = tempfile::tempdir().unwrap();
        let uploads = Uploads::new(dir.path());
        let (pusher, now) = (Sha256Digest::of(b"a"), SystemTime::now());
        let open = |serial: &str, now| uploads.open(&pusher, announcement(serial), BOUNDS, now);
        open("20260101_0000", now).unwrap();
        open("20260101_0001", now).unwrap();
        let kind = |serial, now| open(serial, now).unwrap_err().kind;
        assert_eq!(kind("20260101_0002", now), Kind::TooMany);
        uploads.open(&Sha256Digest::of(b"b"), announcement("20260101_0000"), BOUNDS, now).unwrap();
        let small = Bounds { size: 4, ..BOUNDS };
        let large = uploads.open(&pusher, announcement("20260101_0003"), small, now).unwrap_err();
        assert_eq!(large.kind, Kind::TooLarge);
        // Those that rest make room; one that is being published does not.
        let later = now + IDLE + Duration::from_mins(1);
        open("20260101_0002", later).unwrap();
        let held = open("20260101_0002", later).unwrap();
        let lock = held.lock().unwrap().unwrap();
        let much_later = later + EXPIRY;
        uploads.expire(now).unwrap();
        assert_eq!(entries(&uploads.of(&pusher)).unwrap().len(), 2);
        uploads.expire(much_later).unwrap();
        assert_eq!(entries(&uploads.of(&pusher)).unwrap(), std::slice::from_ref(&held.dir));
        drop(lock);
        uploads.expire(much_later).unwrap();
        assert!(entries(&uploads.dir).unwrap().is_empty(), "nothing is left");
    }

    #[test]
    fn announcements_fit_their_bound() {
        let part = Part { size: u64::MAX, sha256: Sha256Digest::of(b"") };
        let mut longest = announcement("20260101_0000");
        longest.files = (0..32).map(|n| (format!("unified.tar.xz{n:04}"), part)).collect();
        assert!(serde_json::to_vec(&longest).unwrap().len() < ANNOUNCEMENT);
    }
}
