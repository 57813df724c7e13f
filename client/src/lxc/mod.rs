//! LXC's side of an image: `rootfs.tar.xz` beside `meta.tar.xz`, and a container made of the two as
//! LXC's own `download` template makes it.
//!
//! [`Client::lxc_fetch`](crate::Client::lxc_fetch) brings both here, verified;
//! [`create`](create()) fills the directory that `lxc-create` has prepared. Between the two lies a
//! change of user: an ordinary user's template runs as root of a namespace, whereas the store is
//! the user's own.
//!
//! Source of names and meanings: `templates/lxc-download.in` of LXC, and lxc.container.conf(5).

mod allowed;
mod compose;
mod create;
mod index;
mod meta;
pub mod relay;
mod rootfs;
mod source;

use std::path::PathBuf;

use millstream_image::Architecture;
use serde::{Deserialize, Serialize};

pub use create::{Container, create, unpack};
pub(crate) use index::{fetch_files, index};
pub use source::{CacheUse, Came, Unpacking};

/// Which of an image's configurations is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// For containers whose root is root of the machine.
    System,
    /// For containers in a user namespace.
    User,
}

impl Mode {
    /// The one for the namespace this process is in.
    pub fn here() -> Self {
        let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
        let all = map.split_whitespace().eq(["0", "0", "4294967295"]);
        if map.is_empty() || all { Self::System } else { Self::User }
    }

    /// As in the names of files.
    pub fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
        }
    }
}

/// What a user asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// `debian`.
    pub distribution: String,
    /// `bookworm`.
    pub release: String,
    /// `amd64`.
    pub architecture: Architecture,
    /// `default`.
    pub variant: String,
}

/// An image that LXC can use, as lists show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// `debian`.
    pub distribution: String,
    /// `bookworm`.
    pub release: String,
    /// `amd64`.
    pub architecture: Architecture,
    /// `default`.
    pub variant: String,
    /// Its build, or serial.
    pub build: String,
}

/// Both files of an image, verified, on this machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Files {
    /// `rootfs.tar.xz`.
    pub rootfs: PathBuf,
    /// `meta.tar.xz`.
    pub meta: PathBuf,
    /// Its build, or serial.
    pub build: String,
    /// How it came.
    pub came: Came,
}
