//! Finding, verifying, fetching and keeping images.
//!
//! [`Client`] does all of it; the modules are its parts, each usable alone. Nothing is believed
//! that is not signed by a pinned key, or explicitly allowed to be unsigned; nothing enters the
//! store before every hash has matched. No global state, no printing: errors are returned,
//! progress goes to a [`Progress`], or comes as a stream of [events](progress::events). Every future may
//! be dropped at any await: the store then holds an image whole or not at all, and what has come of it
//! is used by the next call. `examples/` has a program for each of listing, fetching, verifying and
//! unpacking.
//!
//! ```no_run
//! use std::path::Path;
//! use millstream_client::{Client, ClientConfig, Keep, NoProgress};
//!
//! # async fn example() -> millstream_client::Result<()> {
//! let client = Client::new(ClientConfig::new(
//!     Path::new("/etc/millstream"),
//!     Path::new("/var/lib/millstream"),
//!     Path::new("/var/cache/millstream"),
//! ));
//! for image in client.catalogue(&"images".parse()?).await?.newest() {
//!     println!("{} {}", image.product, image.serial);
//! }
//! let image = client.fetch(&"images:debian/bookworm".parse()?, Keep::default(), &NoProgress).await?;
//! println!("{}", image.rootfs.display());
//! # Ok(())
//! # }
//! ```

pub mod access;
pub mod api;
mod arriving;
mod cache;
pub mod catalogue;
mod check;
mod client;
mod detect;
mod documents;
mod enlist;
mod error;
mod fetch;
pub mod http;
pub mod import;
pub mod lxc;
pub mod oci;
pub mod problem;
pub mod progress;
pub mod query;
pub mod remotes;
pub mod settings;
pub mod store;
mod suggest;
mod tree;
mod trust;
mod upkeep;
mod upstream;

pub use access::{Access, Credential};
pub use arriving::{Arriving, Publisher, Sink, pair as arriving};
pub use catalogue::{Catalogue, CatalogueImage, RemoteFile};
pub use client::{Client, ClientConfig, Resolved};
pub use error::{Error, Result};
pub use fetch::Keep;
pub use http::{Download, HttpClient, HttpOptions};
pub use import::{ImportOptions, ImportSource};
pub use problem::{Kind, Mender, Problem, Report};
pub use progress::{Event, NoProgress, Progress};
pub use query::{Filter, ImageName, ImageRef, Place};
pub use remotes::{Remote, RemoteName, Remotes, Trust};
pub use settings::Settings;
pub use store::{SharedStore, Store, StoredImage};
pub use tree::TreePath;
pub use upkeep::Refreshed;
pub use upstream::{Lot, Offer, Upstream, manifest_files};
