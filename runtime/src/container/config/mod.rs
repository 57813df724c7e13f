//! What can be set for containers: keys with values, and profiles of them that containers share.
//!
//! A container has its profiles' settings, later ones over earlier ones, and over all of them its
//! own. Profiles are files `.profiles/NAME.json` below the directory of the containers; `default`
//! is always there.

pub mod devices;
pub mod kernel;
pub mod keys;
pub mod oci;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

use millstream_image::atomic;
use serde::{Deserialize, Serialize};

use devices::Devices;
use keys::is_true;

use super::lock::DirLock;
use super::name::ContainerName;
use super::record::{Config, State};
use super::runtime::Runtime;
use crate::network::{self, Who};
use crate::{Error, Result};

/// Keys and their values.
pub type Settings = BTreeMap<String, String>;
/// Names of profiles, in the order in which they apply.
pub type Profiles = Vec<ContainerName>;

const DIRECTORY: &str = ".profiles";
const DEFAULT: &str = "default";
/// What running containers follow at once.
const LIVE: &str = "limits.";
/// Said whenever somebody sets it, and whenever such a container starts.
pub const PRIVILEGED: &str =
    "the container's root has the id of the host's root; give it to nobody who may not be root here";
/// What is looked up when it is needed, whether or not the container runs.
const LOOKED_UP: [&str; 4] = ["user.", "boot.", "cloud-init.", "snapshots."];

/// Settings that containers share.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// For people.
    #[serde(default)]
    pub description: String,
    /// Keys and values.
    #[serde(default)]
    pub config: Settings,
    /// Devices.
    #[serde(default)]
    pub devices: Devices,
}

/// A container's own settings, as they are shown and edited.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Configuration {
    /// Keys and values.
    pub config: Settings,
    /// Devices of its own.
    #[serde(default)]
    pub devices: Devices,
    /// Profiles whose settings and devices it has besides.
    pub profiles: Profiles,
}

impl Default for Configuration {
    fn default() -> Self {
        Self { config: Settings::new(), devices: Devices::new(), profiles: default_profiles() }
    }
}

/// The profiles of a container that names none.
pub fn default_profiles() -> Profiles {
    DEFAULT.parse().into_iter().collect()
}

impl Runtime {
    /// A container's own settings.
    pub fn configuration(&self, name: &ContainerName) -> Result<Configuration> {
        let Config { settings, devices, profiles, .. } = Config::read(&self.existing(name)?)?;
        Ok(Configuration { config: settings, devices, profiles })
    }

    /// What a container has, profiles included.
    pub fn expanded(&self, name: &ContainerName) -> Result<Settings> {
        self.expand(&Config::read(&self.existing(name)?)?)
    }

    /// The devices a container has, profiles included.
    pub fn expanded_devices(&self, name: &ContainerName) -> Result<Devices> {
        self.expand_devices(&Config::read(&self.existing(name)?)?)
    }

    /// Replaces a container's own settings. What the kernel can change in a running container
    /// changes at once. Returns one line for everything that takes effect later, or not at all.
    ///
    /// # Errors
    /// [`Error::Setting`] or [`Error::NoProfile`]; then nothing has changed.
    pub fn configure(&self, name: &ContainerName, new: &Configuration) -> Result<Vec<String>> {
        self.checked(new)?;
        let directory = self.existing(name)?;
        let _lock = self.lock(name)?;
        let mut config = Config::read(&directory)?;
        let before = self.expand(&config)?;
        let devices = self.expand_devices(&config)?;
        config.settings.clone_from(&new.config);
        config.devices.clone_from(&new.devices);
        config.profiles.clone_from(&new.profiles);
        config.write(&directory)?;
        let mut notes = self.follow(name, &config, &before, &devices)?;
        if is_true(&self.expand(&config)?, "security.privileged") && !is_true(&before, "security.privileged")
        {
            notes.push(format!("security.privileged: {PRIVILEGED}"));
        }
        Ok(notes)
    }

    /// Settings that can be a container's.
    pub(super) fn checked(&self, new: &Configuration) -> Result<Configuration> {
        check(&new.config)?;
        devices::check(&new.devices)?;
        new.profiles.iter().try_for_each(|profile| self.profile(profile).map(drop))?;
        Ok(new.clone())
    }

    /// All profiles, by name.
    pub fn profiles(&self) -> Result<BTreeMap<ContainerName, Profile>> {
        let mut names: BTreeSet<_> = default_profiles().into_iter().collect();
        for entry in fs::read_dir(self.profile_directory()).into_iter().flatten().flatten() {
            let file = entry.file_name();
            names.extend(file.to_str().and_then(|file| file.strip_suffix(".json")?.parse().ok()));
        }
        names.into_iter().map(|name| self.profile(&name).map(|profile| (name, profile))).collect()
    }

    /// A profile.
    pub fn profile(&self, name: &ContainerName) -> Result<Profile> {
        let path = self.profile_path(name);
        match fs::read(&path) {
            Ok(text) => {
                serde_json::from_slice(&text).map_err(|e| Error::Record { path, reason: e.to_string() })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound && name.as_str() == DEFAULT => {
                Ok(Profile {
                    description: "Every container's, unless it is told otherwise".into(),
                    devices: self.default_devices(),
                    ..Profile::default()
                })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(Error::NoProfile { name: name.to_string() })
            }
            Err(error) => Err(Error::io(&path)(error)),
        }
    }

    /// Makes or replaces a profile. Running containers that have it follow, as with
    /// [`Runtime::configure`].
    pub fn save_profile(&self, name: &ContainerName, profile: &Profile) -> Result<Vec<String>> {
        check(&profile.config)?;
        devices::check(&profile.devices)?;
        let _all = DirLock::exclusive(self.dir())?;
        let users = self.users_of(name)?;
        let both = |config| Ok((self.expand(config)?, self.expand_devices(config)?));
        let before: Vec<_> = users.iter().map(|(_, config)| both(config)).collect::<Result<_>>()?;
        let directory = self.profile_directory();
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&directory);
        made.map_err(Error::io(&directory))?;
        let path = self.profile_path(name);
        let text = serde_json::to_vec_pretty(profile).map_err(|e| Error::io(&path)(e.into()))?;
        atomic::write_with_mode(&path, &text, 0o600)?;
        let mut notes = Vec::new();
        for ((user, config), (settings, devices)) in users.iter().zip(&before) {
            let said = self.follow(user, config, settings, devices)?;
            notes.extend(said.into_iter().map(|note| format!("{user}: {note}")));
        }
        Ok(notes)
    }

    /// Deletes a profile that no container has.
    pub fn delete_profile(&self, name: &ContainerName) -> Result<()> {
        self.profile(name)?;
        let refused = |reason: String| Err(Error::ProfileInUse { name: name.to_string(), reason });
        if name.as_str() == DEFAULT {
            return refused("it is the one containers have by default".into());
        }
        let _all = DirLock::exclusive(self.dir())?;
        let users: Vec<_> = self.users_of(name)?.into_iter().map(|(user, _)| user.to_string()).collect();
        if !users.is_empty() {
            return refused(format!("it is used by {}", users.join(", ")));
        }
        let path = self.profile_path(name);
        fs::remove_file(&path).map_err(Error::io(&path))
    }

    pub(super) fn expand(&self, config: &Config) -> Result<Settings> {
        self.over_profiles(&config.profiles, &config.settings)
    }

    /// What a container to be made will have, profiles included.
    pub(super) fn expand_of(&self, new: &Configuration) -> Result<Settings> {
        self.over_profiles(&new.profiles, &new.config)
    }

    fn over_profiles(&self, profiles: &Profiles, own: &Settings) -> Result<Settings> {
        let mut settings = Settings::new();
        for name in profiles {
            settings.extend(self.profile(name)?.config);
        }
        settings.extend(own.clone());
        Ok(settings)
    }

    pub(super) fn expand_devices(&self, config: &Config) -> Result<Devices> {
        let mut all = Devices::new();
        for name in &config.profiles {
            devices::merge(&mut all, &self.profile(name)?.devices);
        }
        devices::merge(&mut all, &config.devices);
        Ok(all)
    }

    /// Lets a container that runs follow its changed settings.
    fn follow(
        &self,
        name: &ContainerName,
        config: &Config,
        before: &Settings,
        devices: &Devices,
    ) -> Result<Vec<String>> {
        let running = State::read(&self.existing(name)?)?.running;
        let Some(running) = running.filter(super::record::Running::is_alive) else { return Ok(Vec::new()) };
        let after = self.expand(config)?;
        let keys: BTreeSet<&str> = before.keys().chain(after.keys()).map(String::as_str).collect();
        let changed = keys.into_iter().filter(|key| before.get(*key) != after.get(*key));
        let (live, later): (Vec<_>, Vec<_>) =
            changed.partition(|key| key.starts_with(LIVE) && !key.starts_with(kernel::LIMITS));
        let mut notes = running.groups(&config.cgroup(name))?.limit(&after, Some(&live));
        let later = later.into_iter().filter(|key| !LOOKED_UP.iter().any(|prefix| key.starts_with(prefix)));
        notes.extend(later.map(|key| match key.strip_prefix("environment.") {
            Some(_) => format!("{key} takes effect for commands now, for init with the next start"),
            None => format!("{key} takes effect with the next start"),
        }));
        let after = self.expand_devices(config)?;
        let groups = running.groups(&config.cgroup(name))?;
        notes.extend(groups.limit_io(&self.existing(name)?, &after, devices));
        let who = Who { name: name.as_str(), id: &config.id };
        notes.extend(self.follow_devices(&who, running.init, devices, &after));
        Ok(notes)
    }

    /// As long as nobody changed the profile: an interface, where there is a network for it.
    fn default_devices(&self) -> Devices {
        let keys = [("type", "nic"), ("network", network::DEFAULT)];
        let keys = keys.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let there = self.has_default_network();
        there.then(|| ("eth0".to_owned(), keys.into())).into_iter().collect()
    }

    fn users_of(&self, profile: &ContainerName) -> Result<Vec<(ContainerName, Config)>> {
        let mut users = Vec::new();
        for name in self.names()? {
            let config = Config::read(&self.existing(&name)?)?;
            if config.profiles.contains(profile) {
                users.push((name, config));
            }
        }
        Ok(users)
    }

    fn profile_directory(&self) -> PathBuf {
        self.dir().join(DIRECTORY)
    }

    fn profile_path(&self, name: &ContainerName) -> PathBuf {
        self.profile_directory().join(format!("{name}.json"))
    }
}

fn check(settings: &Settings) -> Result<()> {
    settings.iter().try_for_each(|(key, value)| keys::check(key, value))
}

/// Variables of init and of commands.
pub fn environment(settings: &Settings) -> BTreeMap<String, String> {
    let variable = |(key, value): (&String, &String)| {
        key.strip_prefix("environment.").map(|name| (name.to_owned(), value.clone()))
    };
    settings.iter().filter_map(variable).collect()
}
