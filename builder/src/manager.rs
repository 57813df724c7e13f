//! Package managers as the commands they are called by.

use crate::recipe::{Manager, PackageSet, Packages};
use crate::{Error, Result};

/// Every call of apt: nothing is asked, and configuration files of packages win, since nobody has
/// changed them.
const APT: &str = "apt-get -y -q -o APT::Sandbox::User=root -o APT::Keep-Downloaded-Packages=true \
                   -o Acquire::Languages=none -o Dpkg::Use-Pty=0 -o Dpkg::Options::=--force-confnew";

/// Shell commands of one manager; empty where it has none.
pub(crate) struct Commands {
    pub(crate) refresh: String,
    pub(crate) update: String,
    pub(crate) clean: String,
    install: String,
    remove: String,
}

impl Commands {
    /// The commands of the recipe's manager.
    pub(crate) fn of(packages: &Packages) -> Result<Self> {
        if let Some(manager) = &packages.custom_manager {
            return Ok(Self::custom(manager));
        }
        if !matches!(packages.manager.as_str(), "apt" | "") {
            return Err(Error::Refused(format!(
                "packages.manager: {} is not available yet; use apt, or describe it in packages.custom_manager",
                packages.manager
            )));
        }
        Ok(Self {
            refresh: format!("{APT} update"),
            update: format!("{APT} dist-upgrade"),
            // The archives belong to the builder, which keeps them for the next build.
            clean: String::new(),
            install: format!("{APT} install"),
            remove: format!("{APT} remove --auto-remove"),
        })
    }

    fn custom(manager: &Manager) -> Self {
        let command = |c: &crate::recipe::ManagerCommand| {
            if c.cmd.is_empty() {
                return String::new();
            }
            let words = [std::slice::from_ref(&c.cmd), &manager.flags, &c.flags].concat();
            words.iter().map(|word| quote(word)).collect::<Vec<_>>().join(" ")
        };
        Self {
            refresh: command(&manager.refresh),
            update: command(&manager.update),
            clean: command(&manager.clean),
            install: command(&manager.install),
            remove: command(&manager.remove),
        }
    }

    /// A line each for the sets, in their order; neighbours that ask the same are one call.
    pub(crate) fn sets(&self, sets: &[&PackageSet]) -> Vec<String> {
        let mut lines = Vec::new();
        for alike in sets.chunk_by(|a, b| a.action == b.action && a.flags == b.flags) {
            let names: Vec<_> = alike.iter().flat_map(|set| &set.packages).map(|name| quote(name)).collect();
            let command = if alike[0].action == "remove" { &self.remove } else { &self.install };
            if names.is_empty() || command.is_empty() {
                continue;
            }
            let flags: Vec<_> = alike[0].flags.iter().map(|flag| quote(flag)).collect();
            lines.push([vec![command.clone()], flags, names].concat().join(" "));
        }
        lines
    }
}

/// A word of a shell command, in quotes where it needs them.
fn quote(word: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-+._:=/,@%~".contains(&b);
    if !word.is_empty() && word.bytes().all(plain) && !word.starts_with('~') {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::ManagerCommand;

    fn set(packages: &[&str], action: &str, flags: &[&str]) -> PackageSet {
        let owned = |list: &[&str]| list.iter().map(|word| (*word).to_owned()).collect();
        PackageSet {
            packages: owned(packages),
            action: action.into(),
            flags: owned(flags),
            ..PackageSet::default()
        }
    }

    #[test]
    fn neighbouring_sets_are_one_call_and_words_are_quoted() {
        let pm = |flags: &[&str]| ManagerCommand {
            cmd: "pm".into(),
            flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
        };
        let manager = Manager { install: pm(&["add"]), flags: vec!["-q".into()], ..Manager::default() };
        let commands = Commands::custom(&manager);
        let sets = [
            set(&["a", "b"], "install", &[]),
            set(&["c"], "install", &[]),
            set(&["d; reboot", "it's"], "install", &["--x"]),
            set(&["e"], "remove", &[]),
        ];
        let lines = commands.sets(&sets.iter().collect::<Vec<_>>());
        assert_eq!(lines, ["pm -q add a b c", "pm -q add --x 'd; reboot' 'it'\\''s'"]);
    }
}
