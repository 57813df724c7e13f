//! Making the documents true again.
//!
//! What the signed index still proves is kept; otherwise the catalogue is put together anew from the
//! images themselves, of which each must prove by its signed `SHA256SUMS` that this key published
//! it. Images that are damaged leave the documents; their files stay where they are.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use millstream_image::archive::read_small;
use millstream_image::manifest::Manifest;
use millstream_image::metadata::Metadata;
use millstream_image::openpgp::Keyring;
use serde::Serialize;

use super::catalogue::{Catalogue, Listing};
use super::layout::{CURRENT, DOCUMENTS, IMAGES, METADATA, SUMS};
use super::lock::Lock;
use super::retire::{self, Retired};
use super::verify::{Check, Problem};
use super::{Signing, Stream, generation, inspect, place};
use crate::{Error, Result};

/// What was made of a damaged tree.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Repaired {
    /// Whether the documents were past reading, so that images were listed anew.
    pub rebuilt: bool,
    /// Images listed now.
    pub images: usize,
    /// What is wrong with images, and with directories that were not taken for any: no document
    /// lists these now.
    pub dropped: Vec<Problem>,
}

impl Stream {
    /// Publishes documents that say what is there and whole.
    ///
    /// # Errors
    /// [`Error::Tree`] when `signing` has not the key that clients trust, and when the tree cannot
    /// be read or written.
    pub fn repair(root: &Path, signing: &Signing<'_>) -> Result<Repaired> {
        super::check_path(root)?;
        let stream = Self::at(root);
        if !root.join(DOCUMENTS).is_dir() || !root.join(IMAGES).is_dir() {
            return Err(Error::tree(root, "not a stream, or nothing of one is left"));
        }
        let lock = Lock::exclusive(root)?;
        stream.restore_key(signing)?;
        let keyring = signing.key.keyring();
        let mut repaired = Repaired::default();
        let published = Catalogue::load(root, &keyring, signing.now)
            .and_then(|mut catalogue| catalogue.renew_all().map(|()| catalogue));
        let mut catalogue = if let Ok(catalogue) = published {
            catalogue
        } else {
            repaired.rebuilt = true;
            let mut catalogue = stream.rebuild(&keyring, signing, &mut repaired.dropped)?;
            catalogue.start_at(stream.last_generation()?, signing.now.into());
            catalogue
        };
        place::heal(root, |path| catalogue.lists(path))?;
        stream.drop_damaged(&mut catalogue, &keyring, signing, &mut repaired.dropped)?;
        repaired.images = catalogue.images().count();
        stream.publish_next(&mut catalogue, signing)?;
        generation::link(root)?;
        drop(lock);
        Ok(repaired)
    }

    /// A key file that is gone or damaged is written again; another key's is not touched.
    fn restore_key(&self, signing: &Signing<'_>) -> Result<()> {
        if self.key_fingerprint().is_ok() {
            return self.check_key(signing.key);
        }
        self.write_key(signing)
    }

    /// The number that clients have seen at most. Where no publication is left to tell, the minutes
    /// since 1970: no stream has published more often.
    fn last_generation(&self) -> Result<u64> {
        let documents = self.root.join(DOCUMENTS);
        let names = fs::read_dir(&documents).map_err(Error::io(&documents))?.flatten();
        let last = names.filter_map(|item| item.file_name().to_str()?.parse::<u64>().ok()).max();
        let current = fs::read_link(self.root.join(CURRENT)).ok();
        let current = current.and_then(|target| target.to_str()?.parse::<u64>().ok());
        Ok(last.max(current).unwrap_or_else(|| Utc::now().timestamp() as u64 / 60))
    }

    /// Lists every image that proves to be this key's, the oldest first, so that names lead where
    /// they led.
    fn rebuild(
        &self,
        keyring: &Keyring,
        signing: &Signing<'_>,
        dropped: &mut Vec<Problem>,
    ) -> Result<Catalogue> {
        let retired = Retired::load(&self.root).unwrap_or_default();
        let mut manifests = Vec::new();
        for path in self.image_directories()?.into_iter().filter(|path| !retired.contains(path)) {
            match self.proven(&path, keyring, signing) {
                Ok(manifest) => manifests.push(manifest),
                Err(error) => dropped.push(Problem { path, reason: error.to_string() }),
            }
        }
        manifests.sort_by_key(|manifest| manifest.serial);
        let mut catalogue = Catalogue::empty(&self.root);
        for manifest in manifests {
            let path = manifest.product.image_path(manifest.serial);
            let dir = self.root.join(&path);
            let inserted = match inspect::items(&dir, &dir, &manifest) {
                Ok(items) => catalogue.insert(Listing { manifest, items })?,
                Err(error) => Err(error.to_string()),
            };
            if let Err(reason) = inserted {
                dropped.push(Problem { path, reason });
            }
        }
        Ok(catalogue)
    }

    /// The manifest of an image whose signed sums cover it and whose metadata says the same.
    fn proven(&self, path: &Path, keyring: &Keyring, signing: &Signing<'_>) -> Result<Manifest> {
        let dir = self.root.join(path);
        let read = |name: &str| fs::read(dir.join(name)).map_err(Error::io(dir.join(name)));
        let signature = read(&format!("{SUMS}.asc"))?;
        let sums = read(SUMS)?;
        let image = Error::image(dir.join(SUMS));
        keyring.verify_detached(sums.as_slice(), &signature, signing.now).map_err(image)?;
        let manifest = place::read_manifest(&dir)?;
        let refused = |reason: &str| Err(Error::tree(&dir, reason));
        if inspect::expected_sums(&dir, &manifest)?.to_text().as_bytes() != sums {
            return refused("its signed SHA256SUMS do not cover its manifest");
        }
        if manifest.product.image_path(manifest.serial) != path {
            return refused("it is another image than its path says");
        }
        // A partial image may have that of one client only, or of LXC alone.
        let Some(name) = METADATA.iter().find(|name| manifest.files.contains_key(**name)) else {
            return Ok(manifest);
        };
        let members = read_small(read(name)?.as_slice()).map_err(Error::image(&dir))?;
        let yaml = members.get(Path::new("metadata.yaml")).map(|member| member.data.as_slice());
        let metadata = Metadata::parse(yaml.unwrap_or_default()).map_err(Error::image(&dir))?;
        match metadata.properties.get("serial") {
            Some(serial) if *serial != manifest.serial.to_string() => {
                refused("its metadata.yaml is of another serial")
            }
            _ => Ok(manifest),
        }
    }

    /// Takes images out of the catalogue that are not what it says.
    fn drop_damaged(
        &self,
        catalogue: &mut Catalogue,
        keyring: &Keyring,
        signing: &Signing<'_>,
        dropped: &mut Vec<Problem>,
    ) -> Result<()> {
        let images: Vec<_> = catalogue.images().collect();
        let check = Check::new(&self.root, keyring, signing.now);
        check.images(&images);
        let mut damaged: BTreeMap<PathBuf, Problem> = BTreeMap::new();
        for problem in check.finish(images.len()).problems {
            if let Some(dir) = problem.path.ancestors().find(|path| retire::is_image_path(path)) {
                damaged.entry(dir.to_path_buf()).or_insert(problem);
            }
        }
        let gone: Vec<_> = images
            .iter()
            .map(|(product, serial, ..)| (product.clone(), *serial))
            .filter(|(product, serial)| damaged.contains_key(&product.image_path(*serial)))
            .collect();
        for (product, serial) in gone {
            catalogue.remove(&product, serial)?;
        }
        dropped.extend(damaged.into_values());
        Ok(())
    }
}

impl Catalogue {
    /// Makes the next publication follow number `generation`.
    fn start_at(&mut self, generation: u64, now: DateTime<Utc>) {
        self.freshness = Some(millstream_image::simplestreams::Freshness {
            path: millstream_image::simplestreams::INDEX_PATH.into(),
            created: now,
            expires: now + chrono::Duration::from_std(super::VALIDITY).unwrap_or_default(),
            generation,
            keys: Vec::new(),
        });
    }
}
