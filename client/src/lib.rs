//! Verified downloads: over HTTP or HTTPS, bounded, resumable, and checked by hash while they
//! stream. Nothing here keeps global state.

mod error;
pub mod http;
pub mod progress;

pub use error::{Error, Result};
pub use http::{Download, HttpClient, HttpOptions};
pub use progress::{NoProgress, Progress};
