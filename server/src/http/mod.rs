//! The HTTP and HTTPS service: the files of one tree, read-only but for [`push`].
//!
//! Files: [`path`] turns a request's path into a file below the root, [`conditional`] and [`range`] decide
//! what of it is wanted, [`answer`] puts the response together, [`body`] reads it and [`zipped`] keeps it
//! compressed. Images: [`offer`] knows what the tree offers, [`api`] speaks LXD's and Incus' API, [`direct`]
//! says where an import finds one. [`gate`] stands before all of it: [`access`] knows who may what,
//! [`rates`] how much. [`metrics`] counts; [`daily`] and [`status`] tell what only a running
//! server knows; [`Server`] looks after connections, which [`listen`] brings and [`certificate`] encrypts;
//! [`control`] speaks to it meanwhile.

mod access;
mod answer;
mod api;
mod body;
mod certificate;
mod clients;
mod conditional;
mod control;
mod daily;
mod direct;
#[doc(hidden)]
pub mod fuzzing;
mod gate;
mod listen;
mod log;
mod media;
mod metrics;
mod offer;
mod path;
mod pull;
mod push;
mod range;
mod rates;
mod server;
mod shared;
mod site;
mod stall;
mod status;
mod zipped;

pub(crate) use answer::POLICY;
pub use certificate::Tls;
pub(crate) use clients::AnyClient;
pub use control::{Control, Settings};
pub use gate::Gate;
pub use log::{Access, AccessLog};
pub use server::{Limits, Options, Server, raise_file_limit};
