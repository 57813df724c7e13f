//! Labels by which the host's security module, AppArmor or SELinux, tells containers from the rest of
//! the machine. They are one more lock: what they forbid is forbidden without them as well.
//!
//! With AppArmor a container gets the profile that is made here, which is loaded when it is first
//! needed, or the one that `security.apparmor.profile` names. With SELinux it gets what
//! `security.selinux.context` says, as only the host's policy knows a context that fits.

mod apparmor;

use std::fs;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, open, openat};
use serde::{Deserialize, Serialize};

use super::config::Settings;
use super::config::keys::is_true;

const PROFILE: &str = "security.apparmor.profile";
const CONTEXT: &str = "security.selinux.context";
/// Value of [`PROFILE`] for a container without one.
const UNCONFINED: &str = "unconfined";

/// What a program of a container is labelled with when it is executed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Label {
    /// A loaded profile's name.
    AppArmor(String),
    /// A security context.
    SeLinux(String),
}

/// The security module of a host.
pub struct Host {
    root: PathBuf,
}

impl Host {
    /// The one this program runs on.
    pub fn real() -> Self {
        Self { root: "/".into() }
    }

    /// The label of a container that is to be started, and what the user should know about it.
    pub fn choose(&self, settings: &Settings) -> (Option<Label>, Option<String>) {
        let profile = settings.get(PROFILE);
        if self.has_apparmor() {
            return match profile {
                Some(none) if none == UNCONFINED => (None, None),
                Some(name) => (Some(Label::AppArmor(name.clone())), None),
                None => self.own_profile(is_true(settings, "security.nesting")),
            };
        }
        let context = settings.get(CONTEXT);
        if self.root.join("sys/fs/selinux/enforce").exists() {
            return (context.cloned().map(Label::SeLinux), None);
        }
        let asked = profile.map(|_| PROFILE).or(context.map(|_| CONTEXT));
        (
            None,
            asked.map(|key| format!("{key} has no effect, as this host does not run that security module")),
        )
    }

    /// The label a process has.
    pub fn of(&self, pid: i32) -> Option<Label> {
        let attributes = self.root.join("proc").join(pid.to_string()).join("attr");
        let read = |file: &str| fs::read_to_string(attributes.join(file)).ok();
        if self.has_apparmor() {
            let text = read("apparmor/current").or_else(|| read("current"))?;
            // As in `millstream (enforce)`.
            let name = text.trim().rsplit_once(" (").map_or(text.trim(), |(name, _)| name);
            return (name != UNCONFINED).then(|| Label::AppArmor(name.to_owned()));
        }
        if !self.root.join("sys/fs/selinux/enforce").exists() {
            return None;
        }
        Some(Label::SeLinux(read("current")?.trim_end_matches(['\0', '\n']).to_owned()))
    }

    fn has_apparmor(&self) -> bool {
        let enabled = fs::read_to_string(self.root.join("sys/module/apparmor/parameters/enabled"));
        enabled.is_ok_and(|text| text.trim() == "Y")
    }

    /// The profile made here, loaded. Whoever may not load it, or has no parser, goes without.
    fn own_profile(&self, nesting: bool) -> (Option<Label>, Option<String>) {
        let name = apparmor::name(nesting);
        let list = self.root.join("sys/kernel/security/apparmor/profiles");
        let Ok(loaded) = fs::read_to_string(list) else { return (None, None) };
        if loaded.lines().any(|line| line.rsplit_once(" (").is_some_and(|(loaded, _)| loaded == name)) {
            return (Some(Label::AppArmor(name)), None);
        }
        match apparmor::load(&self.root, nesting) {
            Some(Ok(())) => (Some(Label::AppArmor(name)), None),
            Some(Err(reason)) => (None, Some(format!("it has no AppArmor profile: {reason}"))),
            None => (None, None),
        }
    }
}

/// The `/proc` that is mounted now, for [`Label::write`]. A command opens it before it leaves the
/// host's mounts behind, as what a container shows there may be anything. While it is open, no path of
/// the container may be followed through magic links: `/proc/self/fd` would lead to it, and out.
pub fn open_proc() -> io::Result<OwnedFd> {
    Ok(open("/proc", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

impl Label {
    /// Asks for it with the next program this process executes. The kernel allows that only while
    /// the process is who it was when it opened the file.
    pub fn write(&self, proc: BorrowedFd<'_>) -> Result<(), String> {
        let (files, text): (&[&str], String) = match self {
            Self::AppArmor(name) => (&["self/attr/apparmor/exec", "self/attr/exec"], format!("exec {name}")),
            Self::SeLinux(context) => (&["self/attr/exec"], context.clone()),
        };
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let opened = files.iter().find_map(|file| openat(proc, *file, flags, Mode::empty()).ok());
        let file = opened.ok_or_else(|| format!("security label {text:?}: the kernel takes none"))?;
        // All at once, or not at all.
        match rustix::io::write(&file, text.as_bytes()) {
            Ok(count) if count == text.len() => Ok(()),
            Ok(_) => Err(format!("security label {text:?}: cut off")),
            Err(error) => Err(format!("security label {text:?}: {error}")),
        }
    }
}

/// Whether a value may be written as a label: no blanks and nothing that ends it.
pub fn is_label(value: &str) -> bool {
    !value.is_empty() && value.len() <= 255 && value.bytes().all(|byte| byte.is_ascii_graphic())
}

fn executable(root: &Path, name: &str) -> Option<PathBuf> {
    let directories = ["usr/sbin", "sbin", "usr/bin"].map(|dir| root.join(dir).join(name));
    directories.into_iter().find(|path| path.is_file())
}

#[cfg(test)]
mod tests;
