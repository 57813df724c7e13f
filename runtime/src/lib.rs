//! Namespaces, mounts, id maps and limits.
//!
//! [`container`] runs system containers out of images. [`sandbox`] runs the programs of a build
//! inside the root file system being built. A program that uses either calls [`init`] first thing
//! in `main`.

pub mod cancel;
pub mod check;
pub mod container;
mod error;
mod mounting;
pub mod network;
pub mod sandbox;
mod schedule;

pub use cancel::CancelToken;
pub use container::{ContainerName, ImageFiles, Runtime};
pub use error::{Error, Result};
pub use schedule::Cron;

/// Takes over when this process was started as the inside of a sandbox or a part of a container,
/// and then does not return. Otherwise returns at once. Must run before any thread is started.
pub fn init() {
    let mut args = std::env::args_os().skip(1);
    let Some(argument) = args.next() else { return };
    if argument == sandbox::ARGUMENT {
        sandbox::child::main();
    }
    if argument == network::ARGUMENT {
        network::main();
    }
    container::take_over(&argument, &mut args);
}
