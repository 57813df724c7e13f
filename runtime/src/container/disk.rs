//! What a container takes of the disk.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use super::name::ContainerName;
use super::record::Config;
use super::runtime::Runtime;
use crate::Result;

impl Runtime {
    /// Bytes on disk of what a container and its snapshots have changed, and of its copy of the image if
    /// it has one. An image that is shared is not counted; layers shared with copies are, with each.
    pub fn disk_usage(&self, name: &ContainerName) -> Result<u64> {
        let directory = self.existing(name)?;
        let snapshots = self.snapshots(name)?.into_iter().map(|(_, snapshot)| snapshot.config().clone());
        let configs = snapshots.chain([Config::read(&directory)?]);
        let layers: BTreeSet<_> = configs.flat_map(|config| config.layers).map(|layer| layer.id).collect();
        let mut waiting: Vec<PathBuf> = layers.iter().map(|id| self.layer(id)).collect();
        waiting.push(directory);
        let (mut total, mut seen) = (0, BTreeSet::new());
        while let Some(path) = waiting.pop() {
            // What a running container removes meanwhile takes nothing.
            let Ok(found) = fs::symlink_metadata(&path) else { continue };
            if found.nlink() > 1 && !found.is_dir() && !seen.insert((found.dev(), found.ino())) {
                continue;
            }
            // Blocks are counted in half kibibytes, whatever the file system's.
            total += found.blocks() * 512;
            if found.is_dir() {
                waiting.extend(fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()));
            }
        }
        Ok(total)
    }
}
