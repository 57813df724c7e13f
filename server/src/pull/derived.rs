//! Files that no document states: LXC's metadata, which the image's manifest states, and what is made here
//! of files that came: lists of digests, and our own signatures.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::SystemTime;

use millstream_client::catalogue::RootKind;
use millstream_client::{CatalogueImage, Upstream, manifest_files};
use millstream_image::manifest::Manifest;
use millstream_image::{Product, Serial, atomic};
use tokio::task::spawn_blocking;

use super::table::Expected;
use super::{Pull, cache};
use crate::stream::{MANIFEST, META, SIGNED, SUMS, expected_sums};
use crate::{Error, Result};

/// No manifest of ours is larger, in bytes.
const LARGEST_MANIFEST: u64 = 64 << 20;

impl Pull {
    /// Makes a file ready that follows from others of its image: afterwards it can be followed, or is in
    /// the tree. Of other files, and when that fails, nothing happens but a message.
    pub(crate) async fn prepare(self: &Arc<Self>, path: &str) {
        if let Err(error) = self.derive(path).await {
            self.say(&format!("{path}: {error}"));
        }
    }

    async fn derive(self: &Arc<Self>, path: &str) -> Result<()> {
        let Some((dir, name)) = path.rsplit_once('/') else { return Ok(()) };
        let signed = name.strip_suffix(".asc").filter(|signed| SIGNED.contains(signed));
        match signed.unwrap_or(name) {
            META => self.learn_of_metadata(dir).await?,
            SUMS => self.list_digests(dir).await?,
            _ => {}
        }
        match signed {
            Some(signed) => self.sign(format!("{dir}/{signed}")).await,
            None => Ok(()),
        }
    }

    /// What the manifest says of LXC's metadata is as good as if documents said it.
    async fn learn_of_metadata(self: &Arc<Self>, dir: &str) -> Result<()> {
        let path = format!("{dir}/{META}");
        if self.expected(&path).is_some() {
            return Ok(());
        }
        let Some((stated, manifest)) = self.manifest(dir).await? else { return Ok(()) };
        let files = manifest_files(&manifest, &stated.remote()?)?;
        if let Some((_, file)) = files.iter().find(|(name, _)| name == META) {
            let mut learned = self.learned.lock().unwrap_or_else(PoisonError::into_inner);
            learned.insert(path, Expected::of(file));
        }
        Ok(())
    }

    async fn list_digests(self: &Arc<Self>, dir: &str) -> Result<()> {
        let place = self.root().join(dir).join(SUMS);
        if place.exists() {
            return Ok(());
        }
        let Some((_, manifest)) = self.manifest(dir).await? else { return Ok(()) };
        let write = move || {
            let dir = place.parent().unwrap_or(&place);
            let text = expected_sums(dir, &manifest)?.to_text();
            atomic::write_with_mode(&place, text.as_bytes(), 0o644).map_err(Error::image(&place))
        };
        spawn_blocking(write).await.map_err(|e| Error::tree(self.root(), e.to_string()))?
    }

    /// Only what was checked, or made here, is in the tree to be signed.
    async fn sign(self: &Arc<Self>, path: String) -> Result<()> {
        if !self.have(&path).await {
            return Ok(());
        }
        let this = Arc::clone(self);
        let sign = move || {
            let path = this.root().join(path);
            let file = File::open(&path).map_err(Error::io(&path))?;
            let signed = this.options.key.sign_detached(file, SystemTime::now());
            let signature = signed.map_err(Error::image(&path))?;
            let beside = path.with_added_extension("asc");
            atomic::write_with_mode(&beside, signature.as_bytes(), 0o644).map_err(Error::image(&beside))
        };
        spawn_blocking(sign).await.map_err(|e| Error::tree(self.root(), e.to_string()))?
    }

    /// The manifest of the image in a directory, and what upstream states of it.
    async fn manifest(self: &Arc<Self>, dir: &str) -> Result<Option<(Expected, Manifest)>> {
        let path = format!("{dir}/{MANIFEST}");
        let Some(stated) = self.expected(&path).filter(|stated| stated.size <= LARGEST_MANIFEST) else {
            return Ok(None);
        };
        if !self.have(&path).await {
            return Ok(None);
        }
        let path = self.root().join(path);
        let bytes = tokio::fs::read(&path).await.map_err(Error::io(&path))?;
        let manifest = Manifest::parse(&bytes).map_err(Error::image(&path))?;
        if manifest.product.image_path(manifest.serial) != Path::new(dir) {
            return Err(Error::tree(&path, "it is the manifest of another image"));
        }
        Ok(Some((stated, manifest)))
    }

    /// Has a file in the tree, if upstream has it; whether it is.
    async fn have(self: &Arc<Self>, path: &str) -> bool {
        if let Some(following) = self.follow(path) {
            following.over().await;
        }
        tokio::fs::try_exists(self.root().join(path)).await.unwrap_or(false)
    }

    /// Removes a file that upstream has other contents for, and what was derived of it.
    pub(super) fn forget(&self, path: &str) -> Result<()> {
        let mut names = vec![path.to_owned()];
        if let Some(dir) = path.strip_suffix(MANIFEST) {
            names.extend([META, SUMS].map(|name| format!("{dir}{name}")));
        }
        for name in names {
            self.learned.lock().unwrap_or_else(PoisonError::into_inner).remove(&name);
            cache::remove(&self.root().join(format!("{name}.asc")))?;
            cache::remove(&self.root().join(name))?;
        }
        Ok(())
    }
}

/// Directories of the images that LXC can use: upstream's index lists them, and their manifest says what
/// their metadata is.
pub(super) async fn for_lxc(
    upstream: &Upstream,
    images: &[(Serial, CatalogueImage)],
) -> Result<BTreeSet<String>> {
    let usable = |image: &CatalogueImage| image.manifest.is_some() && image.root_kind == RootKind::TarXz;
    let usable: BTreeSet<(&Product, Serial)> = images
        .iter()
        .filter(|(_, image)| usable(image))
        .map(|(serial, image)| (&image.product, *serial))
        .collect();
    if usable.is_empty() {
        return Ok(BTreeSet::new()); // No stream of ours, so that there is nothing to be sure of.
    }
    let entries = upstream.lxc_entries().await?;
    let found = entries.iter().filter_map(|entry| {
        let serial = entry.build.parse().ok()?;
        let listed = usable.contains(&(&entry.product, serial));
        listed.then(|| entry.product.image_path(serial).display().to_string())
    });
    Ok(found.collect())
}
