//! Images: every file hashed, every signature checked, all processors at work.

use std::fs::{self, File};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use millstream_image::delta;
use millstream_image::manifest::Manifest;
use millstream_image::simplestreams::{Item, ProductEntry, Version};
use millstream_image::sums::Sums;
use millstream_image::{Product, Serial};

use super::Check;
use crate::Error;
use crate::stream::catalogue::Image;
use crate::stream::inspect::{expected_sums, hash};
use crate::stream::layout::{COMBINED, DELTA, MANIFEST, METADATA, ROOTFS, SIGNED, SQUASHFS, SUMS, VCDIFF};

impl Check<'_> {
    /// Checks images on all processors, the next one to whoever is free.
    pub(in crate::stream) fn images(&self, images: &[Image<'_>]) {
        let next = AtomicUsize::new(0);
        let workers = thread::available_parallelism().map_or(1, NonZero::get).min(images.len());
        thread::scope(|scope| {
            for _ in 0..workers {
                scope.spawn(|| {
                    while let Some(image) = images.get(next.fetch_add(1, Ordering::Relaxed)) {
                        self.image(image);
                    }
                });
            }
        });
    }

    fn image(&self, (product, serial, entry, version): &Image<'_>) {
        let dir = product.image_path(*serial);
        let here = |name: &&&str| version.items.contains_key(**name);
        let prefixes: Vec<_> =
            METADATA.iter().filter(here).map(|name| self.root.join(&dir).join(name)).collect();
        for item in version.items.values() {
            if Path::new(&item.path).parent() != Some(&dir) {
                self.problem(&item.path, format!("listed by {product} {serial}, and not in its directory"));
                continue;
            }
            if item.ftype != COMBINED[1] || !is_twin(item, version) {
                self.item(item, version, &prefixes);
            }
            if is_delta(item) {
                self.delta(item, entry, version);
            }
        }
        let manifest = self.beside(&dir, product, *serial, version);
        // An image from upstream may lack what upstream does not have; its signed manifest says so.
        let has = |name: &&str| {
            let files = manifest.as_ref().map(|manifest| &manifest.files);
            files.is_none_or(|files| files.contains_key(*name)) || [SUMS, MANIFEST].contains(name)
        };
        for name in [ROOTFS, SQUASHFS, METADATA[0], METADATA[1], MANIFEST].iter().filter(|name| has(name)) {
            let optional = *name == SQUASHFS && manifest.is_none();
            let path = dir.join(name);
            if !optional && !version.items.values().any(|item| Path::new(&item.path) == path) {
                self.problem(path, format!("no item of {product} {serial} is this file"));
            }
        }
        for name in SIGNED.iter().filter(|name| has(name)) {
            let path = dir.join(name);
            let signature_path = dir.join(format!("{name}.asc"));
            let Some(file) = self.or_problem(&path, File::open(self.root.join(&path))) else { continue };
            let Some(signature) = self.or_problem(&signature_path, fs::read(self.root.join(&signature_path)))
            else {
                continue;
            };
            self.or_problem(&signature_path, self.keyring.verify_detached(file, &signature, self.now));
        }
    }

    fn item(&self, item: &Item, version: &Version, prefixes: &[PathBuf]) {
        let root = item.path.ends_with(ROOTFS) || item.path.ends_with(SQUASHFS);
        let hashed = hash(&self.root.join(&item.path), if root { prefixes } else { &[] });
        let (sha256, size, combined) = match hashed {
            Ok(hashed) => hashed,
            Err(Error::Io { path, source }) => {
                let path = path.strip_prefix(self.root).unwrap_or(&path).to_path_buf();
                return self.problem(path, source.to_string());
            }
            Err(error) => return self.problem(&item.path, error.to_string()),
        };
        self.with_report(|report| {
            report.files += 1;
            report.bytes += size;
        });
        if size != item.size {
            self.problem(&item.path, format!("{size} bytes, documents say {}", item.size));
        } else if Some(sha256) != item.sha256 {
            self.problem(&item.path, format!("SHA-256 is {sha256}, documents say something else"));
        }
        let metadata = METADATA.iter().filter_map(|name| version.items.get(*name));
        for (metadata, combined) in metadata.zip(combined) {
            let stated = if item.path.ends_with(SQUASHFS) {
                [metadata.combined_squashfs_sha256; 2]
            } else {
                [metadata.combined_sha256, metadata.combined_rootxz_sha256]
            };
            if stated.iter().any(|stated| *stated != Some(combined)) {
                self.problem(
                    &metadata.path,
                    format!("its fingerprint with {} is {combined}, documents say something else", item.path),
                );
            }
        }
    }

    /// A delta of ours states what documents say of its base and of its result.
    fn delta(&self, item: &Item, product: &ProductEntry, version: &Version) {
        let uncompressed = |version: &Version| {
            version
                .items
                .values()
                .find(|item| item.path.ends_with(ROOTFS))
                .and_then(|i| i.sha256_uncompressed)
        };
        let Some(base) = &item.delta_base else {
            return self.problem(&item.path, "a delta from nothing: documents name no base");
        };
        if item.ftype != DELTA {
            return;
        }
        let file = self.or_problem(&item.path, File::open(self.root.join(&item.path)));
        let header = file.and_then(|mut file| {
            self.or_problem(&item.path, delta::Header::read(&mut file, &delta::Limits::default()))
        });
        let Some(header) = header else { return };
        if Some(header.result.sha256) != uncompressed(version) {
            self.problem(&item.path, "it makes something else than this image");
        }
        // A base that was taken out of the stream may still be in clients' stores.
        let base = product.versions.get(base).and_then(uncompressed);
        if base.is_some_and(|base| base != header.base.sha256) {
            self.problem(&item.path, "it starts from something else than the base that documents name");
        }
    }

    /// The manifest and `SHA256SUMS` say what the documents say.
    fn beside(&self, dir: &Path, product: &Product, serial: Serial, version: &Version) -> Option<Manifest> {
        let path = dir.join(MANIFEST);
        let manifest = self
            .or_problem(&path, fs::read(self.root.join(&path)))
            .and_then(|bytes| self.or_problem(&path, Manifest::parse(&bytes)));
        let manifest = manifest?;
        if (&manifest.product, manifest.serial) != (product, serial) {
            self.problem(&path, format!("it is the manifest of {} {}", manifest.product, manifest.serial));
        }
        for item in version.items.values().filter(|item| item.ftype != MANIFEST && !is_delta(item)) {
            let name = item.path.rsplit('/').next().unwrap_or_default();
            if COMBINED.contains(&item.ftype.as_str()) && !manifest.files.contains_key(name) {
                continue; // Made here, of files that the manifest lists.
            }
            if manifest.files.get(name).map(|file| file.sha256) != item.sha256 {
                self.problem(&path, format!("its digest of {name} is not that of the documents"));
            }
        }
        let path = dir.join(SUMS);
        let sums = self
            .or_problem(&path, fs::read_to_string(self.root.join(&path)))
            .and_then(|text| self.or_problem(&path, Sums::parse(&text)));
        let expected = self.or_problem(&path, expected_sums(&self.root.join(dir), &manifest));
        if sums.is_some() && sums != expected {
            self.problem(&path, "it contradicts manifest.json");
        }
        for (name, file) in &manifest.files {
            let path = dir.join(name);
            if version.items.values().any(|item| Path::new(&item.path) == path) {
                continue;
            }
            if let Some((sha256, size, _)) = self.or_problem(&path, hash(&self.root.join(&path), &[]))
                && (sha256, size) != (file.sha256, file.size)
            {
                self.problem(&path, "size or SHA-256 is not what manifest.json says");
            }
        }
        Some(manifest)
    }
}

/// Whether it is the file listed for LXD, under Incus' name, so that it has been read already.
fn is_twin(item: &Item, version: &Version) -> bool {
    let other = version.items.get(COMBINED[0]);
    other.is_some_and(|other| (&other.path, other.size, other.sha256) == (&item.path, item.size, item.sha256))
}

fn is_delta(item: &Item) -> bool {
    [DELTA, VCDIFF].contains(&item.ftype.as_str())
}
