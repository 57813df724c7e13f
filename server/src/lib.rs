//! Stream trees and the HTTPS service that serves them.
//!
//! [`stream`] keeps a tree of signed images that any static web server can serve; [`keys`] holds
//! the keys that sign it; [`http`] serves it, with a certificate from [`tls`]; [`config`] is what an operator
//! writes down.

pub mod config;
mod error;
pub mod http;
pub mod keys;
pub mod stream;
pub mod tls;
pub mod token;

pub use error::{Error, Result};
