//! The stage `packages`: repositories, updates, sets.

use std::fs;
use std::path::Path;

use crate::Result;
use crate::apt::bootstrap::{Fetcher, Installed};
use crate::manager::{self, Commands};
use crate::recipe::{PackageSet, Packages};
use crate::rootfs::{Attributes, Rootfs};
use crate::script::Scripts;

/// What the stage works with.
pub(crate) struct Stage<'a> {
    pub(crate) packages: &'a Packages,
    pub(crate) rootfs: &'a Rootfs,
    pub(crate) scripts: &'a Scripts<'a>,
    pub(crate) fetcher: &'a Fetcher<'a>,
    /// The host's directory that apt inside sees as its archive of package files.
    pub(crate) archives: &'a Path,
}

impl Stage<'_> {
    /// Makes further repositories known; before any action runs, as these may change them.
    pub(crate) fn repositories(&self) -> Result<()> {
        let commands = Commands::of(self.packages)?;
        let lines = commands.add_repositories(&self.packages.repositories, self.rootfs)?;
        self.script(&commands, "repositories", &lines)
    }

    /// Runs it; `post_update` runs the actions of that name.
    pub(crate) fn run(
        &self,
        mut installed: Option<&mut Installed>,
        post_update: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let commands = Commands::of(self.packages)?;
        let sets: Vec<_> = self.packages.sets.iter().filter(|set| !set.early).collect();
        if sets.iter().all(|set| set.packages.is_empty()) && !self.packages.update {
            return Ok(());
        }
        self.refresh(&commands, &sets, installed.as_deref_mut())?;
        if self.packages.update {
            self.script(&commands, "update", std::slice::from_ref(&commands.update))?;
            post_update()?;
        }
        self.script(&commands, "packages", &commands.sets(&sets))?;
        if let Some(installed) = installed {
            installed.harvest(self.archives, self.fetcher.cache)?;
        }
        if self.packages.cleanup {
            self.script(&commands, "cleanup", std::slice::from_ref(&commands.clean))?;
        }
        Ok(())
    }

    /// With nothing but the bootstrap's own sources there is nothing new to fetch.
    fn refresh(
        &self,
        commands: &Commands,
        sets: &[&PackageSet],
        installed: Option<&mut Installed>,
    ) -> Result<()> {
        if let Some(installed) = installed.filter(|_| manager::is_apt(self.packages)) {
            let installs = sets.iter().filter(|set| set.action != "remove");
            let wanted: Vec<_> = installs.clone().flat_map(|set| set.packages.clone()).collect();
            let recommends =
                installs.clone().any(|set| !set.flags.iter().any(|flag| flag == "--no-install-recommends"));
            installed.seed_archives(self.fetcher, &wanted, recommends, self.archives)?;
            installed.seed_lists(self.rootfs)?;
            if self.packages.repositories.is_empty() {
                return Ok(());
            }
        }
        self.script(commands, "refresh", std::slice::from_ref(&commands.refresh))
    }

    fn script(&self, commands: &Commands, what: &str, lines: &[String]) -> Result<()> {
        commands.script(lines).map_or(Ok(()), |script| self.scripts.run(what, &script))
    }
}

/// Lends the root file system the host's name servers for as long as it is built.
pub(crate) struct NameServers {
    text: Vec<u8>,
    lent: bool,
}

const RESOLV_CONF: &str = "/etc/resolv.conf";

impl NameServers {
    /// Reads the host's; none are no error, as a mirror may have a number for its name.
    pub(crate) fn of_host() -> Self {
        Self { text: fs::read(RESOLV_CONF).unwrap_or_default(), lent: false }
    }

    /// The text of the file.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.text).into_owned()
    }

    /// Writes them where the root file system has none of its own.
    pub(crate) fn lend(&mut self, rootfs: &Rootfs) -> Result<()> {
        if !rootfs.exists(RESOLV_CONF)? {
            rootfs.write(RESOLV_CONF, &self.text, Attributes::default())?;
            self.lent = true;
        }
        Ok(())
    }

    /// Takes them back, unless the build has put something else there.
    pub(crate) fn take_back(&self, rootfs: &Rootfs) -> Result<()> {
        let ours = self.lent && !rootfs.is_link(RESOLV_CONF)?;
        if ours && rootfs.read(RESOLV_CONF)?.as_ref() == Some(&self.text) {
            rootfs.remove(RESOLV_CONF)?;
        }
        Ok(())
    }
}
