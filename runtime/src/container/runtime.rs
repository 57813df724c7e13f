//! Containers on disk: create, list, describe, delete.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;

use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use millstream_image::{Fingerprint, atomic};
use serde::Serialize;

use super::cgroup::{self, Usage};
use super::changes;
use super::config::Configuration;
use super::idmap::{self, IdMap};
use super::image::{self, ImageFiles, Prepared, Unpacked, UnpackedImage, extract_shifted};
use super::lifecycle;
use super::lock::DirLock;
use super::name::ContainerName;
use super::probe;
use super::quota;
use super::record::{Base, Config, Exit, State, new_id, now};
use super::rootfs::Layers;
use crate::network::Interfaces;
use crate::{Error, Result};

/// Prefix of directories that are not containers yet.
pub(super) const STAGING: &str = ".new-";
/// Prefix of directories that are containers no more.
pub(super) const DELETED: &str = ".deleted-";

/// All containers below one directory.
#[derive(Clone, Debug)]
pub struct Runtime {
    dir: PathBuf,
}

/// Whether a container's root file system rests on the image all its containers share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ImageUse {
    /// Shared where kernel and file system can map ids, else copied.
    #[default]
    Automatic,
    /// A copy of the container's own.
    Copied,
}

/// What a new container is to be.
#[derive(Clone, Debug, Default)]
pub struct CreateOptions {
    /// What its root file system rests on.
    pub image: ImageUse,
    /// Its settings and profiles.
    pub configuration: Configuration,
    /// Whether it is deleted when it stops.
    pub ephemeral: bool,
}

/// How a container stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Its init runs.
    Running,
    /// It runs, and all of it is frozen.
    Paused,
    /// Nothing of it runs.
    Stopped,
}

/// How much is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Detail {
    Everything,
    Record,
}

/// What there is to know about a container.
#[derive(Clone, Debug, Serialize)]
pub struct Info {
    /// Its name.
    pub name: ContainerName,
    /// Whether it runs.
    pub status: Status,
    /// The image it was made from.
    pub image: Fingerprint,
    /// The image's description, if it has one.
    pub description: Option<String>,
    /// Kernel name of its architecture.
    pub architecture: String,
    /// Seconds since 1970.
    pub created_at: i64,
    /// Seconds since 1970, while it runs.
    pub started_at: Option<i64>,
    /// Its init's process id on the host, while it runs.
    pub pid: Option<i32>,
    /// Processes, while it runs.
    pub processes: Option<u64>,
    /// Bytes of memory, page cache included, while it runs and where the host counts.
    pub memory: Option<u64>,
    /// The most it had in this run.
    pub memory_peak: Option<u64>,
    /// The most bytes it and its snapshots may take of the disk, where that is kept.
    pub disk_limit: Option<u64>,
    /// Processor time of this run.
    pub cpu_seconds: Option<f64>,
    /// Its interfaces and addresses, while it runs.
    pub network: Option<Interfaces>,
    /// Its snapshots, the oldest first.
    pub snapshots: Vec<ContainerName>,
    /// Whether it is deleted when it stops.
    pub ephemeral: bool,
    /// Profiles whose settings it has.
    pub profiles: Vec<ContainerName>,
    /// What the user should know about this run, as that its limits are not kept.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Ids of its files on the host, and of its processes where settings choose no others; seen from
    /// where containers are made: an ordinary user's begin at 1.
    pub idmap: IdMap,
    /// What its root file system rests on.
    pub base: Base,
    /// How the last run ended.
    pub last_exit: Option<Exit>,
    /// Where its files and its console's log are.
    pub directory: PathBuf,
}

impl Runtime {
    /// Opens a directory of containers; makes it, closed to other users, if it is not there.
    pub fn open(dir: &Path) -> Result<Self> {
        let images = dir.join(image::DIRECTORY);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&images).map_err(Error::io(&images))?;
        // Images hold set-user-ID programs of root.
        let closed = fs::Permissions::from_mode(0o700);
        fs::set_permissions(dir, closed).map_err(Error::io(dir))?;
        Ok(Self { dir: fs::canonicalize(dir).map_err(Error::io(dir))? })
    }

    /// Unpacks an image's root file system while it comes, out of sight; `None` when it lies unpacked
    /// already. Architecture and the like are looked at in [`Prepared::finish`].
    pub fn prepare(&self, image: Fingerprint, rootfs: impl Read + Send) -> Result<Option<Prepared>> {
        Prepared::new(&self.images(), Unpacked { fingerprint: image, ids: idmap::only_range()? }, rootfs)
    }

    /// Makes a container from an image, which is unpacked if no other container did that yet.
    pub fn create(&self, name: &ContainerName, files: &ImageFiles, image: ImageUse) -> Result<()> {
        self.create_with(name, files, &CreateOptions { image, ..CreateOptions::default() })
    }

    /// As [`Runtime::create`], with settings.
    pub fn create_with(
        &self,
        name: &ContainerName,
        files: &ImageFiles,
        options: &CreateOptions,
    ) -> Result<()> {
        let configuration = self.checked(&options.configuration)?;
        self.collect();
        let target = self.dir.join(name.as_str());
        if target.exists() {
            return Err(Error::Exists { name: name.to_string() });
        }
        let only = idmap::only_range()?;
        let unpacked = UnpackedImage::get(&self.images(), files, only)?;
        // Ids are chosen and the container appears under one lock, so that no two get the same.
        let all = DirLock::exclusive_patient(&self.dir)?;
        let count = idmap::wanted(&self.expand_of(&configuration)?);
        let idmap = only.map_or_else(|| idmap::allocate(&self.idmaps()?, count), Ok)?;
        let mut config = Config {
            image: files.fingerprint,
            image_ids: only,
            properties: unpacked.metadata.properties.clone(),
            architecture: unpacked.metadata.architecture.clone(),
            id: new_id()?,
            idmap,
            base: Base::Shared,
            layers: Vec::new(),
            pending_layers: None,
            created_at: now(),
            settings: configuration.config,
            devices: configuration.devices,
            profiles: configuration.profiles,
            ephemeral: options.ephemeral,
            pending_templates: Some("create".into()),
        };
        let staging = self.dir.join(format!("{STAGING}{}", config.id));
        fs::create_dir(&staging).map_err(Error::io(&staging))?;
        let made = self
            .fill(&staging, &mut config, files, options.image)
            .and_then(|_lock| atomic::rename(&staging, &target).map_err(Into::into));
        if made.is_err() {
            let _ = fs::remove_dir_all(&staging);
        }
        drop(all);
        made
    }

    /// Fills a container's directory, which stays locked meanwhile.
    fn fill(
        &self,
        staging: &Path,
        config: &mut Config,
        files: &ImageFiles,
        image: ImageUse,
    ) -> Result<Option<DirLock>> {
        let lock = DirLock::exclusive(staging)?;
        self.empty_upper(staging, config)?;
        let layers = self.layers(staging, config);
        let shared = match image {
            ImageUse::Automatic => probe::can_share(&layers),
            ImageUse::Copied => Err("as asked for".into()),
        };
        if let Err(reason) = shared {
            config.base = Base::Copied { reason };
            let layers = self.layers(staging, config);
            extract_shifted(files, &layers.lower, config.idmap)?;
            // As where the containers are on an overlay themselves.
            if let Err(reason) = probe::can_share(&layers) {
                config.base = Base::Plain { reason };
            }
        }
        config.write(staging)?;
        Ok(lock)
    }

    /// All containers, by name.
    pub fn list(&self) -> Result<Vec<Info>> {
        self.list_with(Detail::Everything)
    }

    /// All containers, by name, without what takes time to ask for: `processes`, `memory`,
    /// `memory_peak`, `cpu_seconds`, `network` and `snapshots` are left empty.
    pub fn list_fast(&self) -> Result<Vec<Info>> {
        self.list_with(Detail::Record)
    }

    fn list_with(&self, detail: Detail) -> Result<Vec<Info>> {
        let mut found = Vec::new();
        for name in self.names()? {
            match self.look(&name, detail) {
                Ok(info) => found.push(info),
                // Deleted since we looked.
                Err(Error::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    /// [`Info::notes`] alone.
    pub fn notes(&self, name: &ContainerName) -> Result<Vec<String>> {
        let state = State::read(&self.existing(name)?)?;
        Ok(state.running.map(|running| running.notes).unwrap_or_default())
    }

    /// One container.
    pub fn info(&self, name: &ContainerName) -> Result<Info> {
        self.look(name, Detail::Everything)
    }

    fn look(&self, name: &ContainerName, detail: Detail) -> Result<Info> {
        let everything = detail == Detail::Everything;
        let directory = self.existing(name)?;
        let read = || Ok((Config::read(&directory)?, State::read(&directory)?));
        let (config, state) =
            read().map_err(|error| if directory.exists() { error } else { not_found(name) })?;
        let running = state.running.as_ref().filter(|running| running.is_alive());
        let mut last_exit = state.last_exit.clone();
        if running.is_none() && state.running.is_some() {
            self.clear_after_crash(name)?;
            last_exit = State::read(&directory)?.last_exit;
        }
        let usage = match running {
            Some(running) if everything => running.groups(&config.cgroup(name))?.usage(),
            Some(running) => {
                Usage { frozen: running.groups(&config.cgroup(name))?.is_frozen(), ..Usage::default() }
            }
            None => Usage::default(),
        };
        let status = match running {
            None => Status::Stopped,
            Some(_) if usage.frozen => Status::Paused,
            Some(_) => Status::Running,
        };
        let disk_limit = if everything { quota::of(&directory, &config) } else { None };
        Ok(Info {
            name: name.clone(),
            status,
            image: config.image,
            description: config.properties.get("description").cloned(),
            architecture: config.architecture,
            created_at: config.created_at,
            started_at: running.map(|r| r.started_at),
            pid: running.map(|r| r.init.pid),
            processes: usage.processes,
            memory: usage.memory,
            memory_peak: usage.memory_peak,
            disk_limit,
            cpu_seconds: usage.cpu.map(|cpu| cpu.as_secs_f64()),
            network: running.filter(|_| everything).map(|r| Interfaces::of(r.init.pid)),
            snapshots: if everything { self.snapshot_names(name)? } else { Vec::new() },
            ephemeral: config.ephemeral,
            profiles: config.profiles,
            notes: running.map(|r| r.notes.clone()).unwrap_or_default(),
            idmap: config.idmap,
            base: config.base,
            last_exit,
            directory,
        })
    }

    /// Deletes a container and all its files. One that runs is killed first if `force`, else an
    /// error.
    pub fn delete(&self, name: &ContainerName, force: bool) -> Result<()> {
        let directory = self.existing(name)?;
        let lock = self.lock(name)?;
        if lifecycle::settle(name, &directory)?.is_some() {
            if !force {
                return Err(Error::Running { name: name.to_string() });
            }
            lifecycle::kill(name, &directory)?;
        }
        let config = Config::read(&directory)?;
        cgroup::Host::discover(None)?.container(&config.cgroup(name)).remove()?;
        self.remove(&directory, &config)?;
        drop(lock);
        self.collect_layers()
    }

    /// Removes the files of a container that does not run. Needs its lock.
    pub(super) fn remove(&self, directory: &Path, config: &Config) -> Result<()> {
        let doomed = self.dir.join(format!("{DELETED}{}", config.id));
        self.leave_networks(&config.id);
        quota::remove(directory, config);
        atomic::rename(directory, &doomed)?;
        fs::remove_dir_all(&doomed).map_err(Error::io(&doomed))
    }

    /// Removes a container that has just ended and does not stay, and its image too if no other uses
    /// that. A command that is at work on it does that itself.
    pub(super) fn delete_ended(directory: &Path, image: bool) {
        let Some(runtime) = Self::of_container(directory) else { return };
        if let Ok(Some(_lock)) = DirLock::try_exclusive(directory)
            && let Ok(config) = Config::read(directory)
        {
            let _ = runtime.remove(directory, &config);
            if image {
                let _ = runtime.remove_image(config.image);
            }
        }
    }

    /// Where a container with this directory is.
    pub(super) fn of_container(directory: &Path) -> Option<Self> {
        Some(Self { dir: directory.parent()?.to_path_buf() })
    }

    /// The directory of the containers.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Unpacked images, used or not.
    pub fn images(&self) -> PathBuf {
        self.dir.join(image::DIRECTORY)
    }

    /// Removes an unpacked image that no container was made from. It is unpacked again when next
    /// needed.
    ///
    /// # Errors
    /// [`Error::ImageInUse`] names the containers that rest on it.
    pub fn remove_image(&self, fingerprint: Fingerprint) -> Result<()> {
        self.remove_unpacked(Unpacked { fingerprint, ids: idmap::only_range()? })
    }

    /// The directory of a container that exists.
    pub(super) fn existing(&self, name: &ContainerName) -> Result<PathBuf> {
        let directory = self.dir.join(name.as_str());
        if directory.join("config.json").exists() { Ok(directory) } else { Err(not_found(name)) }
    }

    /// Keeps other commands off a container.
    pub(super) fn lock(&self, name: &ContainerName) -> Result<DirLock> {
        DirLock::exclusive(&self.dir.join(name.as_str()))?.ok_or_else(|| not_found(name))
    }

    /// The layers of a container's root file system.
    pub(super) fn layers(&self, directory: &Path, config: &Config) -> Layers {
        let shared = config.base == Base::Shared;
        let image = config.unpacked().rootfs(&self.images());
        let mut between = self.stack(config);
        let lower = match between.pop_if(|_| !shared && !directory.join("rootfs").exists()) {
            // A copy of the image that has become a layer of several containers, with the same ids.
            Some(bottom) => bottom.path,
            None if shared => image,
            None => directory.join("rootfs"),
        };
        let changes = changes::of(directory);
        Layers {
            lower,
            map_ids: shared && config.image_ids.is_none(),
            plain: matches!(config.base, Base::Plain { .. }),
            between,
            idmap: config.idmap,
            ids: None,
            id: config.id.clone(),
            upper: changes::upper(&changes),
            work: changes::work(&changes),
        }
    }

    pub(crate) fn names(&self) -> Result<Vec<ContainerName>> {
        let entries = fs::read_dir(&self.dir).map_err(Error::io(&self.dir))?;
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(Error::io(&self.dir))?;
            if let Some(Ok(name)) = entry.file_name().to_str().map(str::parse)
                && entry.path().join("config.json").exists()
            {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    /// What identifies each of the containers there are.
    pub(crate) fn identities(&self) -> Result<BTreeSet<String>> {
        let read = |name: &ContainerName| Config::read(&self.dir.join(name.as_str())).map(|c| c.id);
        self.names()?.iter().map(read).collect()
    }

    /// Takes away what interrupted commands left: directories nobody holds a lock on.
    fn collect(&self) {
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        for entry in entries {
            let name = entry.file_name();
            let left = [STAGING, DELETED].iter().any(|prefix| name.to_string_lossy().starts_with(prefix));
            if left && let Ok(Some(_lock)) = DirLock::try_exclusive(&entry.path()) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }

    /// After a supervisor was killed: takes its control groups away and notes the end. Leaves it to
    /// the command that is at work on the container, if there is one.
    fn clear_after_crash(&self, name: &ContainerName) -> Result<()> {
        let directory = self.dir.join(name.as_str());
        match DirLock::try_exclusive(&directory)? {
            Some(_lock) => lifecycle::settle(name, &directory).map(|_| ()),
            None => Ok(()),
        }
    }
}

fn not_found(name: &ContainerName) -> Error {
    Error::NotFound { name: name.to_string() }
}
