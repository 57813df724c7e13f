//! `raw.oci`: parts of a configuration of the [OCI runtime specification], in its own words. What is not
//! named here would take from the container what a system needs, or give it what it must not have, and is
//! refused by name.
//!
//! [OCI runtime specification]: https://github.com/opencontainers/runtime-spec/blob/main/config.md

use std::collections::BTreeMap;

use nix::mount::MsFlags;
use serde::Deserialize;

use super::devices::is_path;
use super::kernel::{Limit, check_sysctl};

/// What may be said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Oci {
    #[serde(rename = "ociVersion")]
    version: String,
    pub process: Process,
    pub linux: Linux,
    pub mounts: Vec<Mount>,
}

/// Of init and of commands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Process {
    rlimits: Vec<Rlimit>,
    /// From -1000 to 1000; who is higher is killed first when memory is short.
    pub oom_score_adj: Option<i32>,
    /// Whether set-user-ID programs and file capabilities count for nothing.
    pub no_new_privileges: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rlimit {
    #[serde(rename = "type")]
    kind: String,
    soft: u64,
    hard: u64,
}

/// Of the container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Linux {
    pub sysctl: BTreeMap<String, String>,
    /// Besides those that are covered anyway.
    pub masked_paths: Vec<String>,
    pub readonly_paths: Vec<String>,
}

/// A file system in memory.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mount {
    pub destination: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    #[allow(dead_code, reason = "any name will do")]
    source: String,
    #[serde(default)]
    options: Vec<String>,
}

impl Oci {
    /// Reads and judges it; the error names what is not taken.
    pub fn parse(text: &str) -> Result<Self, String> {
        // A list would do for serde as well.
        if text.trim_start().starts_with('[') {
            return Err("it is no object".into());
        }
        let new: Self = serde_json::from_str(text).map_err(|e| format!("{e}; other parts cannot be set"))?;
        new.limits()?;
        if new.process.oom_score_adj.is_some_and(|score| !(-1000..=1000).contains(&score)) {
            return Err("process.oomScoreAdj: it is from -1000 to 1000".into());
        }
        for (name, value) in &new.linux.sysctl {
            check_sysctl(name).map_err(|reason| format!("linux.sysctl: {name}: {reason}"))?;
            if value.contains('\0') {
                return Err(format!("linux.sysctl: {name}: its value holds a zero byte"));
            }
        }
        let mut paths = new.linux.masked_paths.iter().chain(&new.linux.readonly_paths);
        if let Some(path) = paths.find(|path| !is_path(path) || *path == "/") {
            return Err(format!("linux: {path:?} is not the whole path of something in the container"));
        }
        new.mounts.iter().try_for_each(|mount| mount.flags().map(drop))?;
        Ok(new)
    }

    /// Limits of each process.
    pub fn limits(&self) -> Result<Vec<Limit>, String> {
        let unlimited = |value: u64| Some(value).filter(|value| *value < u64::MAX);
        let limit = |found: &Rlimit| {
            let name = found.kind.strip_prefix("RLIMIT_").unwrap_or("").to_ascii_lowercase();
            Limit::new(&name, unlimited(found.soft), unlimited(found.hard))
                .map_err(|reason| format!("process.rlimits: {:?}: {reason}", found.kind))
        };
        self.process.rlimits.iter().map(limit).collect()
    }
}

impl Mount {
    /// What the kernel is to be told, as flags and as text.
    pub fn flags(&self) -> Result<(MsFlags, String), String> {
        let refused = |what: String| Err(format!("mounts: {}: {what}", self.destination));
        if self.kind != "tmpfs" {
            return refused(format!(
                "type {:?} is not taken, only tmpfs; a device disk shows what the host has",
                self.kind
            ));
        }
        let below = |dir: &str| self.destination == dir || self.destination.starts_with(&format!("{dir}/"));
        if !is_path(&self.destination)
            || self.destination == "/"
            || ["/proc", "/sys", "/dev"].into_iter().any(below)
        {
            return refused("it is not the whole path of a directory outside of /dev, /proc and /sys".into());
        }
        let (mut flags, mut text) = (MsFlags::MS_NODEV, Vec::new());
        for option in &self.options {
            match option.as_str() {
                "ro" => flags |= MsFlags::MS_RDONLY,
                "nosuid" => flags |= MsFlags::MS_NOSUID,
                "noexec" => flags |= MsFlags::MS_NOEXEC,
                "rw" | "nodev" => {}
                other => match other.split_once('=') {
                    Some(("size" | "nr_inodes" | "mode", value))
                        if !value.is_empty()
                            && value.chars().all(|c| c.is_ascii_alphanumeric() || c == '%') =>
                    {
                        text.push(other);
                    }
                    _ => {
                        return refused(format!(
                            "option {other:?} is not taken; there are ro, rw, nosuid, noexec, nodev, size=, nr_inodes= and mode="
                        ));
                    }
                },
            }
        }
        Ok((flags, text.join(",")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_part_of_the_specification_is_taken() {
        let all = r#"{
            "ociVersion": "1.2.0",
            "process": {
                "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 512, "hard": 1024}],
                "oomScoreAdj": 100,
                "noNewPrivileges": true
            },
            "linux": {
                "sysctl": {"net.ipv4.ip_forward": "1"},
                "maskedPaths": ["/proc/version"],
                "readonlyPaths": ["/proc/sys"]
            },
            "mounts": [{"destination": "/scratch", "type": "tmpfs", "source": "tmpfs", "options": ["size=64k", "ro"]}]
        }"#;
        let read = Oci::parse(all).unwrap();
        assert_eq!(read.limits().unwrap(), [Limit::new("nofile", Some(512), Some(1024)).unwrap()]);
        let (flags, text) = read.mounts[0].flags().unwrap();
        assert_eq!((flags, text.as_str()), (MsFlags::MS_NODEV | MsFlags::MS_RDONLY, "size=64k"));
        assert_eq!(Oci::parse("{}").unwrap(), Oci::default());
    }

    #[test]
    fn everything_else_is_refused_by_name() {
        for (text, names) in [
            ("", "EOF"),
            (r#"{"hooks": {}}"#, "hooks"),
            (r#"{"root": {"path": "/"}}"#, "root"),
            (r#"{"process": {"capabilities": {}}}"#, "capabilities"),
            (r#"{"process": {"rlimits": [{"type": "RLIMIT_X", "soft": 1, "hard": 1}]}}"#, "RLIMIT_X"),
            (r#"{"process": {"oomScoreAdj": 2000}}"#, "oomScoreAdj"),
            (r#"{"linux": {"namespaces": []}}"#, "namespaces"),
            (r#"{"linux": {"devices": []}}"#, "devices"),
            (r#"{"linux": {"seccomp": {}}}"#, "seccomp"),
            (r#"{"linux": {"sysctl": {"kernel.core_pattern": "|/x"}}}"#, "kernel.core_pattern"),
            (r#"{"linux": {"maskedPaths": ["/a/../b"]}}"#, "/a/../b"),
            (r#"{"mounts": [{"destination": "/x", "type": "bind", "source": "/"}]}"#, "bind"),
            (r#"{"mounts": [{"destination": "/proc", "type": "tmpfs"}]}"#, "/proc"),
            (
                r#"{"mounts": [{"destination": "/x", "type": "tmpfs", "options": ["suid", "size=1m,x"]}]}"#,
                "suid",
            ),
            (
                r#"{"mounts": [{"destination": "/x", "type": "tmpfs", "options": ["size=1m,uid=0"]}]}"#,
                "uid=0",
            ),
        ] {
            let said = Oci::parse(text).unwrap_err();
            assert!(said.contains(names), "{text}: {said}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_judged(text in "\\PC{0,60}") {
            let _ = Oci::parse(&text);
            let _ = Oci::parse(&format!("{{\"mounts\": [{{\"destination\": \"/x\", \"type\": \"tmpfs\", \"options\": [{text:?}]}}]}}"));
        }
    }
}
