//! What is written down about a container: `config.json`, which lasts, and `state.json`, which
//! describes processes.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use millstream_image::{Fingerprint, atomic};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::cgroup::{Caller, Cgroups, Host};
use super::config::devices::Devices;
use super::config::{Profiles, Settings, default_profiles};
use super::idmap::IdMap;
use super::image::Unpacked;
use super::name::ContainerName;
use super::process::{Process, boot_id};
use crate::{Error, Result};

/// What a container is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Config {
    /// The image it was made from.
    pub image: Fingerprint,
    /// The ids the unpacked image has; none: its own, which the mount maps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_ids: Option<IdMap>,
    /// The image's properties at that time.
    pub properties: BTreeMap<String, String>,
    /// Kernel name of its architecture.
    pub architecture: String,
    /// Identifies it for ever: machine id of a fresh system, name of its control groups.
    pub id: String,
    /// Its ids on the host.
    pub idmap: IdMap,
    /// What its root file system rests on.
    pub base: Base,
    /// What was changed before snapshots and copies were made, the latest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<LayerRef>,
    /// A change of layers that was begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending_layers: Option<PendingLayers>,
    /// Seconds since 1970.
    pub created_at: i64,
    /// What was set for it alone.
    #[serde(default)]
    pub settings: Settings,
    /// Devices it alone has.
    #[serde(default, skip_serializing_if = "Devices::is_empty")]
    pub devices: Devices,
    /// Profiles whose settings it has besides.
    #[serde(default = "default_profiles")]
    pub profiles: Profiles,
    /// Whether it is deleted when it stops.
    #[serde(default)]
    pub ephemeral: bool,
    /// Occasion whose templates are rendered at the next start: `create`, `copy`, `rename`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending_templates: Option<String>,
}

/// A layer that containers and snapshots share: `.layers/ID/`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerRef {
    /// Its directory's name.
    pub id: String,
    /// The host's ids its files have.
    pub idmap: IdMap,
}

/// What is to become of a container's changes since the last layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PendingLayers {
    /// They become this layer.
    Keep(String),
    /// They go.
    Discard,
}

/// What a container's root file system rests on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Base {
    /// The unpacked image that all its containers share.
    Shared,
    /// A copy of its own with other ids.
    Copied {
        /// Why it is not shared.
        reason: String,
    },
    /// A copy of its own that it changes itself, without layers.
    Plain {
        /// Why there is no overlay.
        reason: String,
    },
}

impl Config {
    /// The unpacked image it rests on, or was copied from.
    pub fn unpacked(&self) -> Unpacked {
        Unpacked { fingerprint: self.image, ids: self.image_ids }
    }

    /// Name of the container's control groups: its own, and unlike that of any container elsewhere.
    pub fn cgroup(&self, name: &ContainerName) -> String {
        format!("{name}-{}", self.id.split('-').next().unwrap_or(&self.id))
    }
}

/// What goes on in a container.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct State {
    /// Set while it runs, and after its supervisor was killed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running: Option<Running>,
    /// How the last run ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_exit: Option<Exit>,
}

/// A run under way.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Running {
    /// The host's boot it belongs to.
    pub boot_id: String,
    /// The container's first process.
    pub init: Process,
    /// The process of ours that looks after it.
    pub supervisor: Process,
    /// Seconds since 1970.
    pub started_at: i64,
    /// Where its control groups are, if not at the root.
    #[serde(default)]
    pub caller: Option<Caller>,
    /// What the user should know about this run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Processes that belong to its network.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub helpers: Vec<Process>,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Seconds since 1970.
    pub at: i64,
    /// Exit code of init, 128 and the number for a signal. A container that powered itself off has 0.
    pub code: i32,
    /// Why it could not be started again, when that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Running {
    /// The control groups of the container, `id` being their name.
    pub fn groups(&self, id: &str) -> Result<Cgroups> {
        Ok(Host::discover(self.caller.as_ref())?.container(id))
    }

    /// Whether the container runs: its supervisor is there, in this boot. Init may be missing for a
    /// moment, while the container reboots or its end is being written down.
    pub fn is_alive(&self) -> bool {
        boot_id().is_ok_and(|id| id == self.boot_id) && self.supervisor.is_alive()
    }
}

impl Config {
    /// Reads a container's.
    pub fn read(container: &Path) -> Result<Self> {
        read(&container.join("config.json"))
    }

    /// Replaces a container's, durably.
    pub fn write(&self, container: &Path) -> Result<()> {
        let path = container.join("config.json");
        Ok(atomic::write_with_mode(&path, &text(self, &path)?, 0o600)?)
    }
}

impl State {
    /// Reads a container's. None written, or one cut short by a power failure: nothing runs.
    pub fn read(container: &Path) -> Result<Self> {
        let path = container.join("state.json");
        match fs::read(&path) {
            Ok(text) if text.is_empty() => Ok(Self::default()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Ok(_) => read(&path),
            Err(error) => Err(Error::io(&path)(error)),
        }
    }

    /// Replaces a container's. Not synced: what it tells about does not survive a power failure. On a
    /// full disk, what has ended is forgotten rather than remembered as running.
    pub fn write(&self, container: &Path) -> Result<()> {
        match self.replace(container) {
            Err(Error::Io { source, .. })
                if source.kind() == io::ErrorKind::StorageFull && self.running.is_none() =>
            {
                let path = container.join("state.json");
                fs::remove_file(&path).map_err(Error::io(&path))?;
                // What the old one took may suffice.
                let _ = self.replace(container);
                Ok(())
            }
            other => other,
        }
    }

    fn replace(&self, container: &Path) -> Result<()> {
        let path = container.join("state.json");
        let temp = container.join(".state.json");
        if let Err(error) = fs::write(&temp, text(self, &path)?) {
            let _ = fs::remove_file(&temp);
            return Err(Error::io(&temp)(error));
        }
        fs::rename(&temp, &path).map_err(Error::io(&path))
    }
}

/// Seconds since 1970.
pub fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_secs() as i64)
}

/// A fresh random id in the form of a UUID (version 4).
pub fn new_id() -> Result<String> {
    let path = PathBuf::from("/proc/sys/kernel/random/uuid");
    Ok(fs::read_to_string(&path).map_err(Error::io(&path))?.trim().to_owned())
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = fs::read(path).map_err(Error::io(path))?;
    serde_json::from_slice(&text).map_err(|e| Error::Record { path: path.into(), reason: e.to_string() })
}

fn text(value: &impl Serialize, path: &Path) -> Result<Vec<u8>> {
    let mut text = serde_json::to_vec_pretty(value)
        .map_err(|e| Error::Record { path: path.into(), reason: e.to_string() })?;
    text.push(b'\n');
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_cut_short_by_a_power_failure_reads_as_stopped() {
        let dir = tempfile::tempdir().unwrap();
        assert!(State::read(dir.path()).unwrap().running.is_none());
        fs::write(dir.path().join("state.json"), "").unwrap();
        assert!(State::read(dir.path()).unwrap().running.is_none());
    }

    #[test]
    fn a_run_of_another_boot_is_over() {
        let this = Process::of(std::process::id() as i32).unwrap();
        let mut running = Running {
            boot_id: boot_id().unwrap(),
            init: this,
            supervisor: this,
            started_at: now(),
            caller: None,
            notes: Vec::new(),
            helpers: Vec::new(),
        };
        assert!(running.is_alive());
        running.boot_id = "another".into();
        assert!(!running.is_alive());
    }
}
