//! Images out of containers.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use millstream_image::archive::{Compression, Member, PackOptions, pack, pack_members};
use millstream_image::metadata::Metadata;
use rustix::process::fchdir;

use super::files::{Message, Work};
use super::image::ImageFiles;
use super::lock::DirLock;
use super::name::ContainerName;
use super::record::{Config, new_id, now};
use super::runtime::{Runtime, STAGING};
use super::visit::{receive, send};
use crate::{Error, Result};

impl Runtime {
    /// Makes an image of a stopped container, or of a snapshot of any: `lxd.tar.xz` and `rootfs.tar.xz`
    /// in `directory`, which must exist. The image's properties are those of the image the container was made
    /// from, replaced by `properties`; an empty value takes one away. Templates are kept.
    pub fn publish(
        &self,
        name: &ContainerName,
        snapshot: Option<&ContainerName>,
        directory: &Path,
        properties: &BTreeMap<String, String>,
    ) -> Result<ImageFiles> {
        let (container, _lock, config) = match snapshot {
            Some(snapshot) => self.snapshot_alone(name, snapshot)?,
            None => self.stopped(name)?,
        };
        let packed = self
            .metadata(&config, directory, properties)
            .and_then(|()| self.pack_root(name, &container, &config, &directory.join("rootfs.tar.xz")));
        if snapshot.is_some() {
            let _ = fs::remove_dir_all(&container);
        }
        packed?;
        ImageFiles::in_directory(directory)
    }

    /// A directory with a snapshot's layers and nothing over them, locked. It is removed with what
    /// interrupted commands left, should we be one.
    fn snapshot_alone(
        &self,
        name: &ContainerName,
        snapshot: &ContainerName,
    ) -> Result<(PathBuf, DirLock, Config)> {
        let config = self.snapshot_config(name, snapshot)?;
        let directory = self.dir().join(format!("{STAGING}{}", new_id()?));
        fs::create_dir(&directory).map_err(Error::io(&directory))?;
        let gone = || Error::NotFound { name: name.to_string() };
        let lock = DirLock::exclusive(&directory)?.ok_or_else(gone)?;
        self.empty_upper(&directory, &config)?;
        Ok((directory, lock, config))
    }

    fn metadata(
        &self,
        config: &Config,
        directory: &Path,
        properties: &BTreeMap<String, String>,
    ) -> Result<()> {
        let image = config.unpacked().directory(&self.images());
        let read = |path: &Path| fs::read(path).map_err(Error::io(path));
        let mut metadata = Metadata::parse(&read(&image.join("metadata.yaml"))?)?;
        metadata.creation_date = now();
        metadata.expiry_date = None;
        metadata.properties.extend(properties.clone());
        metadata.properties.retain(|_, value| !value.is_empty());
        let mut members = BTreeMap::new();
        for template in metadata.templates.values() {
            let path = Path::new("templates").join(&template.template);
            members.insert(path.clone(), Member::file(read(&image.join(&path))?));
        }
        members.insert("metadata.yaml".into(), Member::file(metadata.to_yaml()?));
        let path = directory.join("lxd.tar.xz");
        let out = File::create(&path).map_err(Error::io(&path))?;
        let options = PackOptions { epoch: now(), compression: Compression::Xz, ..PackOptions::default() };
        let (out, _) = pack_members(&members, out, &options)?;
        out.sync_all().map_err(Error::io(&path))
    }

    fn pack_root(&self, name: &ContainerName, container: &Path, config: &Config, path: &Path) -> Result<()> {
        let refused = |reason: String| Error::Files { name: name.to_string(), reason };
        let mut out = File::create(path).map_err(Error::io(path))?;
        let mut visit = Self::visit_layers(self.layers(container, config), Work::Pack)?;
        loop {
            match receive(&mut visit.output).map_err(|e| refused(e.to_string()))? {
                Message::Data(count) => {
                    let mut data = (&mut visit.output).take(count.into());
                    io::copy(&mut data, &mut out).map_err(Error::io(path))?;
                }
                Message::Done => return out.sync_all().map_err(Error::io(path)),
                Message::Failed(reason) => return Err(refused(reason)),
                Message::Entry(_) => return Err(refused("an unexpected answer came".into())),
            }
        }
    }
}

/// The container's part: everything below its root, owners as it sees them.
pub(super) fn pack_tree(root: &OwnedFd, output: &mut impl Write) -> std::result::Result<(), String> {
    // The only way to the root that needs nothing of the host's /proc.
    fchdir(root).map_err(|e| format!("/: {e}"))?;
    let options = PackOptions { compression: Compression::Xz, ..PackOptions::default() };
    pack(Path::new("."), Framed(output), &options).map(drop).map_err(|e| e.to_string())
}

/// Sends what is written as messages.
struct Framed<W>(W);

impl<W: Write> Write for Framed<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if !data.is_empty() {
            send(&mut self.0, &Message::Data(data.len() as u32))?;
            self.0.write_all(data)?;
        }
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}
