//! Copying an image out of the store.

use std::fs::{self, File, Permissions};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use millstream_image::digest::HashingReader;
use millstream_image::{Fingerprint, atomic};
use tempfile::NamedTempFile;

use super::{Store, StoredImage};
use crate::{Error, Result};

const METADATA: &str = "lxd.tar.xz";

impl Store {
    /// Copies an image's files into `dir`, made if missing, as `lxd.tar.xz` and under the root
    /// file system's own name. What is written has been hashed on the way: it is the image, or
    /// nothing is there. Files of those names are replaced.
    pub fn export(&self, image: &StoredImage, dir: &Path) -> Result<Vec<PathBuf>> {
        fs::create_dir_all(dir).map_err(Error::io(dir))?;
        let image = &self.complete(image)?;
        let open = |path: &Path| File::open(path).map(BufReader::new).map_err(Error::io(path));
        let temp = || {
            tempfile::Builder::new()
                .permissions(Permissions::from_mode(0o644))
                .tempfile_in(dir)
                .map_err(Error::io(dir))
        };
        let (mut metadata, mut rootfs) = (temp()?, temp()?);
        let split = image.metadata.metadata().map_err(Error::io(&image.metadata))?.len();
        let mut both = HashingReader::new(open(&image.metadata)?.chain(open(&image.rootfs)?));
        io::copy(&mut both.by_ref().take(split), &mut metadata).map_err(Error::io(dir))?;
        io::copy(&mut both, &mut rootfs).map_err(Error::io(dir))?;
        let found = Fingerprint::new(both.finish());
        if found != image.fingerprint {
            return Err(self.damaged_image(image, found));
        }
        let name = image.rootfs.file_name().unwrap_or_default();
        let files = vec![dir.join(METADATA), dir.join(name)];
        for (temp, file) in [metadata, rootfs].into_iter().zip(&files) {
            persist(temp, file)?;
        }
        atomic::sync_dir(dir)?;
        Ok(files)
    }
}

fn persist(temp: NamedTempFile, file: &Path) -> Result<()> {
    temp.as_file().sync_all().map_err(Error::io(file))?;
    temp.persist(file).map_err(|e| Error::io(file)(e.error))?;
    Ok(())
}
