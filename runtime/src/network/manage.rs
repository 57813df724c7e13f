//! Networks on disk, `.networks/NAME.json`, and on the host.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

use millstream_image::atomic;
use serde::{Deserialize, Serialize};

use super::bridge::Bridge;
use super::settings;
use super::tools;
use crate::container::{DirLock, Settings, is_interface, new_id, of_type};
use crate::sandbox::userns;
use crate::{Error, Result, Runtime};

const DIRECTORY: &str = ".networks";
/// The network that containers are on unless they are told otherwise.
pub const DEFAULT: &str = "millbr0";

/// A network that containers can be on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// For people.
    #[serde(default)]
    pub description: String,
    /// Keys and values.
    #[serde(default)]
    pub config: Settings,
    /// The id of the container it was made for, with which it goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
}

/// The name of a network that is made for one container.
pub(crate) fn of_container(id: &str) -> String {
    format!("mt{:012x}", tools::hash(id) & 0xffff_ffff_ffff)
}

impl Runtime {
    /// All networks, by name.
    pub fn networks(&self) -> Result<BTreeMap<String, Network>> {
        let mut found = BTreeMap::new();
        for entry in fs::read_dir(self.network_directory()).into_iter().flatten().flatten() {
            if let Some(name) = entry.file_name().to_str().and_then(|name| name.strip_suffix(".json")) {
                found.insert(name.to_owned(), self.network(name)?);
            }
        }
        Ok(found)
    }

    /// A network.
    pub fn network(&self, name: &str) -> Result<Network> {
        let missing = "there is none of this name; `millstream network list` shows those there are";
        if !is_interface(name) {
            return Err(refused(name, missing));
        }
        let path = self.network_path(name);
        match fs::read(&path) {
            Ok(text) => {
                serde_json::from_slice(&text).map_err(|e| Error::Record { path, reason: e.to_string() })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(refused(name, missing)),
            Err(error) => Err(Error::io(&path)(error)),
        }
    }

    /// Makes a network; addresses not given are chosen. Returns what was changed on the host.
    ///
    /// # Errors
    /// [`Error::Network`]; then nothing has changed.
    pub fn create_network(&self, name: &str, network: &Network) -> Result<Vec<String>> {
        if !is_interface(name) {
            return Err(refused(name, "a name has 1 to 15 letters, digits, - _ ., as interfaces have"));
        }
        let _lock = self.lock_networks()?;
        if self.network_path(name).exists() {
            return Err(refused(name, "it is there already"));
        }
        if network.container.is_some() {
            self.collect_networks()?;
        }
        self.put_network(name, network)
    }

    /// Changes a network. Containers that run keep the address they have.
    pub fn save_network(&self, name: &str, network: &Network) -> Result<Vec<String>> {
        let before = self.network(name)?;
        let _lock = self.lock_networks()?;
        let running = !userns::inside() && tools::exists(name);
        if running {
            self.bridge(name, &before).halt().map_err(|reason| refused(name, &reason))?;
        }
        self.put_network(name, network)
    }

    fn put_network(&self, name: &str, network: &Network) -> Result<Vec<String>> {
        let mut network = network.clone();
        let seed = tools::hash(&new_id()?);
        settings::fill(&mut network.config, seed).map_err(|reason| refused(name, &reason))?;
        settings::check(&network.config).map_err(|reason| refused(name, &reason))?;
        let notes = if userns::inside() {
            Vec::new()
        } else {
            self.bridge(name, &network).up().map_err(|reason| refused(name, &reason))?
        };
        let path = self.network_path(name);
        let text = serde_json::to_vec_pretty(&network).map_err(|e| Error::io(&path)(e.into()))?;
        atomic::write_with_mode(&path, &text, 0o600)?;
        Ok(notes)
    }

    /// Makes the network of the default profile if there is none and this host can.
    pub fn create_default_network(&self) -> Result<Vec<String>> {
        if self.network_path(DEFAULT).exists() {
            return Ok(Vec::new());
        }
        if let Err(reason) = programs() {
            return Ok(vec![format!("there is no network: {reason}")]);
        }
        match self.create_network(DEFAULT, &Network::default()) {
            Ok(notes) => Ok(notes),
            Err(Error::Network { reason, .. }) => Ok(vec![format!("there is no network: {reason}")]),
            Err(error) => Err(error),
        }
    }

    /// Whether containers are on a network unless they are told otherwise.
    pub(crate) fn has_default_network(&self) -> bool {
        self.network_path(DEFAULT).exists()
    }

    /// Deletes a network that no container and no profile names, and all of it on the host.
    pub fn delete_network(&self, name: &str) -> Result<()> {
        let network = self.network(name)?;
        let _lock = self.lock_networks()?;
        let users = self.network_users(name)?;
        if !users.is_empty() {
            return Err(refused(name, &format!("it is used by {}", users.join(", "))));
        }
        self.remove_network(name, &network)
    }

    fn remove_network(&self, name: &str, network: &Network) -> Result<()> {
        if !userns::inside() {
            self.bridge(name, network).down().map_err(|reason| refused(name, &reason))?;
        }
        let path = self.network_path(name);
        fs::remove_file(&path).map_err(Error::io(&path))
    }

    /// Containers on a network, and profiles that name it.
    pub fn network_users(&self, name: &str) -> Result<Vec<String>> {
        let uses = |devices: &crate::container::Devices| {
            of_type(devices, "nic").any(|(_, keys)| keys.get("network").is_some_and(|other| other == name))
        };
        let mut users = Vec::new();
        for container in self.names()? {
            if uses(&self.expanded_devices(&container)?) {
                users.push(container.to_string());
            }
        }
        for (profile, settings) in self.profiles()? {
            if profile.as_str() != "default" && uses(&settings.devices) {
                users.push(format!("profile {profile}"));
            }
        }
        Ok(users)
    }

    pub(super) fn network_up(
        &self,
        name: &str,
        network: &Network,
    ) -> std::result::Result<Vec<String>, String> {
        let _lock = self.lock_networks().map_err(|e| e.to_string())?;
        self.bridge(name, network).up()
    }

    /// Lets networks forget a container.
    pub(crate) fn leave_networks(&self, id: &str) {
        for (name, network) in self.networks().unwrap_or_default() {
            if network.container.as_deref() == Some(id) {
                // What cannot be taken away now is when the next one is made.
                let _ = self.lock_networks().and_then(|_lock| self.remove_network(&name, &network));
                continue;
            }
            if userns::inside() {
                continue;
            }
            let bridge = self.bridge(&name, &network);
            let files = fs::read_dir(bridge.hosts()).into_iter().flatten().flatten();
            let own = files.filter(|file| file.file_name().to_string_lossy().starts_with(&format!("{id}.")));
            if own.filter(|file| fs::remove_file(file.path()).is_ok()).count() > 0 {
                bridge.reload();
            }
        }
    }

    pub(super) fn bridge<'a>(&'a self, name: &'a str, network: &'a Network) -> Bridge<'a> {
        Bridge { name, owner: self.dir(), settings: &network.config }
    }

    fn lock_networks(&self) -> Result<Option<DirLock>> {
        let directory = self.network_directory();
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&directory);
        made.map_err(Error::io(&directory))?;
        DirLock::exclusive_patient(&directory)
    }

    /// Takes networks away that were made for containers which are gone.
    fn collect_networks(&self) -> Result<()> {
        let ids = self.identities()?;
        for (name, network) in self.networks()? {
            if network.container.as_ref().is_some_and(|id| !ids.contains(id)) {
                self.remove_network(&name, &network)?;
            }
        }
        Ok(())
    }

    fn network_directory(&self) -> PathBuf {
        self.dir().join(DIRECTORY)
    }

    fn network_path(&self, name: &str) -> PathBuf {
        self.network_directory().join(format!("{name}.json"))
    }
}

/// Whether this host has the programs that a network of ours takes; else what to install.
pub fn programs() -> std::result::Result<(), String> {
    let programs: &[&str] = if userns::inside() { &["pasta"] } else { &["ip", "nft", "dnsmasq"] };
    programs.iter().try_for_each(|program| tools::find(program).map(drop))
}

fn refused(name: &str, reason: &str) -> Error {
    Error::Network {
        name: name.chars().take(40).flat_map(char::escape_debug).collect(),
        reason: reason.into(),
    }
}
