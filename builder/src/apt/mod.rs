//! A native bootstrap for apt distributions: verified indexes, dependency resolution, parallel
//! download and unpacking, then dpkg inside the new root configures.

pub mod bootstrap;
mod deb;
mod deb822;
mod dpkg;
mod index;
mod resolve;
pub mod sources;
pub mod version;
