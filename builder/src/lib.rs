//! From a recipe to image files.
//!
//! [`recipe`] reads distrobuilder's YAML, [`apt`] bootstraps Debian and its kin, [`build()`] runs
//! the whole way to `rootfs.tar.xz` and its companions.

pub mod apt;
mod build;
pub mod difference;
mod emulation;
mod error;
mod files;
pub mod format;
mod inventory;
mod leftovers;
mod manager;
mod minisign;
mod output;
pub mod pack;
mod packages;
pub mod recipe;
pub mod registry;
mod rootfs;
mod rpmdb;
pub mod script;
mod source;
pub mod staging;

pub use build::boot::{BootTest, come_up};
pub use build::{
    BuildOptions, Built, Difference, Event, Reason, Stage, Verified, build, explain, resolved, verify,
};
pub use error::{Error, Result};
