//! A fetched file becomes the root file system, whatever kind of archive it is.

use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use bzip2::bufread::MultiBzDecoder;
use millstream_image::archive::{ExtractOptions, Limits, extract};
use millstream_runtime::CancelToken;

use super::{iso, oci, wildcard};
use crate::{Error, Result};

/// A source tree such as Gentoo's has more files than an image.
const ENTRIES: u64 = 1_000_000;

/// How a file is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// tar, compressed or not.
    Tar,
    /// squashfs.
    Squashfs,
    /// tar, compressed with bzip2.
    Bzip2,
    /// ISO 9660, as installation media are.
    Iso,
    /// zip.
    Zip,
}

fn kind(file: &Path) -> Result<Kind> {
    let mut start = [0; 4];
    let mut file = BufReader::new(File::open(file).map_err(Error::io(file))?);
    let mut at = 0;
    while at < start.len() {
        match file.read(&mut start[at..]).map_err(Error::io("archive"))? {
            0 => break,
            count => at += count,
        }
    }
    Ok(match &start {
        b"hsqs" => Kind::Squashfs,
        _ if iso::is_iso(&mut file.into_inner()) => Kind::Iso,
        [b'B', b'Z', b'h', _] => Kind::Bzip2,
        b"PK\x03\x04" => Kind::Zip,
        _ => Kind::Tar,
    })
}

/// Makes `file` the contents of the empty directory `root`: the directory `inside` of it, when that
/// is not empty. An archive of an OCI or Docker image is taken for that image.
///
/// # Errors
/// Also when `inside` is not there.
pub(super) fn unpack(file: &Path, root: &Path, inside: &str, image: &oci::Wanted<'_>) -> Result<()> {
    let parent = root.parent().unwrap_or(Path::new("."));
    let staging = tempfile::Builder::new().prefix("unpack-").tempdir_in(parent).map_err(Error::io(parent))?;
    let top = staging.path().join("root");
    fs::create_dir(&top).map_err(Error::io(&top))?;
    fs::set_permissions(&top, PermissionsExt::from_mode(0o755)).map_err(Error::io(&top))?;
    let options = ExtractOptions {
        limits: Limits { entries: ENTRIES, ..Limits::default() },
        ..ExtractOptions::default()
    };
    let shown = file.display();
    match kind(file)? {
        Kind::Tar => {
            let archive = File::open(file).map_err(Error::io(file))?;
            extract(Watched { inner: archive, cancel: image.cancel }, &top, &options)?;
        }
        Kind::Squashfs => squashfs(file, &top, &options)?,
        Kind::Bzip2 => {
            let archive = File::open(file).map_err(Error::io(file))?;
            let plain = MultiBzDecoder::new(BufReader::new(archive));
            extract(Watched { inner: plain, cancel: image.cancel }, &top, &options)?;
        }
        Kind::Iso => {
            let inner = iso::root_file_system(file, staging.path(), image.cancel)?;
            squashfs(&inner, &top, &options)?;
        }
        Kind::Zip => {
            return Err(Error::Refused(format!(
                "{shown}: zip keeps neither owners nor links, so it is no root file system; use a tar archive"
            )));
        }
    }
    if oci::is_image(&top) {
        return oci::unpack_directory(&top, root, image);
    }
    let found = find_inside(&top, inside)?;
    fs::rename(&found, root).map_err(Error::io(root))
}

fn find_inside(top: &Path, inside: &str) -> Result<PathBuf> {
    let mut at = top.to_path_buf();
    for part in inside.split('/').filter(|part| !part.is_empty()) {
        let listing = fs::read_dir(&at).map_err(Error::io(&at))?.flatten();
        let mut names: Vec<_> = listing.map(|item| item.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        let found = names.iter().find(|name| wildcard::matches(part, name)).map(|name| at.join(name));
        at = found.filter(|path| path.symlink_metadata().is_ok_and(|meta| meta.is_dir())).ok_or_else(
            || {
                Error::Refused(format!(
                    "the archive has no directory {inside} (at its top: {})",
                    names.join(", ")
                ))
            },
        )?;
    }
    Ok(at)
}

/// squashfs is read by squashfs-tools-ng, which writes a tar archive; that is unpacked with every
/// check there is.
fn squashfs(file: &Path, top: &Path, options: &ExtractOptions) -> Result<()> {
    let mut command = Command::new("sqfs2tar");
    let started = command.arg(file).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    let mut child = started.map_err(|error| {
        Error::Refused(format!(
            "{}: this is a squashfs file system, which needs the program sqfs2tar ({error}); \
             install the package squashfs-tools-ng",
            file.display()
        ))
    })?;
    let tar = child.stdout.take().ok_or_else(|| Error::Internal("sqfs2tar has no output".into()))?;
    let extracted = extract(tar, top, options);
    let status = child.wait().map_err(Error::io(file))?;
    extracted?;
    if !status.success() {
        return Err(Error::Refused(format!("{}: this squashfs file system is broken", file.display())));
    }
    Ok(())
}

/// Reading ends with the build.
struct Watched<'a, R> {
    inner: R,
    cancel: &'a CancelToken,
}

impl<R: Read> Read for Watched<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.cancel.check().map_err(std::io::Error::other)?;
        self.inner.read(buffer)
    }
}

/// The time of the newest file below `root`, seconds since 1970: the same for the same archive.
pub(super) fn newest_time(root: &Path) -> Result<i64> {
    let mut newest = 0;
    let mut directories = vec![root.to_path_buf()];
    while let Some(directory) = directories.pop() {
        for item in fs::read_dir(&directory).map_err(Error::io(&directory))? {
            let item = item.map_err(Error::io(&directory))?;
            let meta = item.metadata().map_err(Error::io(item.path()))?;
            if meta.is_dir() {
                directories.push(item.path());
            } else {
                newest = newest.max(meta.mtime());
            }
        }
    }
    Ok(newest)
}
