//! One build of a product at a time. The lock dies with the process that builds.

use std::fs::{self, File};
use std::path::Path;

use millstream_image::{Product, Sha256Digest};
use rustix::fs::{FlockOperation, flock};

use crate::{Error, Result};

/// Held while a product is built.
#[must_use]
pub struct BuildLock(#[expect(dead_code, reason = "closing it is what unlocks")] File);

/// Locks a product of the stream at `root`; `None` when somebody else builds it. Locks are files in
/// `dir`.
pub fn lock(dir: &Path, root: &Path, product: &Product) -> Result<Option<BuildLock>> {
    fs::create_dir_all(dir).map_err(Error::io(dir))?;
    let root = fs::canonicalize(root).map_err(Error::io(root))?;
    let stream = Sha256Digest::of(root.as_os_str().as_encoded_bytes()).to_string();
    let path = dir.join(format!("{}-{}", product.to_string().replace(':', "-"), &stream[..12]));
    let file = File::options().write(true).create(true).truncate(false).open(&path);
    let file = file.map_err(Error::io(&path))?;
    Ok(flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok().then_some(BuildLock(file)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_product_of_a_stream_is_locked_by_one() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let product: Product = "debian:trixie:amd64:default".parse().unwrap();
        let other: Product = "debian:trixie:amd64:cloud".parse().unwrap();
        let held = lock(dir.path(), one.path(), &product).unwrap().unwrap();
        assert!(lock(dir.path(), one.path(), &product).unwrap().is_none());
        assert!(lock(dir.path(), one.path(), &other).unwrap().is_some());
        assert!(lock(dir.path(), two.path(), &product).unwrap().is_some());
        drop(held);
        assert!(lock(dir.path(), one.path(), &product).unwrap().is_some());
    }
}
