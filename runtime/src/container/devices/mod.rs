//! Directories, files and device nodes of the host in a container.
//!
//! What the host gives is opened on the host's side ([`open`]), as a mount attached nowhere whose
//! attributes and lower mounts the container cannot change. It is put into the container's mounts by
//! its own root ([`place`]), so that no path of the container leads anywhere else. A running container
//! gets and loses devices in the same way ([`live`]).

pub mod live;
pub mod open;
pub mod place;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::config::devices::disk::ROOT;
use super::config::devices::{self, Device, Devices, flag};

/// Something of the host a container is to have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// The device's name.
    pub device: String,
    /// Where the container has it.
    pub path: PathBuf,
    /// Whether the container does without if the host has none.
    pub optional: bool,
    pub what: What,
}

/// What it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum What {
    /// A directory or file.
    Disk(Disk),
    /// A device node.
    Node(Node),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    pub source: PathBuf,
    pub readonly: bool,
    /// Whether what is mounted below the source comes along.
    pub recursive: bool,
    /// Whether files of the host's user N are those of the container's.
    pub shift: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// A node of the host.
    pub source: PathBuf,
    pub block: bool,
    /// Major and minor number; else the source's.
    pub number: Option<(u32, u32)>,
    /// Rights, if not the source's.
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
}

impl Mount {
    /// What a device says, if it is a mount.
    pub fn of(name: &str, device: &Device) -> Option<Self> {
        let path = |key: &str| device.get(key).map(PathBuf::from);
        let is = |key: &str| flag(device, key).unwrap_or(false);
        let number = |key: &str| device.get(key).and_then(|text| text.parse().ok());
        let (at, what, optional) = match device.get("type")?.as_str() {
            "disk" => {
                let disk = Disk {
                    source: path("source")?,
                    readonly: is("readonly"),
                    recursive: is("recursive"),
                    shift: is("shift"),
                };
                (path("path")?, What::Disk(disk), is("optional"))
            }
            kind @ ("unix-char" | "unix-block") => {
                let at = path("path").or_else(|| path("source"))?;
                let node = Node {
                    source: path("source").unwrap_or_else(|| at.clone()),
                    block: kind == "unix-block",
                    number: number("major").zip(number("minor")),
                    mode: device.get("mode").and_then(|text| devices::unix::mode(text)),
                    uid: number("uid"),
                    gid: number("gid"),
                };
                (at, What::Node(node), flag(device, "required") == Some(false))
            }
            _ => return None,
        };
        Some(Self { device: name.to_owned(), path: at, optional, what })
    }

    /// All mounts among a container's devices, in an order in which none covers another.
    pub fn all(devices: &Devices) -> Vec<Self> {
        let mut all: Vec<_> = devices.iter().filter_map(|(name, device)| Self::of(name, device)).collect();
        all.sort_by(|a, b| a.path.cmp(&b.path));
        all
    }
}

/// The device that is a container's root file system, if there is one.
pub fn root(devices: &Devices) -> Option<(&String, &Device)> {
    devices::of_type(devices, "disk").find(|(_, device)| is_root(device))
}

fn is_root(device: &Device) -> bool {
    device.get("type").is_some_and(|kind| kind == "disk")
        && device.get("path").is_some_and(|path| path == ROOT)
}
