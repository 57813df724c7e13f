//! Snapshots and copies, in constant time whatever the size: what a container has changed becomes a
//! layer that is never written to again, and it goes on with an empty one over that.
//!
//! A layer lives as long as a container or a snapshot names it. A change of layers is written down
//! before it is begun and completed by the next command, should it be cut short.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use millstream_image::atomic;
use serde::{Deserialize, Serialize};

use super::changes;
use super::idmap;
use super::lifecycle::settle;
use super::lock::DirLock;
use super::name::ContainerName;
use super::quota;
use super::record::{Base, Config, LayerRef, PendingLayers, new_id, now};
use super::rootfs::Layer;
use super::runtime::{DELETED, Runtime, STAGING};
use super::tending;
use crate::{Error, Result};

const LAYERS: &str = ".layers";
pub(super) const SNAPSHOTS: &str = "snapshots";

/// A container as it was at one time.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Snapshot {
    /// Seconds since 1970.
    pub created_at: i64,
    /// When it may be deleted by itself; seconds since 1970.
    pub expires_at: Option<i64>,
    config: Config,
}

impl Snapshot {
    pub(super) fn config(&self) -> &Config {
        &self.config
    }
}

impl Runtime {
    /// Keeps what a container is now, under the name given or one that `snapshots.pattern` makes, for
    /// `lifetime` seconds or what `snapshots.expiry` says. Returns the name. Snapshots that have expired
    /// are deleted. A container that runs stands still while what it has changed is copied.
    pub fn snapshot(
        &self,
        name: &ContainerName,
        snapshot: Option<&ContainerName>,
        lifetime: Option<u32>,
    ) -> Result<ContainerName> {
        let directory = self.existing(name)?;
        let _lock = self.lock(name)?;
        let running = settle(name, &directory)?;
        let mut config = Config::read(&directory)?;
        if running.is_none() {
            self.complete_layers(&directory, &mut config)?;
        }
        let settings = self.expand(&config)?;
        expire(&directory)?;
        let taken = snapshots_of(&directory)?;
        let free = |name: &ContainerName| !taken.iter().any(|(other, _)| other == name);
        let chosen = match snapshot {
            Some(chosen) if free(chosen) => chosen.clone(),
            Some(chosen) => {
                return Err(Error::SnapshotExists { name: name.to_string(), snapshot: chosen.to_string() });
            }
            None => {
                // One more than there are: one of these is free.
                let mut candidates = tending::names(&settings, taken.len() + 1);
                candidates.find(free).ok_or_else(|| Error::Busy { name: name.to_string() })?
            }
        };
        let copied = match running {
            None => self.keep_changes(&directory, &mut config).map(|()| None)?,
            Some(running) => self.copy_changes(name, &directory, &mut config, &running)?,
        };
        let parent = directory.join(SNAPSHOTS);
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&parent);
        made.map_err(Error::io(&parent))?;
        let lifetime = lifetime.map(i64::from).or_else(|| tending::configured_lifetime(&settings));
        let expires_at = lifetime.map(|seconds| now() + seconds);
        let path = snapshot_path(&directory, &chosen);
        // Until it is named, a layer may be collected by others.
        let _all = copied.is_some().then(|| DirLock::exclusive_patient(self.dir())).transpose()?;
        if let Some(copied) = copied {
            atomic::rename(&copied.changes(), &self.layer(copied.id()))?;
        }
        let text = serde_json::to_vec_pretty(&Snapshot { created_at: now(), expires_at, config });
        atomic::write_with_mode(&path, &text.map_err(|e| Error::io(&path)(e.into()))?, 0o600)?;
        Ok(chosen)
    }

    /// A container's snapshots, the oldest first.
    pub fn snapshots(&self, name: &ContainerName) -> Result<Vec<(ContainerName, Snapshot)>> {
        snapshots_of(&self.existing(name)?)
    }

    pub(super) fn snapshot_names(&self, name: &ContainerName) -> Result<Vec<ContainerName>> {
        Ok(self.snapshots(name)?.into_iter().map(|(snapshot, _)| snapshot).collect())
    }

    /// Makes a stopped container what it was; what has changed since is gone. Its name and ids stay.
    pub fn restore(&self, name: &ContainerName, snapshot: &ContainerName) -> Result<()> {
        let (directory, lock, mut config) = self.stopped(name)?;
        let old = read_snapshot(name, &directory, snapshot)?.config;
        config.layers = old.layers;
        config.settings = old.settings;
        config.profiles = old.profiles;
        config.pending_templates = old.pending_templates;
        config.pending_layers = Some(PendingLayers::Discard);
        config.write(&directory)?;
        self.complete_layers(&directory, &mut config)?;
        drop(lock);
        self.collect_layers()
    }

    /// Deletes a snapshot.
    pub fn delete_snapshot(&self, name: &ContainerName, snapshot: &ContainerName) -> Result<()> {
        let directory = self.existing(name)?;
        let lock = self.lock(name)?;
        read_snapshot(name, &directory, snapshot)?;
        let path = snapshot_path(&directory, snapshot);
        fs::remove_file(&path).map_err(Error::io(&path))?;
        drop(lock);
        self.collect_layers()
    }

    /// Makes a container from a stopped one, or from a snapshot of any. It has ids of its own, where the
    /// kernel can map them.
    pub fn copy(
        &self,
        from: &ContainerName,
        snapshot: Option<&ContainerName>,
        to: &ContainerName,
    ) -> Result<()> {
        let target = self.free(to)?;
        let (_lock, mut config) = if let Some(snapshot) = snapshot {
            let directory = self.existing(from)?;
            (self.lock(from)?, read_snapshot(from, &directory, snapshot)?.config)
        } else {
            let (directory, lock, mut config) = self.stopped(from)?;
            self.keep_changes(&directory, &mut config)?;
            (lock, config)
        };
        let all = DirLock::exclusive_patient(self.dir())?;
        if config.base == Base::Shared && config.image_ids.is_none() {
            config.idmap = idmap::allocate(&self.idmaps()?, config.idmap.count)?;
        }
        config.id = new_id()?;
        config.created_at = now();
        config.pending_templates.get_or_insert_with(|| "copy".into());
        let staging = self.dir().join(format!("{STAGING}{}", config.id));
        fs::create_dir(&staging).map_err(Error::io(&staging))?;
        let made = DirLock::exclusive(&staging).and_then(|_lock| {
            self.empty_upper(&staging, &config)?;
            config.write(&staging)?;
            Ok(atomic::rename(&staging, &target)?)
        });
        if made.is_err() {
            let _ = fs::remove_dir_all(&staging);
        }
        drop(all);
        made
    }

    /// Gives a stopped container another name.
    pub fn rename(&self, from: &ContainerName, to: &ContainerName) -> Result<()> {
        let target = self.free(to)?;
        let (directory, _lock, mut config) = self.stopped(from)?;
        let _all = DirLock::exclusive_patient(self.dir())?;
        config.pending_templates.get_or_insert_with(|| "rename".into());
        config.write(&directory)?;
        Ok(atomic::rename(&directory, &target)?)
    }

    /// What a snapshot is made of.
    pub(super) fn snapshot_config(&self, name: &ContainerName, snapshot: &ContainerName) -> Result<Config> {
        Ok(read_snapshot(name, &self.existing(name)?, snapshot)?.config)
    }

    fn free(&self, name: &ContainerName) -> Result<PathBuf> {
        let target = self.dir().join(name.as_str());
        if target.exists() { Err(Error::Exists { name: name.to_string() }) } else { Ok(target) }
    }

    /// A container that does not run, locked.
    pub(super) fn stopped(&self, name: &ContainerName) -> Result<(PathBuf, DirLock, Config)> {
        let directory = self.existing(name)?;
        let lock = self.lock(name)?;
        if settle(name, &directory)?.is_some() {
            return Err(Error::Running { name: name.to_string() });
        }
        let mut config = Config::read(&directory)?;
        self.complete_layers(&directory, &mut config)?;
        Ok((directory, lock, config))
    }

    /// The layers between the image and a container's changes.
    pub(super) fn stack(&self, config: &Config) -> Vec<Layer> {
        let layer =
            |layer: &LayerRef| Layer { path: changes::upper(&self.layer(&layer.id)), ids: Some(layer.idmap) };
        config.layers.iter().map(layer).collect()
    }

    /// Where a layer is, or will be: changes of before, without the scratch space.
    pub(super) fn layer(&self, id: &str) -> PathBuf {
        self.dir().join(LAYERS).join(id)
    }

    /// Makes a layer of what a container has changed, if anything.
    fn keep_changes(&self, directory: &Path, config: &mut Config) -> Result<()> {
        self.keep_image(directory, config)?;
        let upper = changes::upper(&changes::of(directory));
        let changed = fs::read_dir(&upper).map_err(Error::io(&upper))?.next().is_some();
        if changed {
            config.pending_layers = Some(PendingLayers::Keep(new_id()?));
            config.write(directory)?;
            self.complete_layers(directory, config)?;
        }
        Ok(())
    }

    /// Makes a layer of a container's own copy of the image, if it has one.
    pub(super) fn keep_image(&self, directory: &Path, config: &mut Config) -> Result<()> {
        if let Base::Plain { reason } = &config.base {
            return Err(Error::NoLayers { reason: reason.clone() });
        }
        let layers = self.dir().join(LAYERS);
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&layers);
        made.map_err(Error::io(&layers))?;
        let rootfs = directory.join("rootfs");
        if rootfs.exists() {
            // A copy of the image becomes the lowest layer. It counts from when it is there.
            let id = new_id()?;
            config.layers.push(LayerRef { id: id.clone(), idmap: config.idmap });
            config.write(directory)?;
            let layer = self.layer(&id);
            fs::create_dir(&layer).map_err(Error::io(&layer))?;
            atomic::rename(&rootfs, &changes::upper(&layer))?;
        }
        Ok(())
    }

    /// Completes a change of layers that was begun.
    pub(super) fn complete_layers(&self, directory: &Path, config: &mut Config) -> Result<()> {
        if directory.join("rootfs").exists() {
            // Cut short before the copy of the image was moved.
            config.layers.retain(|layer| changes::upper(&self.layer(&layer.id)).exists());
        }
        let Some(pending) = config.pending_layers.take() else { return Ok(()) };
        let changes = changes::of(directory);
        match pending {
            PendingLayers::Keep(id) => {
                let layer = self.layer(&id);
                if !layer.exists() {
                    atomic::rename(&changes, &layer)?;
                }
                changes::settle(&layer)?;
                config.layers.insert(0, LayerRef { id, idmap: config.idmap });
            }
            PendingLayers::Discard => {
                let doomed = self.dir().join(format!("{DELETED}{}", new_id()?));
                if changes.exists() {
                    atomic::rename(&changes, &doomed)?;
                    fs::remove_dir_all(&doomed).map_err(Error::io(&doomed))?;
                }
            }
        }
        self.empty_upper(directory, config)?;
        config.write(directory)
    }

    /// A fresh place for changes, whose root looks as that of the layer below.
    pub(super) fn empty_upper(&self, directory: &Path, config: &Config) -> Result<()> {
        let layers = self.layers(directory, config);
        let below = layers.between.first();
        let (path, ids) = match below {
            Some(layer) => (&layer.path, layer.ids),
            None if layers.map_ids => (&layers.lower, Some(idmap::IdMap { base: 0, ..config.idmap })),
            None => (&layers.lower, Some(config.idmap)),
        };
        let root = fs::metadata(path).map_err(Error::io(path))?;
        let from = ids.map_or(config.idmap.base, |ids| ids.base);
        let owner = |id: u32| Some(id.saturating_sub(from).min(config.idmap.count - 1) + config.idmap.base);
        changes::make(&changes::of(directory))?;
        let upper = &layers.upper;
        chown(upper, owner(root.uid()), owner(root.gid())).map_err(Error::io(upper))?;
        let mode = fs::Permissions::from_mode(root.mode() & 0o7777);
        fs::set_permissions(upper, mode).map_err(Error::io(upper))?;
        quota::mark(directory, config);
        Ok(())
    }

    /// Removes layers that no container and no snapshot names.
    pub(super) fn collect_layers(&self) -> Result<()> {
        let _all = DirLock::exclusive_patient(self.dir())?;
        // Looked at first: whoever makes a layer has written down its name before.
        let present: Vec<_> = fs::read_dir(self.dir().join(LAYERS)).into_iter().flatten().flatten().collect();
        let mut used = BTreeSet::new();
        let mut note = |config: Config| {
            used.extend(config.layers.into_iter().map(|layer| layer.id));
            if let Some(PendingLayers::Keep(id)) = config.pending_layers {
                used.insert(id);
            }
        };
        for name in self.names()? {
            let directory = self.existing(&name)?;
            note(Config::read(&directory)?);
            snapshots_of(&directory)?.into_iter().for_each(|(_, snapshot)| note(snapshot.config));
        }
        for entry in present {
            if !entry.file_name().to_str().is_some_and(|id| used.contains(id)) {
                let doomed = self.dir().join(format!("{DELETED}{}", new_id()?));
                atomic::rename(&entry.path(), &doomed)?;
                fs::remove_dir_all(&doomed).map_err(Error::io(&doomed))?;
            }
        }
        Ok(())
    }
}

/// Deletes the snapshots that have expired, and returns their names. Needs the lock.
pub(super) fn expire(directory: &Path) -> Result<Vec<ContainerName>> {
    let over = |snapshot: &Snapshot| snapshot.expires_at.is_some_and(|end| end <= now());
    let mut gone = Vec::new();
    for (name, _) in snapshots_of(directory)?.into_iter().filter(|(_, snapshot)| over(snapshot)) {
        let path = snapshot_path(directory, &name);
        fs::remove_file(&path).map_err(Error::io(&path))?;
        gone.push(name);
    }
    Ok(gone)
}

fn snapshot_path(directory: &Path, snapshot: &ContainerName) -> PathBuf {
    directory.join(SNAPSHOTS).join(format!("{snapshot}.json"))
}

fn read_snapshot(name: &ContainerName, directory: &Path, snapshot: &ContainerName) -> Result<Snapshot> {
    let path = snapshot_path(directory, snapshot);
    match fs::read(&path) {
        Ok(text) => serde_json::from_slice(&text).map_err(|e| Error::Record { path, reason: e.to_string() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(Error::NoSnapshot { name: name.to_string(), snapshot: snapshot.to_string() })
        }
        Err(error) => Err(Error::io(&path)(error)),
    }
}

fn snapshots_of(directory: &Path) -> Result<Vec<(ContainerName, Snapshot)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory.join(SNAPSHOTS)).into_iter().flatten().flatten() {
        let file = entry.file_name();
        if let Some(Ok(snapshot)) = file.to_str().and_then(|f| f.strip_suffix(".json")).map(str::parse) {
            let read = match fs::read(entry.path()) {
                // Whoever only lists holds no lock: it was deleted meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                read => read.map_err(Error::io(entry.path()))?,
            };
            let parsed = serde_json::from_slice::<Snapshot>(&read);
            let record = |e: serde_json::Error| Error::Record { path: entry.path(), reason: e.to_string() };
            found.push((snapshot, parsed.map_err(record)?));
        }
    }
    found.sort_by(|(a, x), (b, y)| (x.created_at, a).cmp(&(y.created_at, b)));
    Ok(found)
}
