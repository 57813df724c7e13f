//! A native bootstrap for apt distributions: verified indexes, dependency resolution, parallel
//! download and unpacking, then dpkg inside the new root configures.

pub mod bootstrap;
pub(crate) mod database;
pub(crate) mod deb;
pub(crate) mod deb822;
mod dpkg;
pub mod index;
pub(crate) mod mirror;
mod resolve;
mod seed;
mod settle;
pub mod sources;
pub mod version;
