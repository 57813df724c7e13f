//! OCI image layouts: one layer, and the documents around it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use chrono::DateTime;
use millstream_image::archive::{Compression, PackOptions, Packed, pack};
use millstream_image::oci::{
    Config, Descriptor, Digest, History, ImageConfig, Index, Manifest, Platform, RootFs, layout, media_type,
};
use millstream_image::{Architecture, Serial, atomic};

use super::Setting;
use crate::recipe::Resolved;
use crate::rootfs::Rootfs;
use crate::{Error, Result};

/// The layout as a directory.
pub(super) const DIRECTORY: &str = "oci";
/// The layout as one file.
pub(super) const FILE: &str = "oci.tar";
/// The name of the image in its layout.
const TAG: &str = "latest";
/// Files a layer means as removals; a root file system cannot hold such names.
const WHITEOUT: &[u8] = b".wh.";

/// What the image says of itself.
#[derive(Clone)]
pub(crate) struct About {
    architecture: Architecture,
    /// Seconds since 1970.
    created: i64,
    labels: BTreeMap<String, String>,
    command: &'static str,
    stop_signal: &'static str,
}

impl About {
    /// Of an image made by this recipe at `epoch`.
    pub(crate) fn new(resolved: &Resolved, serial: Serial, epoch: i64, rootfs: &Rootfs) -> Result<Self> {
        let image = &resolved.definition.image;
        let product = &resolved.product;
        let labels = [
            ("org.opencontainers.image.title", image.name.clone()),
            ("org.opencontainers.image.description", image.description.clone()),
            ("org.opencontainers.image.version", serial.to_string()),
            ("org.opencontainers.image.created", rfc3339(epoch)?),
            ("org.millstream.product", product.to_string()),
        ];
        let labels = labels.into_iter().filter(|(_, value)| !value.is_empty());
        let (command, stop_signal) = init(rootfs)?;
        Ok(Self {
            architecture: resolved.architecture,
            created: epoch,
            labels: labels.map(|(key, value)| (key.to_owned(), value)).collect(),
            command,
            stop_signal,
        })
    }
}

/// What a container runs, and the signal that makes it shut down.
fn init(rootfs: &Rootfs) -> Result<(&'static str, &'static str)> {
    if !rootfs.exists("/sbin/init")? {
        return Ok(("/bin/sh", "SIGTERM"));
    }
    let systemd = rootfs.exists("/lib/systemd/systemd")? || rootfs.exists("/usr/lib/systemd/systemd")?;
    // systemd(1): SIGRTMIN+3 halts. Other inits understand none in common; the runtime's default.
    Ok(("/sbin/init", if systemd { "SIGRTMIN+3" } else { "SIGTERM" }))
}

/// Fails for names that a layer cannot hold.
pub(super) fn check(root: &Path) -> Result<()> {
    let mut open = vec![root.to_path_buf()];
    while let Some(directory) = open.pop() {
        for item in fs::read_dir(&directory).map_err(Error::io(&directory))? {
            let item = item.map_err(Error::io(&directory))?;
            if item.file_name().as_bytes().starts_with(WHITEOUT) {
                let path = item.path();
                let inside = path.strip_prefix(root).unwrap_or(&path);
                return Err(Error::Refused(format!(
                    "/{} cannot be in an OCI image, where names that begin with .wh. mean removals",
                    inside.display()
                )));
            }
            if item.file_type().map_err(Error::io(&directory))?.is_dir() {
                open.push(item.path());
            }
        }
    }
    Ok(())
}

/// Writes a layout to `directory`, taking the layer's file into it.
pub(super) fn write(
    directory: &Path,
    layer: &Path,
    setting: Setting,
    packed: &Packed,
    about: &About,
) -> Result<()> {
    let blobs = directory.join("blobs/sha256");
    fs::create_dir_all(&blobs).map_err(Error::io(&blobs))?;
    let media = match setting.compression {
        Compression::None => media_type::LAYER,
        Compression::Zstd => media_type::LAYER_ZSTD,
        Compression::Gzip | Compression::Xz => media_type::LAYER_GZIP,
    };
    let layer_descriptor = Descriptor::new(media, Digest(packed.sha256), packed.size);
    atomic::rename(layer, &directory.join(layer_descriptor.digest.blob_path()))?;
    let config = config(packed, about)?.to_bytes()?;
    let config = blob(directory, media_type::CONFIG, &config)?;
    let mut manifest = Manifest::new(config, vec![layer_descriptor]);
    manifest.annotations.clone_from(&about.labels);
    let mut descriptor = blob(directory, media_type::MANIFEST, &manifest.to_bytes()?)?;
    descriptor.platform = Some(Platform::linux(about.architecture));
    descriptor.annotations.insert(layout::REF_NAME.into(), TAG.into());
    atomic::write(&directory.join(layout::INDEX), &Index::new(vec![descriptor]).to_bytes()?)?;
    atomic::write(&directory.join(layout::MARKER), &layout::marker()?)?;
    date(directory, about.created)
}

/// Packs a layout into one uncompressed archive.
pub(super) fn archive<W: Write>(directory: &Path, out: W, about: &About) -> Result<(W, Packed)> {
    let options =
        PackOptions { epoch: about.created, compression: Compression::None, ..PackOptions::default() };
    Ok(pack(directory, out, &options)?)
}

fn config(packed: &Packed, about: &About) -> Result<ImageConfig> {
    let platform = Platform::linux(about.architecture);
    let created = rfc3339(about.created)?;
    Ok(ImageConfig {
        created: Some(created.clone()),
        architecture: platform.architecture,
        variant: platform.variant,
        os: platform.os,
        config: Config {
            env: vec!["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into()],
            cmd: vec![about.command.into()],
            working_dir: "/".into(),
            labels: about.labels.clone(),
            stop_signal: about.stop_signal.into(),
            ..Config::default()
        },
        rootfs: RootFs { r#type: "layers".into(), diff_ids: vec![Digest(packed.sha256_uncompressed)] },
        history: vec![History {
            created: Some(created),
            created_by: Some("millstream".into()),
            empty_layer: false,
        }],
    })
}

fn blob(directory: &Path, media: &str, data: &[u8]) -> Result<Descriptor> {
    let descriptor = Descriptor::of(media, data);
    atomic::write(&directory.join(descriptor.digest.blob_path()), data)?;
    Ok(descriptor)
}

/// Gives everything in the layout the same time.
fn date(directory: &Path, epoch: i64) -> Result<()> {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(epoch.try_into().unwrap_or(0));
    let mut open: Vec<PathBuf> = vec![directory.to_path_buf()];
    while let Some(path) = open.pop() {
        if path.is_dir() {
            for item in fs::read_dir(&path).map_err(Error::io(&path))? {
                open.push(item.map_err(Error::io(&path))?.path());
            }
        }
        File::open(&path).and_then(|file| file.set_modified(time)).map_err(Error::io(&path))?;
    }
    Ok(())
}

fn rfc3339(seconds: i64) -> Result<String> {
    let time = DateTime::from_timestamp(seconds, 0);
    let time = time.ok_or_else(|| Error::Refused(format!("{seconds} is not a time of this era")))?;
    Ok(time.to_rfc3339_opts(chrono::SecondsFormat::Secs, true))
}
