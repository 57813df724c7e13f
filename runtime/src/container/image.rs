//! Images unpacked once, shared by all containers made from them.
//!
//! `images/FINGERPRINT/` holds `rootfs/`, `metadata.yaml` and `templates/`. It appears by the rename
//! of `images/.FINGERPRINT/`, which whoever unpacks has locked. Files keep the image's own ids, set-user-ID
//! programs included, so that the directory above must be closed to other users.

use std::fs::{self, File};
use std::path::{Component, Path, PathBuf};

use millstream_image::archive::{self, Devices, ExtractOptions, Ownership};
use millstream_image::metadata::Metadata;
use millstream_image::{Architecture, Error as ImageError, Fingerprint, atomic};

use super::idmap::IdMap;
use super::lock::DirLock;
use crate::{Error, Result};

/// The directory of unpacked images below that of the containers.
pub const DIRECTORY: &str = "images";

/// An image as files: split, as LXD and Incus have it.
#[derive(Clone, Debug)]
pub struct ImageFiles {
    /// SHA-256 of metadata and root file system, one after the other.
    pub fingerprint: Fingerprint,
    /// `lxd.tar.xz` or `incus.tar.xz`: `metadata.yaml` and templates.
    pub metadata: PathBuf,
    /// `rootfs.tar.xz`, in any compression.
    pub rootfs: PathBuf,
}

impl ImageFiles {
    /// Looks into a directory as `millstream build` leaves it: `lxd.tar.xz` or `incus.tar.xz` beside
    /// `rootfs.tar.xz`. Reads both to compute the fingerprint.
    pub fn in_directory(dir: &Path) -> Result<Self> {
        let names = ["lxd.tar.xz", "incus.tar.xz"];
        let metadata = names.map(|name| dir.join(name)).into_iter().find(|path| path.is_file());
        let metadata = metadata.unwrap_or_else(|| dir.join(names[0]));
        let rootfs = dir.join("rootfs.tar.xz");
        let open = |path: &Path| File::open(path).map_err(Error::io(path));
        let fingerprint = Fingerprint::of_split(open(&metadata)?, open(&rootfs)?).map_err(Error::io(dir))?;
        Ok(Self { fingerprint, metadata, rootfs })
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
    /// The root file system, with the image's own ids.
    pub fn rootfs(dir: &Path) -> PathBuf {
        dir.join("rootfs")
    }

    /// The unpacked image; unpacks it if it is not there yet.
    pub fn get(images: &Path, files: &ImageFiles) -> Result<Self> {
        let dir = images.join(files.fingerprint.to_string());
        loop {
            if let Some(lock) = DirLock::shared(&dir)? {
                let path = dir.join("metadata.yaml");
                let metadata = Metadata::parse(&fs::read(&path).map_err(Error::io(&path))?)?;
                return Ok(Self { metadata, lock });
            }
            unpack_once(images, &dir, files)?;
        }
    }
}

fn unpack_once(images: &Path, dir: &Path, files: &ImageFiles) -> Result<()> {
    let staging = images.join(format!(".{}", files.fingerprint));
    fs::create_dir_all(&staging).map_err(Error::io(&staging))?;
    let Some(_lock) = DirLock::exclusive_patient(&staging)? else { return Ok(()) };
    if dir.exists() {
        // Somebody else was done between our look and our lock, and we made an empty directory.
        return fs::remove_dir(&staging).map_err(Error::io(&staging));
    }
    empty(&staging)?;
    let unpacked = unpack(&staging, files);
    if let Err(error) = unpacked {
        let _ = fs::remove_dir_all(&staging);
        return Err(error);
    }
    Ok(atomic::rename(&staging, dir)?)
}

fn unpack(staging: &Path, files: &ImageFiles) -> Result<()> {
    let open = |path: &Path| File::open(path).map_err(Error::io(path));
    let members = archive::read_small(open(&files.metadata)?)?;
    let is_template = |path: &Path| {
        let mut parts = path.components();
        parts.next() == Some(Component::Normal("templates".as_ref()))
            && matches!(parts.next(), Some(Component::Normal(_)))
            && parts.next().is_none()
    };
    let templates = staging.join("templates");
    fs::create_dir(&templates).map_err(Error::io(&templates))?;
    let mut metadata = None;
    for (path, member) in members {
        if path == Path::new("metadata.yaml") {
            let parsed = Metadata::parse(&member.data)?;
            check_architecture(&parsed)?;
            metadata = Some(member.data);
        } else if is_template(&path) {
            let path = staging.join(path);
            fs::write(&path, member.data).map_err(Error::io(&path))?;
        }
    }
    let path = staging.join("metadata.yaml");
    let metadata = metadata.ok_or_else(|| ImageError::Document {
        document: files.metadata.display().to_string(),
        reason: "it holds no metadata.yaml".into(),
    })?;
    fs::write(&path, metadata).map_err(Error::io(&path))?;
    // Unpacking ends with a sync of the file system, which takes these small files along.
    extract(&files.rootfs, &UnpackedImage::rootfs(staging), Ownership::Keep)
}

/// Unpacks a root file system into `target`, which must not exist, with its ids moved into a
/// container's range: for kernels and file systems that cannot map ids.
pub fn extract_shifted(rootfs: &Path, target: &Path, map: IdMap) -> Result<()> {
    extract(rootfs, target, Ownership::Shift { base: map.base, count: map.count })
}

fn extract(rootfs: &Path, target: &Path, ownership: Ownership) -> Result<()> {
    fs::create_dir(target).map_err(Error::io(target))?;
    let options = ExtractOptions { devices: Devices::Skip, ownership, ..ExtractOptions::default() };
    let file = File::open(rootfs).map_err(Error::io(rootfs))?;
    archive::extract(file, target, &options)?;
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
