//! Whether files are an image.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use millstream_image::Architecture;
use millstream_image::archive::{self, Limits, Member};
use millstream_image::metadata::Metadata;
use millstream_image::squashfs::Superblock;

use crate::{Error, Result};

const YAML: &str = "metadata.yaml";
pub(crate) const SQUASHFS: &[u8] = b"hsqs";

/// What an image says of itself.
pub(crate) struct Described {
    pub(crate) architecture: Architecture,
    pub(crate) properties: BTreeMap<String, String>,
    /// Seconds since 1970.
    pub(crate) created: i64,
}

/// Reads an image's files to their ends. `metadata` and `rootfs` are one file when it is unified.
pub(crate) fn image(metadata: &Path, rootfs: &Path) -> Result<Described> {
    let wrong = |path: &Path, reason: String| Error::document(path.display().to_string(), reason);
    let members = if metadata == rootfs { unified(rootfs)? } else { split(metadata, rootfs)? };
    let yaml = members
        .get(Path::new(YAML))
        .ok_or_else(|| wrong(metadata, format!("it holds no {YAML}, so it is no image of LXD or Incus")))?;
    let found = Metadata::parse(&yaml.data).map_err(|e| wrong(metadata, e.to_string()))?;
    for template in found.templates.values() {
        if !members.contains_key(&Path::new("templates").join(&template.template)) {
            return Err(wrong(
                metadata,
                format!("{YAML} names a template {:?} that is not there", template.template),
            ));
        }
    }
    let architecture = found.architecture.parse()?;
    Ok(Described { architecture, properties: found.properties, created: found.creation_date })
}

type Members = BTreeMap<PathBuf, Member>;

fn unified(path: &Path) -> Result<Members> {
    let wrong = |reason: &str| Error::document(path.display().to_string(), reason);
    if is_squashfs(path)? {
        return Err(wrong("it is a root file system; name the metadata archive before it"));
    }
    let contents = archive::inspect(open(path)?, &Limits::default())
        .map_err(|e| Error::document(path.display().to_string(), e))?;
    if !contents.has_rootfs && contents.metadata.contains_key(Path::new(YAML)) {
        return Err(wrong("it holds metadata only; name the root file system after it"));
    }
    if !contents.has_rootfs {
        return Err(wrong("it is no image: it holds neither metadata.yaml nor rootfs/"));
    }
    Ok(contents.metadata)
}

fn split(metadata: &Path, rootfs: &Path) -> Result<Members> {
    let wrong = |reason: String| Error::document(rootfs.display().to_string(), reason);
    let members = archive::read_small(open(metadata)?)
        .map_err(|e| Error::document(metadata.display().to_string(), e))?;
    let file = open(rootfs)?;
    if is_squashfs(rootfs)? {
        let size = file.metadata().map_err(Error::io(rootfs))?.len();
        Superblock::read(file, size).map_err(|e| wrong(e.to_string()))?;
    } else {
        let contents = archive::inspect(file, &Limits::default()).map_err(|e| wrong(e.to_string()))?;
        if contents.entries == 0 {
            return Err(wrong("it is empty".into()));
        }
    }
    Ok(members)
}

/// Whether a file begins as a squashfs does.
pub(super) fn is_squashfs(path: &Path) -> Result<bool> {
    Ok(start(path)? == SQUASHFS)
}

/// The extension that says how an archive is compressed.
pub(super) fn extension(path: &Path) -> Result<&'static str> {
    let mut start = [0; 6];
    let mut file = open(path)?;
    let count = file.read(&mut start).map_err(Error::io(path))?;
    Ok(match archive::Compression::detect(&start[..count]) {
        _ if start.starts_with(SQUASHFS) => ".squashfs",
        archive::Compression::None => ".tar",
        archive::Compression::Gzip => ".tar.gz",
        archive::Compression::Zstd => ".tar.zst",
        archive::Compression::Xz => ".tar.xz",
    })
}

fn start(path: &Path) -> Result<[u8; 4]> {
    let mut start = [0; 4];
    let mut file = open(path)?;
    file.read(&mut start).map_err(Error::io(path))?;
    Ok(start)
}

fn open(path: &Path) -> Result<File> {
    File::open(path).map_err(Error::io(path))
}
