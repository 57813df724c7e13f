//! Package managers as the commands they are called by.

mod repository;
mod table;

use crate::recipe::{Manager, ManagerCommand, PackageSet, Packages, Repository};
use crate::rootfs::Rootfs;
use crate::{Error, Result};
use table::Known;

/// Shell commands of the recipe's manager; empty where it has none.
pub(crate) struct Commands {
    known: Option<&'static Known>,
    prelude: &'static str,
    pub(crate) refresh: String,
    pub(crate) update: String,
    pub(crate) clean: String,
    install: String,
    remove: String,
}

/// Whether the recipe's manager is apt, which is also the one of recipes that name none.
pub(crate) fn is_apt(packages: &Packages) -> bool {
    packages.custom_manager.is_none() && matches!(packages.manager.as_str(), "apt" | "")
}

impl Commands {
    /// The commands of the recipe's manager.
    pub(crate) fn of(packages: &Packages) -> Result<Self> {
        if let Some(manager) = &packages.custom_manager {
            return Ok(Self::custom(manager));
        }
        let name = if packages.manager.is_empty() { "apt" } else { &packages.manager };
        let known = table::KNOWN.iter().find(|known| known.name == name);
        let known = known.ok_or_else(|| Error::Refused(format!("packages.manager: {name} is not known")))?;
        Ok(Self {
            known: Some(known),
            prelude: known.prelude,
            refresh: known.refresh.to_owned(),
            update: known.update.to_owned(),
            clean: known.clean.to_owned(),
            install: known.install.to_owned(),
            remove: known.remove.to_owned(),
        })
    }

    fn custom(manager: &Manager) -> Self {
        let command = |c: &ManagerCommand| {
            if c.cmd.is_empty() {
                return String::new();
            }
            let words = [std::slice::from_ref(&c.cmd), &manager.flags, &c.flags].concat();
            words.iter().map(|word| quote(word)).collect::<Vec<_>>().join(" ")
        };
        Self {
            known: None,
            prelude: "",
            refresh: command(&manager.refresh),
            update: command(&manager.update),
            clean: command(&manager.clean),
            install: command(&manager.install),
            remove: command(&manager.remove),
        }
    }

    /// Makes the repositories known to the manager: writes files at once and returns the lines
    /// that must run inside. Several of one name are one file, in their order.
    pub(crate) fn add_repositories(
        &self,
        repositories: &[Repository],
        rootfs: &Rootfs,
    ) -> Result<Vec<String>> {
        match self.known {
            Some(known) => repository::add(known.sources, repositories, rootfs),
            None if repositories.is_empty() => Ok(Vec::new()),
            None => Err(Error::Refused(
                "packages.repositories: a custom_manager has none; write its files in a post-unpack action"
                    .into(),
            )),
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

    /// A script of these lines; `None` when there is nothing to run.
    pub(crate) fn script(&self, lines: &[String]) -> Option<String> {
        let lines: Vec<_> = lines.iter().map(String::as_str).filter(|line| !line.is_empty()).collect();
        if lines.is_empty() {
            return None;
        }
        let prelude = if self.prelude.is_empty() { String::new() } else { format!("{}\n", self.prelude) };
        Some(format!("#!/bin/sh\nset -e\n{prelude}{}\n", lines.join("\n")))
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
    use proptest::prelude::*;

    use super::*;

    /// The arguments a shell makes of a line that calls a manager.
    pub(super) fn words(line: &str) -> Vec<String> {
        let show = "() { printf '%s\\0' \"$@\"; }";
        let managers = ["pm", "zypper", "rpm", "equo", "enman"].map(|name| format!("{name}{show}\n"));
        let script = managers.concat() + line;
        let output = std::process::Command::new("/bin/sh").args(["-c", &script]).output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{line}: {output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        text.split_terminator('\0').map(str::to_owned).collect()
    }

    proptest! {
        // Each case starts a shell.
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn any_name_and_flag_comes_through_a_shell_unchanged(
            names in prop::collection::vec("(?s)[^\\x00]{0,12}|[ '\"$`\\\\!*?~#=;&|<>(){}\\[\\]\n-]{1,6}", 1..12),
            flags in prop::collection::vec("(?s)-[^\\x00]{0,8}", 0..4),
        ) {
            let manager = ManagerCommand { cmd: "pm".into(), flags: flags.clone() };
            let manager = Manager { install: manager, ..Manager::default() };
            let set = PackageSet {
                packages: names.clone(),
                action: "install".into(),
                flags: names.clone(),
                ..PackageSet::default()
            };
            let lines = Commands::custom(&manager).sets(&[&set]);
            prop_assert_eq!(words(&lines[0]), [flags, names.clone(), names].concat());
        }
    }

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
