//! Namespaces, mounts, id maps and limits.
//!
//! [`sandbox`] runs the programs of a build inside the root file system being built. A program
//! that uses it calls [`init`] first thing in `main`.

pub mod cancel;
mod error;
pub mod sandbox;

pub use cancel::CancelToken;
pub use error::{Error, Result};

/// Takes over when this process was started as the inside of a sandbox, and then does not return.
/// Otherwise returns at once. Must run before any thread is started.
pub fn init() {
    let mut args = std::env::args_os();
    if args.nth(1).is_some_and(|arg| arg == sandbox::ARGUMENT) {
        sandbox::child::main();
    }
}
