//! Where a root file system comes from: one module for each kind of `source.downloader`.

mod archive;
mod busybox;
pub(crate) mod debootstrap;
mod http;
mod iso;
mod layouts;
pub(crate) mod oci;
mod pkgtools;
mod remote;
mod rootfs;
mod rpm;
mod sums;
mod trust;
mod wildcard;
mod workshop;

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
    /// The recipe's directory, from which paths are taken.
    pub(crate) recipe_dir: &'a Path,
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

/// Whether making the root file system runs programs that are in it.
pub(crate) fn runs_programs(downloader: &str) -> bool {
    downloader == "debootstrap" || rpm::knows(downloader) || pkgtools::layout(downloader).is_some()
}

/// Fills the root directory by any other downloader.
///
/// # Errors
/// When the source is refused, cannot be fetched or is not available for this recipe.
pub(crate) fn unpack(context: &Context<'_>, scripts: &mut Scripts<'_>) -> Result<Origin> {
    let downloader = context.resolved.definition.source.downloader.as_str();
    if let Some(layout) = http::layout(downloader) {
        return http::unpack(context, layout, scripts);
    }
    if let Some(layout) = pkgtools::layout(downloader) {
        return pkgtools::unpack(context, layout, scripts);
    }
    match downloader {
        "busybox" => busybox::unpack(context, scripts),
        "docker-http" => oci::unpack(context, scripts),
        "rootfs-http" => rootfs::unpack(context, scripts),
        other if rpm::knows(other) => rpm::unpack(context, scripts),
        other => Err(Error::Refused(format!(
            "source.downloader: {other} is not available here; use rootfs-http or docker-http"
        ))),
    }
}
