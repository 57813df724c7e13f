//! From a recipe to image files.
//!
//! [`recipe`] reads distrobuilder's YAML, [`apt`] bootstraps Debian and its kin, [`build()`] runs
//! the whole way to `rootfs.tar.xz` and its companions.

pub mod apt;
mod build;
mod current;
pub mod difference;
mod emulation;
mod error;
mod files;
pub mod format;
mod inventory;
mod leftovers;
mod manager;
mod output;
pub mod pack;
mod packages;
pub mod recipe;
mod rootfs;
pub mod script;
mod source;
mod staging;

pub use build::{BuildOptions, Built, build};
pub use current::is_current;
pub use error::{Error, Result};
