//! The HTTP and HTTPS service: the files of one tree, read-only.
//!
//! [`path`] turns a request's path into a file below the root, [`conditional`] and [`range`] decide
//! what of it is wanted, [`answer`] puts the response together, [`Server`] looks after connections.

mod answer;
mod body;
mod conditional;
mod log;
mod media;
mod path;
mod range;
mod server;
mod site;
mod stall;

pub use log::{Access, AccessLog};
pub use server::{Limits, Options, Server, Tls, raise_file_limit};
