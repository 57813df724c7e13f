//! The HTTP and HTTPS service: the files of one tree, read-only.
//!
//! Files: [`path`] turns a request's path into a file below the root, [`conditional`] and [`range`] decide
//! what of it is wanted, [`answer`] puts the response together. Images: [`offer`] knows what the tree
//! offers, [`api`] speaks LXD's and Incus' API. [`metrics`] counts; [`Server`] looks after connections.

mod answer;
mod api;
mod body;
mod conditional;
mod log;
mod media;
mod metrics;
mod offer;
mod path;
mod pull;
mod range;
mod server;
mod site;
mod stall;
mod status;

pub use log::{Access, AccessLog};
pub use server::{Limits, Options, Server, Tls, raise_file_limit};
