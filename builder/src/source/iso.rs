//! Installation media (ISO 9660) of live systems, which have their root file system in a squashfs
//! file. libarchive's bsdtar reads them, so that nothing has to be mounted.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use millstream_image::archive::Limits;
use millstream_runtime::CancelToken;

use crate::{Error, Result};

/// Where the first volume descriptor says what it is.
const MARK_AT: u64 = 16 * 2048 + 1;
const MARK: &[u8; 5] = b"CD001";

/// Where live systems have their root file system.
const PLACES: [&str; 2] = ["live/filesystem.squashfs", "LiveOS/squashfs.img"];

/// Whether a file is one of an ISO 9660 file system.
pub(super) fn is_iso(file: &mut File) -> bool {
    let mut mark = [0; MARK.len()];
    file.seek(SeekFrom::Start(MARK_AT)).is_ok() && file.read_exact(&mut mark).is_ok() && mark == *MARK
}

/// Takes the root file system's squashfs file out of `iso` into `directory`.
pub(super) fn root_file_system(iso: &Path, directory: &Path, cancel: &CancelToken) -> Result<PathBuf> {
    let target = directory.join("filesystem.squashfs");
    for place in PLACES {
        if take(iso, place, &target, cancel)? {
            return Ok(target);
        }
    }
    Err(Error::Refused(format!(
        "{}: this installation medium has no live system ({}); use an archive of a root file system",
        iso.display(),
        PLACES.join(", ")
    )))
}

/// Whether there is such a file; then it is in `target`.
fn take(iso: &Path, place: &str, target: &Path, cancel: &CancelToken) -> Result<bool> {
    let mut command = Command::new("bsdtar");
    command.arg("-xOf").arg(iso).arg(place);
    let started = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    let mut child = started.map_err(|error| {
        Error::Refused(format!(
            "{}: this is an installation medium, which needs the program bsdtar ({error}); \
             install the package libarchive-tools",
            iso.display()
        ))
    })?;
    let output = child.stdout.take().ok_or_else(|| Error::Internal("bsdtar has no output".into()))?;
    let copied = copy(output, target, Limits::default().unpacked, cancel);
    if copied.is_err() {
        let _ = child.kill();
    }
    let status = child.wait().map_err(Error::io(iso))?;
    Ok(copied? > 0 && status.success())
}

fn copy(mut from: impl Read, target: &Path, limit: u64, cancel: &CancelToken) -> Result<u64> {
    let mut file = File::create(target).map_err(Error::io(target))?;
    let mut buffer = vec![0; 256 << 10];
    let mut total = 0;
    loop {
        cancel.check()?;
        let count = from.read(&mut buffer).map_err(Error::io(target))?;
        if count == 0 {
            return Ok(total);
        }
        total += count as u64;
        if total > limit {
            return Err(Error::Refused(format!(
                "the root file system has more than the {limit} bytes allowed"
            )));
        }
        file.write_all(&buffer[..count]).map_err(Error::io(target))?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_larger_than_allowed_is_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("x");
        let cancel = CancelToken::default();
        assert_eq!(copy(&b"abc"[..], &target, 3, &cancel).unwrap(), 3);
        let text = copy(std::io::repeat(0), &target, 1 << 20, &cancel).unwrap_err().to_string();
        assert!(text.contains("allowed"), "{text}");
    }

    #[test]
    fn a_short_file_is_no_medium() {
        assert!(!is_iso(&mut tempfile::tempfile().unwrap()));
    }
}
