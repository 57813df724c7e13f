//! Where a root file system comes from: one module for each kind of `source.downloader`.

pub(crate) mod debootstrap;

use std::path::Path;

use millstream_image::manifest;

use crate::apt::bootstrap::{Fetcher, Installed};
use crate::apt::sources::HostSources;
use crate::recipe::Resolved;
use crate::script::Scripts;
use crate::{Error, Result};

/// What a downloader works with.
pub(crate) struct Context<'a> {
    /// The recipe.
    pub(crate) resolved: &'a Resolved,
    /// The host's mirrors.
    pub(crate) host: &'a HostSources,
    /// Fetches, verifies and keeps files.
    pub(crate) fetcher: &'a Fetcher<'a>,
    /// The empty directory that becomes the root file system.
    pub(crate) root: &'a Path,
}

/// Where a root file system came from.
pub(crate) struct Origin {
    /// Every signed document or file it was made from, as the manifest records them.
    pub(crate) sources: Vec<manifest::Source>,
    /// Date of the newest of them, seconds since 1970: the same for the same files.
    pub(crate) date: i64,
    /// What the bootstrap of an apt distribution knows; `None` for every other.
    pub(crate) installed: Option<Installed>,
}

/// Whether the recipe's root file system is bootstrapped from an apt archive: then the build asks
/// [`debootstrap`], which can tell beforehand what it is going to install.
pub(crate) fn is_apt(resolved: &Resolved) -> bool {
    resolved.definition.source.downloader == "debootstrap"
}

/// Fills the root directory by any other downloader.
///
/// # Errors
/// When the source is refused, cannot be fetched or is not available for this recipe.
pub(crate) fn unpack(context: &Context<'_>, _scripts: &mut Scripts<'_>) -> Result<Origin> {
    let other = &context.resolved.definition.source.downloader;
    Err(Error::Refused(format!("source.downloader: {other} is not available yet; use debootstrap")))
}
