//! Whether an image is still what its recipe would give.

use millstream_client::{HttpClient, HttpOptions};
use millstream_image::manifest::Manifest;

use crate::apt::sources::HostSources;
use crate::apt::{index, mirror};
use crate::output;
use crate::recipe::{Definition, Resolved};
use crate::{Error, Result};

/// Whether a build now would start from the recipe and the signed Release documents that
/// `manifest` records; then it would install the same packages, and need not be made.
///
/// A recipe that takes anything else in, files of the host or repositories of its own, is never
/// current.
///
/// # Errors
/// When the mirror cannot be asked or its documents are refused.
pub fn is_current(resolved: &Resolved, manifest: &Manifest, host: &HostSources) -> Result<bool> {
    // Only apt distributions say in one signed document whether anything changed.
    let apt = resolved.definition.source.downloader == "debootstrap";
    if !apt
        || takes_in_more(&resolved.definition)
        || output::recipe_text(&resolved.definition)? != manifest.recipe
    {
        return Ok(false);
    }
    let (keyring, _) = mirror::keyring(resolved, host)?;
    let sources = mirror::sources(resolved, host)?;
    let http = HttpClient::new(&HttpOptions::default())?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::io("tokio"))?;
    let architecture = resolved.architecture.debian();
    let releases = sources.iter().map(|source| index::release(&http, source, architecture, &keyring));
    let releases = runtime.block_on(futures_util::future::try_join_all(releases))?;
    Ok(releases.iter().map(output::source).eq(manifest.sources.iter().cloned()))
}

fn takes_in_more(definition: &Definition) -> bool {
    !definition.packages.repositories.is_empty()
        || definition.files.iter().any(|file| file.generator == "copy")
}
