//! Images of a remote that is a registry.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use millstream_image::oci::{Descriptor, Digest, ImageConfig, Index, Platform, layout, media_type};
use millstream_image::{Architecture, atomic};
use tokio::task::spawn_blocking;

use super::{Reference, Registry, Resolved};
use crate::client::Client;
use crate::remotes::{Protocol, RemoteName, lock_dir_of};
use crate::store::StoredImage;
use crate::tree::Tree;
use crate::{Error, Progress, Result};

/// The property of an image of the store that names the manifest it was made from.
pub const DIGEST: &str = "oci.digest";
/// Labels that say what properties say: key, property (annotations of the OCI Image Specification).
const LABELS: [(&str, &str); 3] = [
    ("org.opencontainers.image.title", "oci.title"),
    ("org.opencontainers.image.version", "oci.version"),
    ("org.opencontainers.image.source", "oci.source"),
];

/// An image of a registry, of which all but the layers is known.
#[derive(Clone, Debug)]
pub struct Offered {
    /// The remote it is in.
    pub remote: RemoteName,
    /// Its name there.
    pub reference: Reference,
    /// Its manifest.
    pub resolved: Resolved,
    /// Its configuration.
    pub config: ImageConfig,
    /// The configuration's bytes.
    text: Vec<u8>,
}

impl Offered {
    /// What its configuration and its name say of it, as the store keeps it.
    pub fn properties(&self) -> BTreeMap<String, String> {
        let line = |text: &str| text.chars().filter(|c| !c.is_control()).take(512).collect::<String>();
        let config = &self.config.config;
        let command: Vec<_> = config.entrypoint.iter().chain(&config.cmd).map(String::as_str).collect();
        let own = [
            (DIGEST, self.resolved.digest.to_string()),
            ("oci.name", format!("{}:{}", self.reference.place(), self.reference.tag())),
            ("oci.command", command.join(" ")),
            ("oci.user", config.user.clone()),
            ("oci.working_dir", config.working_dir.clone()),
        ];
        let labels = LABELS
            .into_iter()
            .map(|(label, property)| (property, config.labels.get(label).cloned().unwrap_or_default()));
        own.into_iter()
            .chain(labels)
            .filter(|(_, value)| !value.is_empty())
            .map(|(key, value)| (key.to_owned(), line(&value)))
            .collect()
    }

    /// Bytes of its layers, compressed.
    pub fn size(&self) -> u64 {
        self.resolved.manifest.layers.iter().fold(0, |sum, layer| sum.saturating_add(layer.size))
    }
}

/// An OCI layout in the cache. Until this is dropped no other process of this user fetches from a registry.
#[derive(Debug)]
pub struct Layout {
    /// Its directory.
    pub dir: PathBuf,
    _lock: File,
}

impl Client {
    /// The remote and the rest of a name, where that remote is a registry: `REMOTE:REPOSITORY[:TAG]`.
    ///
    /// # Errors
    /// When the table of remotes cannot be read.
    pub fn registry_of<'a>(&self, name: &'a str) -> Result<Option<(RemoteName, &'a str)>> {
        let Some((remote, rest)) = name.split_once(':') else { return Ok(None) };
        let Ok(remote) = remote.parse::<RemoteName>() else { return Ok(None) };
        let found = self.remotes()?.remotes.get(&remote).map(|remote| remote.protocol);
        Ok((found == Some(Protocol::Oci)).then_some((remote, rest)))
    }

    /// What a name in a registry means now, for an architecture.
    ///
    /// # Errors
    /// When there is none, or it is no image of a root file system.
    pub async fn registry_image(
        &self,
        name: &RemoteName,
        image: &str,
        architecture: Architecture,
    ) -> Result<Offered> {
        let remotes = self.remotes()?;
        let remote = remotes.get(name)?;
        let reference = Reference::within(&remote.url, image)?;
        let registry = self.registry(name, &reference).await?;
        let resolved = registry.resolve(&Platform::linux(architecture)).await?;
        let text = registry.config(&resolved).await?;
        let config = ImageConfig::parse(&text)?;
        Ok(Offered { remote: name.clone(), reference, resolved, config, text })
    }

    /// The image of the store that was made of an image of a registry.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn stored_of(&self, offered: &Offered) -> Result<Option<StoredImage>> {
        let digest = offered.resolved.digest.to_string();
        let same = |image: &StoredImage| {
            image.properties.get(DIGEST) == Some(&digest)
                && image.origin.as_ref().is_some_and(|origin| origin.remote == offered.remote.as_str())
        };
        Ok(self.store()?.list()?.into_iter().find(same))
    }

    /// Fetches an image's layers, verified, and gives the directory of an OCI layout with it. It lies in the
    /// cache, so that what has come is not fetched again after a failure; remove it when it is no longer
    /// needed.
    ///
    /// # Errors
    /// Also when something is not what its digest says.
    pub async fn registry_layout(&self, offered: &Offered, progress: &dyn Progress) -> Result<Layout> {
        let dir = self.config.oci.join(offered.resolved.digest.0.to_string());
        let inside = dir.clone();
        let lock = spawn_blocking(move || lock_dir_of(&inside)).await;
        let lock = lock.map_err(|e| Error::Setup(e.to_string()))??;
        let blobs = dir.join("blobs/sha256");
        fs::create_dir_all(&blobs).map_err(Error::io(&blobs))?;
        let registry = self.registry(&offered.remote, &offered.reference).await?;
        registry.fetch(&offered.resolved, &blobs, progress).await?;
        write_layout(&dir, &offered.resolved, &offered.text)?;
        Ok(Layout { dir, _lock: lock })
    }

    async fn registry<'a>(&self, name: &RemoteName, reference: &'a Reference) -> Result<Registry<'a>> {
        let remotes = self.remotes()?;
        let remote = remotes.get(name)?;
        let Tree::Http { client, .. } = self.tree(remote)? else {
            return Err(Error::remote(name, "a directory is no registry"));
        };
        let own = remote.access.credential(&remote.url)?;
        Registry::open(&client, reference, own.as_ref()).await
    }
}

fn write_layout(dir: &Path, image: &Resolved, config: &[u8]) -> Result<()> {
    let write = |path: PathBuf, bytes: &[u8]| atomic::write(&dir.join(path), bytes);
    write(image.digest.blob_path(), &image.text)?;
    write(Digest::of(config).blob_path(), config)?;
    let kind = image.manifest.media_type.as_deref().unwrap_or(media_type::MANIFEST);
    let index = Index::new(vec![Descriptor::of(kind, &image.text)]);
    write(layout::INDEX.into(), &index.to_bytes()?)?;
    Ok(write(layout::MARKER.into(), &layout::marker()?)?)
}
