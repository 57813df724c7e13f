//! Images unpacked once, shared by all containers made from them.
//!
//! `images/FINGERPRINT/` holds `rootfs/`, `metadata.yaml` and `templates/`. It appears by the rename
//! of `images/.FINGERPRINT/`, which whoever unpacks has locked. Files keep the image's own ids, set-user-ID
//! programs included, so that the directory above must be closed to other users.
//!
//! Where mounts cannot map ids, as in the namespace of an ordinary user, all containers have the same
//! ids, and the image is unpacked with these: `images/FINGERPRINT+BASE/`.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Component, Path, PathBuf};

use millstream_image::archive::{self, Devices, ExtractOptions, Member, Ownership};
use millstream_image::metadata::Metadata;
use millstream_image::{Architecture, Error as ImageError, Fingerprint, atomic};

use super::idmap::{self, IdMap};
use super::lock::DirLock;
use super::squashfs;
use crate::{Error, Result};

/// The directory of unpacked images below that of the containers.
pub const DIRECTORY: &str = "images";

const METADATA: [&str; 2] = ["lxd.tar.xz", "incus.tar.xz"];
const ROOTFS: &str = "rootfs.tar.xz";
const UNIFIED: [&str; 4] = ["unified.tar.xz", "unified.tar.zst", "unified.tar.gz", "unified.tar"];

/// An image as files, as LXD and Incus have it: metadata and root file system, or both in one.
#[derive(Clone, Debug)]
pub struct ImageFiles {
    /// SHA-256 of metadata and root file system, one after the other.
    pub fingerprint: Fingerprint,
    /// `lxd.tar.xz` or `incus.tar.xz`: `metadata.yaml` and templates.
    pub metadata: PathBuf,
    /// `rootfs.tar.xz`, in any compression. Of a unified image, the same file as the metadata.
    pub rootfs: PathBuf,
}

impl ImageFiles {
    /// Looks into a directory as `millstream build` leaves it: `lxd.tar.xz` or `incus.tar.xz` beside
    /// `rootfs.tar.xz`, or `unified.tar.xz` alone. Reads them to compute the fingerprint.
    pub fn in_directory(dir: &Path) -> Result<Self> {
        let present = |names: &[&'static str]| names.iter().copied().find(|name| dir.join(name).is_file());
        let (metadata, rootfs) = match (present(&METADATA), present(&UNIFIED)) {
            (None, Some(unified)) => (unified, unified),
            (metadata, _) => (metadata.unwrap_or(METADATA[0]), ROOTFS),
        };
        let (metadata, rootfs) = (dir.join(metadata), dir.join(rootfs));
        Ok(Self { fingerprint: Fingerprint::of_files(&metadata, &rootfs)?, metadata, rootfs })
    }
}

impl ImageFiles {
    /// What `metadata.yaml` says about it.
    pub fn properties(&self) -> Result<BTreeMap<String, String>> {
        let mut members = self.members()?;
        let text = members.remove(Path::new("metadata.yaml")).map(|member| member.data);
        Ok(Metadata::parse(&text.unwrap_or_default())?.properties)
    }

    fn is_unified(&self) -> bool {
        self.metadata == self.rootfs
    }

    /// `metadata.yaml` and the templates.
    fn members(&self) -> Result<BTreeMap<PathBuf, Member>> {
        let file = File::open(&self.metadata).map_err(Error::io(&self.metadata))?;
        if self.is_unified() {
            return Ok(archive::inspect(file, &archive::Limits::default())?.metadata);
        }
        Ok(archive::read_small(file)?)
    }

    /// Unpacks the root file system into `target`, which must not exist.
    fn unpack(&self, target: &Path, ownership: Ownership) -> Result<()> {
        let mut file = File::open(&self.rootfs).map_err(Error::io(&self.rootfs))?;
        if squashfs::begins(&mut file).map_err(Error::io(&self.rootfs))? {
            return squashfs::as_tar(&self.rootfs, |tar| extract(tar, target, ownership, false));
        }
        extract(file, target, ownership, self.is_unified())
    }
}

/// An image as it lies unpacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unpacked {
    /// Which one.
    pub fingerprint: Fingerprint,
    /// The ids its files have; none: the image's own.
    pub ids: Option<IdMap>,
}

impl Unpacked {
    /// Of the name of its directory.
    pub fn parse(name: &str) -> Option<Self> {
        let (fingerprint, base) = match name.split_once('+') {
            Some((fingerprint, base)) => (fingerprint, Some(base)),
            None => (name, None),
        };
        let ids =
            base.map(|base| base.parse().map(|base| IdMap { base, count: idmap::COUNT })).transpose().ok()?;
        Some(Self { fingerprint: fingerprint.parse().ok()?, ids })
    }

    /// The name of its directory.
    pub fn name(self) -> String {
        self.ids
            .map_or_else(|| self.fingerprint.to_string(), |ids| format!("{}+{}", self.fingerprint, ids.base))
    }

    /// Its directory below that of all images.
    pub fn directory(self, images: &Path) -> PathBuf {
        images.join(self.name())
    }

    /// Where it is while it is unpacked or removed.
    pub fn staging(self, images: &Path) -> PathBuf {
        images.join(format!(".{}", self.name()))
    }

    /// Its root file system.
    pub fn rootfs(self, images: &Path) -> PathBuf {
        self.directory(images).join("rootfs")
    }
}

/// An unpacked image, which nobody removes while this lives.
#[derive(Debug)]
pub struct UnpackedImage {
    /// `metadata.yaml`.
    pub metadata: Metadata,
    #[allow(dead_code, reason = "held for its lock")]
    lock: DirLock,
}

impl UnpackedImage {
    /// The unpacked image with these ids; unpacks it if it is not there yet.
    pub fn get(images: &Path, files: &ImageFiles, ids: Option<IdMap>) -> Result<Self> {
        let image = Unpacked { fingerprint: files.fingerprint, ids };
        let dir = image.directory(images);
        loop {
            if let Some(lock) = DirLock::shared(&dir)? {
                let path = dir.join("metadata.yaml");
                let metadata = Metadata::parse(&fs::read(&path).map_err(Error::io(&path))?)?;
                return Ok(Self { metadata, lock });
            }
            unpack_once(images, image, files)?;
        }
    }
}

/// Unpacks an image unless somebody else does.
pub(super) fn unpack_once(images: &Path, image: Unpacked, files: &ImageFiles) -> Result<()> {
    let Some(staging) = Staging::begin(images, image)? else { return Ok(()) };
    files.unpack(&staging.rootfs(), staging.ownership())?;
    staging.finish(files)
}

/// A directory in which an image is unpacked, locked, and removed unless it is finished.
struct Staging {
    image: Unpacked,
    dir: PathBuf,
    path: PathBuf,
    finished: bool,
    _lock: DirLock,
}

impl Staging {
    /// `None` when somebody else has unpacked it meanwhile.
    fn begin(images: &Path, image: Unpacked) -> Result<Option<Self>> {
        let (dir, path) = (image.directory(images), image.staging(images));
        fs::create_dir_all(&path).map_err(Error::io(&path))?;
        let Some(lock) = DirLock::exclusive_patient(&path)? else { return Ok(None) };
        if dir.exists() {
            // Somebody else was done between our look and our lock, and we made an empty directory.
            fs::remove_dir(&path).map_err(Error::io(&path))?;
            return Ok(None);
        }
        let staging = Self { image, dir, path, finished: false, _lock: lock };
        empty(&staging.path)?;
        Ok(Some(staging))
    }

    /// Unpacks the root file system. Ends with a sync of the file system.
    fn fill(self, rootfs: impl Read + Send) -> Result<Self> {
        extract(rootfs, &self.rootfs(), self.ownership(), false)?;
        Ok(self)
    }

    fn rootfs(&self) -> PathBuf {
        self.path.join("rootfs")
    }

    fn ownership(&self) -> Ownership {
        self.image.ids.map_or(Ownership::Keep, shifted)
    }

    /// Puts the metadata beside it, and the whole in its place.
    fn finish(mut self, files: &ImageFiles) -> Result<()> {
        describe(&self.path, files)?;
        atomic::rename(&self.path, &self.dir)?;
        self.finished = true;
        Ok(())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if !self.finished {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// An image unpacked while it came. Nobody sees it until [`Prepared::finish`], which is for who has
/// verified it; dropped, it goes.
pub struct Prepared(Staging);

impl Prepared {
    /// Unpacks a root file system; `None` when the image lies unpacked already.
    pub(super) fn new(images: &Path, image: Unpacked, rootfs: impl Read + Send) -> Result<Option<Self>> {
        if image.directory(images).exists() {
            return Ok(None);
        }
        let Some(staging) = Staging::begin(images, image)? else { return Ok(None) };
        staging.fill(rootfs).map(|staging| Some(Self(staging)))
    }

    /// Makes it the image that containers are made from. The caller has proved that what was unpacked is
    /// the image of these files.
    pub fn finish(self, files: &ImageFiles) -> Result<()> {
        if self.0.image.fingerprint != files.fingerprint {
            return Ok(()); // Another image: it goes.
        }
        self.0.finish(files)
    }
}

impl std::fmt::Debug for Prepared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Prepared").field(&self.0.path).finish()
    }
}

fn describe(staging: &Path, files: &ImageFiles) -> Result<()> {
    let members = files.members()?;
    let is_template = |path: &Path| {
        let mut parts = path.components();
        parts.next() == Some(Component::Normal("templates".as_ref()))
            && matches!(parts.next(), Some(Component::Normal(_)))
            && parts.next().is_none()
    };
    let templates = staging.join("templates");
    fs::create_dir(&templates).map_err(Error::io(&templates))?;
    let mut yaml = None;
    for (path, member) in members {
        if path == Path::new("metadata.yaml") {
            let parsed = Metadata::parse(&member.data)?;
            check_architecture(&parsed)?;
            yaml = Some(member.data);
        } else if is_template(&path) {
            write(&staging.join(path), &member.data)?;
        }
    }
    let yaml = yaml.ok_or_else(|| ImageError::Document {
        document: files.metadata.display().to_string(),
        reason: "it holds no metadata.yaml".into(),
    })?;
    write(&staging.join("metadata.yaml"), &yaml)?;
    Ok(atomic::sync_dir(&templates)?)
}

/// Writes a file that is on disk when this returns.
fn write(path: &Path, data: &[u8]) -> Result<()> {
    let mut file = File::create_new(path).map_err(Error::io(path))?;
    file.write_all(data).and_then(|()| file.sync_all()).map_err(Error::io(path))
}

/// Unpacks a root file system into `target`, which must not exist, with its ids moved into a
/// container's range: for kernels and file systems that cannot map ids.
pub fn extract_shifted(files: &ImageFiles, target: &Path, map: IdMap) -> Result<()> {
    files.unpack(target, shifted(map))
}

fn shifted(map: IdMap) -> Ownership {
    Ownership::Shift { base: map.base, count: map.count }
}

fn extract(rootfs: impl Read + Send, target: &Path, ownership: Ownership, unified: bool) -> Result<()> {
    fs::create_dir(target).map_err(Error::io(target))?;
    let options = ExtractOptions { devices: Devices::Skip, ownership, unified, ..ExtractOptions::default() };
    archive::extract(rootfs, target, &options)?;
    Ok(())
}

fn check_architecture(metadata: &Metadata) -> Result<()> {
    let image: Architecture = metadata.architecture.parse()?;
    let host = std::env::consts::ARCH;
    let runs = match host {
        "x86_64" => ["amd64", "i386"].contains(&image.debian()),
        "aarch64" => ["arm64", "armhf", "armel"].contains(&image.debian()),
        _ => host.parse::<Architecture>().is_ok_and(|host| host == image),
    };
    if runs {
        Ok(())
    } else {
        Err(Error::Architecture { image: metadata.architecture.clone(), host: host.into() })
    }
}

fn empty(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir).map_err(Error::io(dir))? {
        let entry = entry.map_err(Error::io(dir))?;
        let path = entry.path();
        let is_dir = entry.file_type().map_err(Error::io(&path))?.is_dir();
        let removed = if is_dir { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.map_err(Error::io(&path))?;
    }
    Ok(())
}
