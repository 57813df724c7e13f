//! The files of a finished image: archives, manifest, sums.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use millstream_image::archive::{Bcj, BlockCache, Blocks, PackOptions, Watch, XzOptions};
use millstream_image::manifest::{self, Manifest};
use millstream_image::sums::Sums;
use millstream_image::{Serial, Sha256Digest, atomic, spdx};
use millstream_runtime::CancelToken;

use crate::apt::index::Release;
use crate::files::Generated;
use crate::format::{Formats, Plan};
use crate::recipe::{Definition, Resolved};
use crate::rootfs::Rootfs;
use crate::source::Origin;
use crate::{Error, Result, format, inventory};

/// Bytes the cache of compressed blocks may keep: some twenty images that share nothing.
const BLOCK_CACHE: u64 = 1 << 30;
/// A block no build has used for so long is let go: 60 days.
const BLOCK_UNUSED: Duration = Duration::from_hours(60 * 24);

/// A Release document as the manifest records it.
pub(crate) fn source(release: &Release) -> manifest::Source {
    manifest::Source {
        url: without_password(&release.source.url),
        name: release.source.suites.join(" "),
        sha256: release.sha256,
    }
}

/// A resolved recipe as the manifest records it.
pub(crate) fn recipe_text(definition: &Definition) -> Result<String> {
    let mut recipe = definition.clone();
    recipe.source.url = without_password(&recipe.source.url);
    serde_yaml_ng::to_string(&recipe).map_err(|e| Error::Internal(e.to_string()))
}

/// What the files are made of.
pub(crate) struct Output<'a> {
    pub(crate) resolved: &'a Resolved,
    pub(crate) formats: &'a Formats,
    pub(crate) serial: Serial,
    /// Seconds since 1970 to which times are clamped.
    pub(crate) epoch: i64,
    pub(crate) threads: usize,
    /// Directory of compressed blocks, used again by later builds.
    pub(crate) block_cache: Option<&'a Path>,
    pub(crate) cancel: &'a CancelToken,
}

impl Output<'_> {
    /// Makes everything there is to an image in `work`; returns its manifest and how compressed blocks
    /// came about. What tools had to say goes to `note`.
    pub(crate) fn write(
        &self,
        work: &Path,
        rootfs: &Rootfs,
        generated: &Generated,
        origin: &Origin,
        note: impl FnOnce(&str) -> Result<()>,
    ) -> Result<(Manifest, Blocks)> {
        let cache = self.block_cache.map(|directory| Arc::new(BlockCache::new(directory)));
        let lxc = format::lxc::members(self.resolved, generated, self.serial)?;
        let lxd = format::lxd::members(self.resolved, generated, self.serial)?;
        let plan = Plan {
            formats: self.formats,
            threads: self.threads,
            lxc: &lxc,
            lxd: &lxd,
            oci: format::oci::About::new(self.resolved, self.serial, self.epoch, rootfs)?,
            options: self.options(rootfs, origin, cache.clone())?,
            cancel: self.cancel,
        };
        let (files, blocks, said) = plan.run(work, rootfs.path())?;
        self.cancel.check()?;
        if let Some(cache) = cache {
            let unused_since = SystemTime::now().checked_sub(BLOCK_UNUSED).unwrap_or(SystemTime::UNIX_EPOCH);
            // A cache that cannot be pruned is no reason to lose a build.
            let _pruned = cache.prune(BLOCK_CACHE, unused_since);
        }
        if !said.is_empty() {
            note(&said)?;
        }
        let mut manifest = self.manifest(inventory::packages(rootfs, origin)?, files, origin)?;
        let bill = spdx::document(&manifest, inventory::kind(rootfs)?)?;
        let path = work.join(spdx::FILE);
        atomic::write(&path, &bill)?;
        let (size, sha256) = (bill.len() as u64, Sha256Digest::of(&bill));
        let file = manifest::File { size, sha256, sha256_uncompressed: None, size_uncompressed: None };
        manifest.files.insert(spdx::FILE.into(), file);
        Ok((manifest, blocks))
    }

    fn options(
        &self,
        rootfs: &Rootfs,
        origin: &Origin,
        block_cache: Option<Arc<BlockCache>>,
    ) -> Result<PackOptions> {
        let bcj = match self.resolved.architecture.debian() {
            "amd64" | "i386" => Some(Bcj::X86),
            "arm64" => Some(Bcj::Arm64),
            _ => None,
        };
        let cancel = self.cancel.clone();
        Ok(PackOptions {
            epoch: self.epoch,
            block_cache,
            xz: XzOptions { threads: self.threads, bcj, ..XzOptions::default() },
            groups: inventory::groups(rootfs, origin)?,
            watch: Watch::new(move || cancel.check().map_err(io::Error::other)),
            ..PackOptions::default()
        })
    }

    fn manifest(
        &self,
        packages: Vec<manifest::Package>,
        files: BTreeMap<String, manifest::File>,
        origin: &Origin,
    ) -> Result<Manifest> {
        let definition = &self.resolved.definition;
        let aliases = definition.simplestream.release_aliases.get(self.resolved.product.release());
        let requirements = definition.simplestream.requirements.iter().flat_map(|r| r.requirements.clone());
        Ok(Manifest {
            version: 1,
            product: self.resolved.product.clone(),
            serial: self.serial,
            os: format::lxd::os(self.resolved),
            description: definition.image.description.clone(),
            release_aliases: aliases
                .map(|a| a.split(',').map(|a| a.trim().to_owned()).collect())
                .unwrap_or_default(),
            requirements: requirements.collect(),
            source_date_epoch: self.epoch,
            recipe: recipe_text(definition)?,
            sources: origin.sources.clone(),
            packages,
            files,
            durations: Vec::new(),
            // Only the build knows them.
            inputs: None,
        })
    }
}

/// A URL as it may be published.
pub(crate) fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let (host, path) = rest.split_once('/').map_or((rest, None), |(host, path)| (host, Some(path)));
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    path.map_or_else(|| format!("{scheme}://{host}"), |path| format!("{scheme}://{host}/{path}"))
}

/// Writes what describes the other files: the manifest with the stages' `durations`, and the sums.
pub(crate) fn describe(work: &Path, manifest: &mut Manifest, durations: Vec<(String, f64)>) -> Result<()> {
    manifest.durations = durations;
    atomic::write(&work.join("manifest.json"), &manifest.to_bytes()?)?;
    let sums = manifest.files.iter().map(|(name, file)| (name.clone(), file.sha256)).collect();
    Ok(atomic::write(&work.join("SHA256SUMS"), Sums(sums).to_text().as_bytes())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_not_published() {
        assert_eq!(without_password("https://me:secret@m.example/debian"), "https://m.example/debian");
        assert_eq!(without_password("http://m.example/a@b"), "http://m.example/a@b");
    }
}
