//! Copying an image out of the store.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::{self, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use millstream_image::digest::HashingWriter;
use millstream_image::{Fingerprint, atomic};
use tempfile::NamedTempFile;

use super::{Store, StoredImage};
use crate::{Error, Result};

const METADATA: &str = "lxd.tar.xz";
/// What a fetch calls it.
const FETCHED_METADATA: &str = "metadata.tar.xz";

impl Store {
    /// Copies an image's files into `dir`, made if missing, as `lxd.tar.xz` and under the root file
    /// system's own name, or as `unified.tar.xz`. What is written has been hashed on the way: it is the
    /// image, or nothing is there. Files of those names are replaced.
    pub fn export(&self, image: &StoredImage, dir: &Path) -> Result<Vec<PathBuf>> {
        image.expect_files()?;
        fs::create_dir_all(dir).map_err(Error::io(dir))?;
        let image = &self.complete(image)?;
        let open = |path: &Path| File::open(path).map(BufReader::new).map_err(Error::io(path));
        let temp = || {
            tempfile::Builder::new()
                .permissions(Permissions::from_mode(0o644))
                .tempfile_in(dir)
                .map_err(Error::io(dir))
        };
        let mut written = Vec::new();
        let mut hash = HashingWriter::new(io::sink());
        let sources = [&image.metadata, &image.rootfs];
        for source in if image.is_unified() { &sources[1..] } else { &sources[..] } {
            let mut out = temp()?;
            io::copy(&mut open(source)?, &mut Both(&mut hash, &mut out)).map_err(Error::io(dir))?;
            written.push((out, dir.join(exported_name(source))));
        }
        let found = Fingerprint::new(hash.finish().1);
        if found != image.fingerprint {
            return Err(self.damaged_image(image, found));
        }
        let files = written.iter().map(|(_, file)| file.clone()).collect();
        written.into_iter().try_for_each(|(temp, file)| persist(temp, &file))?;
        atomic::sync_dir(dir)?;
        Ok(files)
    }
}

/// Writes to both.
struct Both<'a>(&'a mut HashingWriter<io::Sink>, &'a mut NamedTempFile);

impl Write for Both<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let count = self.1.write(buffer)?;
        self.0.write_all(&buffer[..count])?;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.1.flush()
    }
}

/// The name others know a file by.
fn exported_name(source: &Path) -> &OsStr {
    let name = source.file_name().unwrap_or_default();
    if name == FETCHED_METADATA { OsStr::new(METADATA) } else { name }
}

fn persist(temp: NamedTempFile, file: &Path) -> Result<()> {
    temp.as_file().sync_all().map_err(Error::io(file))?;
    temp.persist(file).map_err(|e| Error::io(file)(e.error))?;
    Ok(())
}
