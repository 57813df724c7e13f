//! Where a root file system comes from: one module for each kind of `source.downloader`.

mod archive;
pub(crate) mod debootstrap;
mod http;
mod layouts;
mod oci;
mod remote;
mod rootfs;
mod sums;
mod trust;
mod wildcard;

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

/// Fills the root directory by any other downloader.
///
/// # Errors
/// When the source is refused, cannot be fetched or is not available for this recipe.
pub(crate) fn unpack(context: &Context<'_>, scripts: &mut Scripts<'_>) -> Result<Origin> {
    let downloader = context.resolved.definition.source.downloader.as_str();
    if let Some(layout) = http::layout(downloader) {
        return http::unpack(context, layout, scripts);
    }
    match downloader {
        "docker-http" => oci::unpack(context, scripts),
        "rootfs-http" => rootfs::unpack(context, scripts),
        other => Err(refusal(other)),
    }
}

/// Why a downloader of distrobuilder is none here, and what does the same.
fn refusal(downloader: &str) -> Error {
    let reason = match downloader {
        "almalinux-http" | "oraclelinux-http" => {
            "its mirrors have installation media only, which are not taken apart here; \
             use docker-http with the distribution's own image, or rootfs-http"
        }
        "springdalelinux-http" => {
            "the distribution has ended and its mirrors have installation media only; use rockylinux-http"
        }
        "vyos-http" => {
            "the distribution publishes installation media only, which are not taken apart here; \
             use rootfs-http with an archive of its root file system"
        }
        "plamolinux-http" | "slackware-http" => {
            "its mirrors have single packages, which are not put together here; \
             use rootfs-http with an archive of a root file system"
        }
        "busybox" => {
            "it means compiling C sources on this host, which is not done here; \
             use rootfs-http with an archive that holds busybox, or docker-http with the image busybox"
        }
        "rpmbootstrap" => {
            "it means running this host's own yum or dnf on a new root file system, which is not done here; \
             use fedora-http, rockylinux-http or docker-http and install the rest with packages.sets"
        }
        _ => "it is not available here; use rootfs-http or docker-http",
    };
    Error::Refused(format!("source.downloader: {downloader}: {reason}"))
}
