//! Root file systems as squashfs. squashfs-tools-ng writes them as a tar archive, which is unpacked with
//! every check there is: the kernel never mounts an image.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::Path;
use std::process::{ChildStdout, Command, Stdio};

use millstream_image::Error as ImageError;

use crate::{Error, Result};

const MAGIC: &[u8] = b"hsqs";

/// Whether a file begins as a squashfs does; leaves it at its beginning.
pub(super) fn begins(file: &mut File) -> io::Result<bool> {
    let mut start = Vec::new();
    file.take(MAGIC.len() as u64).read_to_end(&mut start)?;
    file.rewind()?;
    Ok(start == MAGIC)
}

/// Gives `read` the root file system as a tar archive.
pub(super) fn as_tar(path: &Path, read: impl FnOnce(ChildStdout) -> Result<()>) -> Result<()> {
    let wrong =
        |reason: String| Error::from(ImageError::Document { document: path.display().to_string(), reason });
    let started = Command::new("sqfs2tar")
        .arg(path)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let mut child = started.map_err(|error| {
        wrong(format!(
            "squashfs is read by the program sqfs2tar ({error}); install the package squashfs-tools-ng"
        ))
    })?;
    let result = child.stdout.take().map_or_else(|| Err(wrong("sqfs2tar has no output".into())), read);
    // When reading has failed, its end of the pipe is closed, and the program ends.
    let status = child.wait().map_err(Error::io(path))?;
    result?;
    if status.success() { Ok(()) } else { Err(wrong("this squashfs is damaged".into())) }
}
