//! Containers that do not outlive the process that made them, as boot tests are.

use super::config::Configuration;
use super::image::ImageFiles;
use super::name::ContainerName;
use super::process::Process;
use super::record::Config;
use super::runtime::{CreateOptions, ImageUse, Runtime};
use crate::network::{self, Network};
use crate::{Error, Result};

impl Runtime {
    /// As [`launch`](Self::launch), but the container belongs to the calling process: it is killed and
    /// deleted when that ends, even by a signal. It has none of the host's profiles.
    ///
    /// With `network` it has an interface `eth0` on a network of its own, which goes with it: the
    /// container's own system must configure it, by DHCP. What the host forwards stays as it is.
    ///
    /// # Errors
    /// Also when there is to be a network and this host cannot have one.
    pub fn launch_owned(
        &self,
        name: &ContainerName,
        files: &ImageFiles,
        image: ImageUse,
        network: bool,
    ) -> Result<()> {
        let owner = Process::of(std::process::id() as i32).map_err(Error::io("/proc/self"))?;
        let configuration = Configuration { profiles: Vec::new(), ..Configuration::default() };
        let options = CreateOptions { image, configuration, ..CreateOptions::default() };
        self.create_with(name, files, &options)?;
        let networked = if network { self.connect_owned(name) } else { Ok(()) };
        let started = networked.and_then(|()| self.start_for(name, Some(owner)));
        started.and_then(|()| if network { self.connected(name) } else { Ok(()) }).inspect_err(|_| {
            let _ = self.discard_owned(name);
        })
    }

    /// Deletes such a container, and the image it was the only one to use.
    pub fn discard_owned(&self, name: &ContainerName) -> Result<()> {
        let image = self.info(name)?.image;
        self.delete(name, true)?;
        match self.remove_image(image) {
            Err(Error::ImageInUse { .. }) | Ok(()) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn connect_owned(&self, name: &ContainerName) -> Result<()> {
        let id = Config::read(&self.existing(name)?)?.id;
        let keys = [("ipv4.routing", "false"), ("ipv6.address", "none")];
        let config = keys.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let network = network::of_container(&id);
        let description = format!("Of container {name}");
        self.create_network(&network, &Network { description, config, container: Some(id) })?;
        let mut configuration = self.configuration(name)?;
        let keys = [("type", "nic"), ("network", &network)];
        let keys = keys.map(|(key, value)| (key.to_owned(), value.to_owned()));
        configuration.devices.insert("eth0".into(), keys.into());
        self.configure(name, &configuration).map(drop)
    }

    /// Fails where the container started without its interface.
    fn connected(&self, name: &ContainerName) -> Result<()> {
        let notes = self.info(name)?.notes;
        match notes.into_iter().find(|note| note.contains("no interface")) {
            Some(reason) => Err(Error::Network { name: name.to_string(), reason }),
            None => Ok(()),
        }
    }
}
