//! Unpacked images: whether each is whole, and whether anybody needs it.
//!
//! Only what unpacking ends with is looked at, not the bytes of every file: nobody writes there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::Duration;

use millstream_client::store::{LOST, take_away};
use millstream_client::{Kind, Mender};
use millstream_image::metadata::Metadata;
use millstream_image::{Fingerprint, atomic};

use super::idmap;
use super::image::{ImageFiles, Unpacked, unpack_once};
use super::lock::DirLock;
use super::name::ContainerName;
use super::record::{Base, Config, State};
use super::runtime::Runtime;
use crate::{Error, Result};

/// Who rests on an unpacked image.
#[derive(Default)]
struct Users {
    /// Containers whose root file system is the image itself.
    sharing: Vec<String>,
    /// Those of them that run.
    running: Vec<String>,
    /// Others were copied from it.
    any: bool,
}

impl Runtime {
    /// Images that containers were made from.
    pub fn images_in_use(&self) -> Result<BTreeSet<Fingerprint>> {
        let image = |name: &ContainerName| match Config::read(&self.dir().join(name.as_str())) {
            Ok(config) => Some(Ok(config.image)),
            // Deleted since we looked.
            Err(_) if self.existing(name).is_err() => None,
            Err(error) => Some(Err(error)),
        };
        self.names()?.iter().filter_map(image).collect()
    }

    /// Removes unpacked images that no container rests on, that are not among those `stored`, and that
    /// were unpacked so long ago.
    pub fn remove_unneeded_images(&self, stored: &BTreeSet<Fingerprint>, age: Duration) -> Result<()> {
        let images = self.images();
        for entry in fs::read_dir(&images).map_err(Error::io(&images))?.flatten() {
            let name = entry.file_name();
            let Some(image) = name.to_str().and_then(Unpacked::parse) else { continue };
            let unpacked = entry.metadata().and_then(|meta| meta.modified());
            let old = unpacked.is_ok_and(|time| time.elapsed().is_ok_and(|elapsed| elapsed > age));
            if old && !stored.contains(&image.fingerprint) {
                self.remove_unused(image)?;
            }
        }
        Ok(())
    }

    /// Looks for unpacked images that are damaged or missing, and for such as nobody needs. `stored` gives
    /// the files of an image that is in the store and good: of these it is unpacked again.
    pub fn check_images(
        &self,
        stored: impl Fn(Fingerprint) -> Option<ImageFiles>,
        mender: &mut Mender,
    ) -> Result<()> {
        let images = self.images();
        let mut users = self.users()?;
        for entry in fs::read_dir(&images).map_err(Error::io(&images))? {
            let path = entry.map_err(Error::io(&images))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let staging = name.strip_prefix('.').is_some_and(|name| Unpacked::parse(name).is_some());
            if name == LOST {
                continue;
            }
            if staging {
                if let Some(_lock) = DirLock::try_exclusive(&path)? {
                    let reason = "what unpacking or removing an image left that was cut short";
                    mender.found(Kind::Staging, &path, reason, || remove(&path));
                }
                continue;
            }
            let Some(image) = Unpacked::parse(&name) else {
                mender.found(Kind::Stray, &path, "it is no unpacked image", || {
                    let to = take_away(&images, &path, "it was no unpacked image")?;
                    Ok::<_, millstream_client::Error>(format!("moved to {}", to.display()))
                });
                continue;
            };
            let (image, users) = users.remove(&name).unwrap_or((image, Users::default()));
            let files = stored(image.fingerprint);
            match whole(&path) {
                Err(reason) => self.heal(image, &users, files, reason, mender),
                Ok(()) if !users.any && files.is_none() => {
                    let reason = "no container rests on it, and its image is not in the store";
                    let removed = || self.remove_unpacked(image).map(|()| "removed".to_owned());
                    mender.found(Kind::UnusedTree, &path, reason, removed);
                }
                Ok(()) => {}
            }
        }
        for (_, (image, users)) in users.into_iter().filter(|(_, (_, users))| !users.sharing.is_empty()) {
            self.heal(image, &users, stored(image.fingerprint), "it is missing".into(), mender);
        }
        Ok(())
    }

    fn users(&self) -> Result<BTreeMap<String, (Unpacked, Users)>> {
        let mut all: BTreeMap<String, (Unpacked, Users)> = BTreeMap::new();
        for name in self.names()? {
            let dir = self.dir().join(name.as_str());
            let Ok(config) = Config::read(&dir) else { continue };
            let image = config.unpacked();
            let (_, users) = all.entry(image.name()).or_insert_with(|| (image, Users::default()));
            users.any = true;
            if config.base == Base::Shared {
                users.sharing.push(name.to_string());
                if State::read(&dir)?.running.is_some_and(|running| running.is_alive()) {
                    users.running.push(name.to_string());
                }
            }
        }
        Ok(all)
    }

    /// Unpacks an image again, or removes what nobody needs.
    fn heal(
        &self,
        image: Unpacked,
        users: &Users,
        files: Option<ImageFiles>,
        reason: String,
        mender: &mut Mender,
    ) {
        let images = self.images();
        let path = image.directory(&images);
        if !users.running.is_empty() {
            let advice = format!("stop {} and repair again", users.running.join(", "));
            return mender.told(Kind::Tree, &path, reason, advice);
        }
        match files {
            // It is unpacked when next needed.
            _ if users.sharing.is_empty() => {
                mender.found(Kind::Tree, &path, reason, || {
                    put_aside(&images, image)?;
                    Ok::<_, Error>("removed".into())
                });
            }
            Some(files) => {
                mender.found(Kind::Tree, &path, reason, || {
                    put_aside(&images, image)?;
                    unpack_once(&images, image, &files)?;
                    Ok::<_, Error>("unpacked again".into())
                });
            }
            None => {
                let (users, image) = (users.sharing.join(", "), image.fingerprint);
                let advice = format!("{users} need the image {image}: fetch or import it, and repair again");
                mender.told(Kind::Tree, &path, reason, advice);
            }
        }
    }

    /// Removes an image with these ids, which no container was made from.
    pub(super) fn remove_unpacked(&self, image: Unpacked) -> Result<()> {
        let Some(_lock) = DirLock::exclusive(&image.directory(&self.images()))? else { return Ok(()) };
        let users = |name: &ContainerName| {
            let dir = self.dir().join(name.as_str());
            Config::read(&dir).is_ok_and(|config| config.unpacked().name() == image.name())
        };
        let containers: Vec<_> =
            self.names()?.into_iter().filter(users).map(|name| name.to_string()).collect();
        if !containers.is_empty() {
            return Err(Error::ImageInUse { fingerprint: image.fingerprint.short(), containers });
        }
        move_and_remove(&self.images(), image)
    }

    /// Removes an unpacked image that no container was made from; one that is used stays.
    pub fn remove_unused_image(&self, fingerprint: Fingerprint) -> Result<()> {
        self.remove_unused(Unpacked { fingerprint, ids: idmap::only_range()? })
    }

    fn remove_unused(&self, image: Unpacked) -> Result<()> {
        match self.remove_unpacked(image) {
            Err(Error::ImageInUse { .. } | Error::Busy { .. }) => Ok(()),
            other => other,
        }
    }
}

fn put_aside(images: &Path, image: Unpacked) -> Result<()> {
    match DirLock::exclusive(&image.directory(images))? {
        Some(_lock) => move_and_remove(images, image),
        None => Ok(()),
    }
}

/// Under a name that unpacking clears away, should we be interrupted. The caller has locked it.
fn move_and_remove(images: &Path, image: Unpacked) -> Result<()> {
    let (directory, doomed) = (image.directory(images), image.staging(images));
    let _ = fs::remove_dir_all(&doomed);
    atomic::rename(&directory, &doomed)?;
    fs::remove_dir_all(&doomed).map_err(Error::io(&doomed))
}

/// What unpacking ends with.
fn whole(dir: &Path) -> std::result::Result<(), String> {
    if !dir.join("rootfs").is_dir() {
        return Err("its root file system is missing".into());
    }
    let yaml = fs::read(dir.join("metadata.yaml")).map_err(|e| format!("metadata.yaml: {e}"))?;
    let metadata = Metadata::parse(&yaml).map_err(|e| e.to_string())?;
    let missing = |name: &&String| !dir.join("templates").join(name).is_file();
    match metadata.templates.values().map(|template| &template.template).find(missing) {
        Some(name) => Err(format!("the template {name} is missing")),
        None => Ok(()),
    }
}

fn remove(path: &Path) -> Result<String> {
    fs::remove_dir_all(path).map_err(Error::io(path))?;
    Ok("removed".into())
}
