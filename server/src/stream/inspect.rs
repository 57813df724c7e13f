//! What an image in staging is checked for, and what documents will say of its files.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::thread;

use millstream_image::archive::read_small;
use millstream_image::digest::HashingWriter;
use millstream_image::manifest::Manifest;
use millstream_image::metadata::Metadata;
use millstream_image::simplestreams::Item;
use millstream_image::squashfs::Superblock;
use millstream_image::sums::Sums;
use millstream_image::{Architecture, Sha256Digest};

use super::layout::{COMBINED, MANIFEST, META, METADATA, ROOTFS, SQUASHFS, SUMS, UNIFIED};
use super::place::refused;
use super::unified;
use super::workers::joined;
use crate::{Error, Result};

/// What `SHA256SUMS` of a published image says: the manifest's files, and the manifest, so that one
/// signature covers all of them.
pub(crate) fn expected_sums(dir: &Path, manifest: &Manifest) -> Result<Sums> {
    let path = dir.join(MANIFEST);
    let (digest, _) = File::open(&path).and_then(Sha256Digest::of_reader).map_err(Error::io(&path))?;
    let files = manifest.files.iter().map(|(name, file)| (name.clone(), file.sha256));
    Ok(Sums(files.chain([(MANIFEST.to_owned(), digest)]).collect()))
}

/// Writes `SHA256SUMS` of staging; the one beside the source, if any, must agree with it.
pub(super) fn sums(source: &Path, dir: &Path, manifest: &Manifest) -> Result<()> {
    let sums = expected_sums(dir, manifest)?;
    let path = source.join(SUMS);
    match fs::read_to_string(&path) {
        Ok(text) => {
            let mut found = Sums::parse(&text).map_err(Error::image(&path))?;
            // A build's own list leaves the manifest out.
            let digest = sums.0[MANIFEST];
            if *found.0.entry(MANIFEST.to_owned()).or_insert(digest) != digest || found != sums {
                let reason = "SHA256SUMS and manifest.json contradict each other; build it anew";
                return Err(refused(source, reason));
            }
        }
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(Error::io(&path)(error)),
        Err(_) => {}
    }
    let path = dir.join(SUMS);
    fs::write(&path, sums.to_text()).map_err(Error::io(&path))
}

/// LXC needs `config`, LXD and Incus need `metadata.yaml`, and both must mean this architecture.
/// Of a partial image what is there is checked.
pub(super) fn metadata(source: &Path, dir: &Path, architecture: Architecture) -> Result<()> {
    let members = |name: &str| {
        let path = dir.join(name);
        let file = File::open(&path).map_err(Error::io(&path))?;
        read_small(file).map_err(Error::image(source.join(name)))
    };
    if dir.join(META).exists() {
        let config = members(META)?.remove(Path::new("config"));
        if config.is_none_or(|config| config.data.trim_ascii().is_empty()) {
            let reason = "meta.tar.xz holds no config, without which LXC cannot start the image";
            return Err(refused(source, reason));
        }
    }
    for name in METADATA.into_iter().chain(UNIFIED).filter(|name| dir.join(name).exists()) {
        let yaml = if METADATA.contains(&name) {
            members(name)?.remove(Path::new("metadata.yaml")).map(|member| member.data)
        } else {
            unified::yaml(&dir.join(name)).map_err(Error::image(source.join(name)))?
        };
        let Some(yaml) = yaml else {
            return Err(refused(source, format!("{name} holds no metadata.yaml")));
        };
        let metadata = Metadata::parse(&yaml).map_err(Error::image(source.join(name)))?;
        if metadata.architecture.parse::<Architecture>().ok() != Some(architecture) {
            return Err(refused(
                source,
                format!("{name} is for {}, the manifest for {architecture}", metadata.architecture),
            ));
        }
    }
    Ok(())
}

/// A root file system as squashfs must be a whole one.
pub(super) fn squashfs(source: &Path, dir: &Path) -> Result<()> {
    let path = dir.join(SQUASHFS);
    let file = match File::open(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        other => other.map_err(Error::io(&path))?,
    };
    let size = file.metadata().map_err(Error::io(&path))?.len();
    Superblock::read(file, size).map(drop).map_err(Error::image(source.join(SQUASHFS)))
}

/// Hashes every file once, the root file systems into the combined digests as well, and describes
/// them.
pub(super) fn items(source: &Path, dir: &Path, manifest: &Manifest) -> Result<BTreeMap<String, Item>> {
    let base = manifest.product.image_path(manifest.serial);
    let mut items = BTreeMap::new();
    let mut roots: BTreeMap<&str, Vec<Sha256Digest>> = BTreeMap::new();
    let present: Vec<_> = METADATA.into_iter().filter(|name| manifest.files.contains_key(*name)).collect();
    let metadata: Vec<_> = present.iter().map(|name| dir.join(name)).collect();
    for (name, promised) in &manifest.files {
        let prefixes: &[PathBuf] = if matches!(name.as_str(), ROOTFS | SQUASHFS) { &metadata } else { &[] };
        let (sha256, size, combined) = hash(&dir.join(name), prefixes)?;
        if (sha256, size) != (promised.sha256, promised.size) {
            return Err(refused(
                source,
                format!(
                    "{name} is {size} bytes with SHA-256 {sha256}, its manifest says {} with {}; build it anew",
                    promised.size, promised.sha256
                ),
            ));
        }
        roots.insert(name, combined);
        for ftype in item_types(name) {
            items.insert(
                ftype.to_owned(),
                Item {
                    ftype: ftype.to_owned(),
                    path: base.join(name).display().to_string(),
                    size,
                    sha256: Some(sha256),
                    sha256_uncompressed: promised.sha256_uncompressed.filter(|_| name == ROOTFS),
                    ..Item::default()
                },
            );
        }
    }
    for (at, name) in present.iter().enumerate() {
        let combined = |root: &str| roots.get(root).and_then(|digests| digests.get(at).copied());
        if let Some(item) = items.get_mut(*name) {
            item.combined_sha256 = combined(ROOTFS);
            item.combined_rootxz_sha256 = combined(ROOTFS);
            item.combined_squashfs_sha256 = combined(SQUASHFS);
        }
    }
    let (sha256, size, _) = hash(&dir.join(MANIFEST), &[])?;
    let path = base.join(MANIFEST).display().to_string();
    let item = Item { ftype: MANIFEST.into(), path, size, sha256: Some(sha256), ..Item::default() };
    items.insert(MANIFEST.into(), item);
    Ok(items)
}

/// The types of item by which documents list a file; none for what is LXC's own, or of no client.
fn item_types(name: &str) -> Vec<&str> {
    match name {
        ROOTFS => vec!["root.tar.xz"],
        SQUASHFS => vec!["squashfs"],
        _ if METADATA.contains(&name) => vec![name],
        _ if UNIFIED.contains(&name) => COMBINED.to_vec(),
        _ => Vec::new(),
    }
}

/// Digest and size of a file, and its digests with each of `prefixes` before it, all at once.
pub(crate) fn hash(path: &Path, prefixes: &[PathBuf]) -> Result<(Sha256Digest, u64, Vec<Sha256Digest>)> {
    let mut distinct: Vec<Vec<u8>> = Vec::new();
    let mut which = Vec::new();
    for prefix in prefixes {
        let bytes = fs::read(prefix).map_err(Error::io(prefix))?;
        // The same metadata has two names, and hashing an image twice for that takes long.
        which.push(distinct.iter().position(|known| *known == bytes).unwrap_or_else(|| {
            distinct.push(bytes);
            distinct.len() - 1
        }));
    }
    let ((digest, size), combined) = thread::scope(|scope| {
        let workers: Vec<_> =
            distinct.iter().map(|prefix| scope.spawn(move || hash_with(prefix, path))).collect();
        let alone = hash_with(&[], path);
        let combined = workers.into_iter().map(|worker| Ok(joined(worker)?.0));
        let combined: Result<Vec<_>> = combined.collect();
        Ok::<_, Error>((alone?, combined?))
    })?;
    Ok((digest, size, which.into_iter().map(|at| combined[at]).collect()))
}

/// Digest and size of a file with these bytes before it.
fn hash_with(prefix: &[u8], path: &Path) -> Result<(Sha256Digest, u64)> {
    let mut writer = HashingWriter::new(io::sink());
    let hashed = writer.write_all(prefix).and_then(|()| {
        let mut file = File::open(path)?;
        let mut buffer = vec![0; 128 << 10];
        loop {
            match file.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(n) => writer.write_all(&buffer[..n])?,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    });
    hashed.map_err(Error::io(path))?;
    let (_, digest, size) = writer.finish();
    Ok((digest, size))
}
