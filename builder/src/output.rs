//! The files of a finished image: archives, manifest, sums.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use millstream_image::archive::{
    Bcj, BlockCache, Blocks, Member, PackOptions, Packed, Watch, XzOptions, pack, pack_members,
};
use millstream_image::manifest::{self, Manifest};
use millstream_image::sums::Sums;
use millstream_image::{Serial, atomic};
use millstream_runtime::CancelToken;

use crate::apt::index::Release;
use crate::files::Generated;
use crate::recipe::{Definition, Resolved};
use crate::rootfs::Rootfs;
use crate::source::Origin;
use crate::{Error, Result, artefacts, inventory};

/// Bytes the cache of compressed blocks may keep: some twenty images that share nothing.
const BLOCK_CACHE: u64 = 1 << 30;
/// A block no build has used for so long is let go: 60 days.
const BLOCK_UNUSED: Duration = Duration::from_hours(60 * 24);

/// Seconds since 1970 to which times are clamped: `SOURCE_DATE_EPOCH`, else the date of the sources.
pub(crate) fn epoch(date: i64) -> i64 {
    let given = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|text| text.parse().ok());
    given.unwrap_or(date)
}

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
    pub(crate) serial: Serial,
    /// Seconds since 1970 to which times are clamped.
    pub(crate) epoch: i64,
    pub(crate) threads: usize,
    /// Directory of compressed blocks.
    pub(crate) block_cache: Option<&'a Path>,
    pub(crate) cancel: &'a CancelToken,
}

impl Output<'_> {
    /// Packs the root file system into `work`; says also how its blocks came about.
    pub(crate) fn rootfs(&self, work: &Path, rootfs: &Rootfs) -> Result<(manifest::File, Blocks)> {
        let bcj = match self.resolved.architecture.debian() {
            "amd64" | "i386" => Some(Bcj::X86),
            "arm64" => Some(Bcj::Arm64),
            _ => None,
        };
        let cancel = self.cancel.clone();
        let cache = self.block_cache.map(|directory| Arc::new(BlockCache::new(directory)));
        let mut blocks = Blocks::default();
        let options = PackOptions {
            epoch: self.epoch,
            block_cache: cache.clone(),
            xz: XzOptions { threads: self.threads, bcj, ..XzOptions::default() },
            groups: inventory::groups(rootfs)?,
            watch: Watch::new(move || cancel.check().map_err(io::Error::other)),
            ..PackOptions::default()
        };
        let packed = write_file(work, "rootfs.tar.xz", |out| {
            let (out, packed) = pack(rootfs.path(), out, &options)?;
            blocks = packed.blocks;
            Ok((out, packed))
        });
        self.cancel.check()?;
        if let Some(cache) = cache {
            let unused_since = SystemTime::now().checked_sub(BLOCK_UNUSED).unwrap_or(SystemTime::UNIX_EPOCH);
            // A cache that cannot be pruned is no reason to lose a build.
            let _pruned = cache.prune(BLOCK_CACHE, unused_since);
        }
        Ok((packed?, blocks))
    }

    /// Writes everything beside the root file system and returns the manifest.
    pub(crate) fn companions(
        &self,
        work: &Path,
        rootfs: &Rootfs,
        packed: manifest::File,
        generated: &Generated,
        origin: &Origin,
        durations: Vec<(String, f64)>,
    ) -> Result<Manifest> {
        let mut files = BTreeMap::from([("rootfs.tar.xz".to_owned(), packed)]);
        let created = self.serial.time().timestamp();
        let serial = self.serial.to_string();
        let mut meta = artefacts::lxc(self.resolved, generated, created)?;
        meta.insert("build_id".into(), Member::file(format!("{serial}\n")));
        let lxd = artefacts::lxd(self.resolved, generated, &serial, created)?;
        let small = PackOptions { epoch: self.epoch, ..PackOptions::default() };
        for (name, members) in [("meta.tar.xz", &meta), ("lxd.tar.xz", &lxd), ("incus.tar.xz", &lxd)] {
            let packed = write_file(work, name, |out| Ok(pack_members(members, out, &small)?))?;
            files.insert(name.to_owned(), packed);
        }
        let packages = inventory::packages(rootfs, origin)?;
        let manifest = self.manifest(packages, files, origin, durations)?;
        atomic::write(&work.join("manifest.json"), &manifest.to_bytes()?)?;
        let sums = manifest.files.iter().map(|(name, file)| (name.clone(), file.sha256)).collect();
        atomic::write(&work.join("SHA256SUMS"), Sums(sums).to_text().as_bytes())?;
        Ok(manifest)
    }

    fn manifest(
        &self,
        packages: Vec<manifest::Package>,
        files: BTreeMap<String, manifest::File>,
        origin: &Origin,
        durations: Vec<(String, f64)>,
    ) -> Result<Manifest> {
        let definition = &self.resolved.definition;
        let aliases = definition.simplestream.release_aliases.get(self.resolved.product.release());
        let requirements = definition.simplestream.requirements.iter().flat_map(|r| r.requirements.clone());
        Ok(Manifest {
            version: 1,
            product: self.resolved.product.clone(),
            serial: self.serial,
            os: artefacts::os(self.resolved),
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
            durations,
        })
    }
}

/// A URL as it may be published.
fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let (host, path) = rest.split_once('/').map_or((rest, None), |(host, path)| (host, Some(path)));
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    path.map_or_else(|| format!("{scheme}://{host}"), |path| format!("{scheme}://{host}/{path}"))
}

fn write_file(
    work: &Path,
    name: &str,
    pack: impl FnOnce(File) -> Result<(File, Packed)>,
) -> Result<manifest::File> {
    let path = work.join(name);
    let file = File::create(&path).map_err(Error::io(&path))?;
    let (mut file, packed) = pack(file)?;
    file.flush().and_then(|()| file.sync_all()).map_err(Error::io(&path))?;
    Ok(manifest::File {
        size: packed.size,
        sha256: packed.sha256,
        sha256_uncompressed: Some(packed.sha256_uncompressed),
        size_uncompressed: Some(packed.size_uncompressed),
    })
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
