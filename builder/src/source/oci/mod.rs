//! `docker-http`: images of registries and of OCI layouts, layer by layer. Archives of such images
//! that other downloaders meet are taken apart here too.

mod layout;
mod reference;

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use millstream_client::oci::{Image, Registry};
use millstream_image::archive::{ExtractOptions, Limits, extract_layer};
use millstream_image::oci::{ImageConfig, Platform};
use millstream_image::{Architecture, manifest};
use millstream_runtime::CancelToken;

use self::reference::Reference;
use super::{Context, Origin, archive};
use crate::script::Scripts;
use crate::{Error, Result};

pub(super) use layout::{is_image, unpack_directory};

/// Which image of several is wanted.
pub(super) struct Wanted<'a> {
    /// For this architecture.
    pub(super) architecture: Architecture,
    /// With this name.
    pub(super) tag: Option<&'a str>,
    /// Ends the work.
    pub(super) cancel: &'a CancelToken,
}

/// Unpacks the image of an OCI layout, or of what `docker save` packs, into `root`, which must not exist.
/// Does nothing, and says so by `false`, when `directory` holds none.
pub(crate) fn unpack_if_image(
    directory: &Path,
    root: &Path,
    architecture: Architecture,
    cancel: &CancelToken,
) -> Result<bool> {
    if !is_image(directory) {
        return Ok(false);
    }
    std::fs::create_dir(root).map_err(Error::io(root))?;
    unpack_directory(directory, root, &Wanted { architecture, tag: None, cancel })?;
    Ok(true)
}

pub(super) fn unpack(context: &Context<'_>, scripts: &mut Scripts<'_>) -> Result<Origin> {
    let resolved = context.resolved;
    let url = resolved.definition.source.url.as_str();
    if url.is_empty() {
        return Err(Error::Refused(
            "source.url: docker-http needs an image, as in registry.example/debian:bookworm or oci:PATH:TAG"
                .into(),
        ));
    }
    let default = context.host.mirrors.get("docker").map(String::as_str);
    let architecture = resolved.architecture;
    let cancel = context.fetcher.cancel;
    let (digest, name) = match Reference::parse(url, default, context.recipe_dir)? {
        Reference::Registry(remote) => {
            let fetcher = context.fetcher;
            let image = fetcher.run(async {
                let registry = Registry::open(fetcher.http, &remote, None).await?;
                let resolved = registry.resolve(&Platform::linux(architecture)).await?;
                Ok(registry.fetch(&resolved, fetcher.cache, fetcher.progress).await?)
            })?;
            apply(&image, context.root, architecture, cancel)?;
            (image.digest, remote.place())
        }
        Reference::Layout { path, tag } => {
            let wanted = Wanted { architecture, tag: tag.as_deref(), cancel };
            let digest = layout::unpack(&path, context.root, &wanted)?;
            (digest, "oci:".to_owned())
        }
    };
    scripts.note(&format!("source: {url} is {digest}"))?;
    if !resolved.definition.source.keys.is_empty() {
        scripts.note("warning: source.keys: images have no OpenPGP signatures; pin one with @sha256:")?;
    }
    let date = archive::newest_time(context.root)?;
    scripts.env.entry("SOURCE_DATE_EPOCH".into()).or_insert_with(|| date.to_string());
    let source = manifest::Source { url: name, name: url.to_owned(), sha256: digest.0 };
    Ok(Origin { sources: vec![source], date, installed: None })
}

/// Unpacks the layers of an image in their order into the empty directory `root`.
fn apply(image: &Image, root: &Path, architecture: Architecture, cancel: &CancelToken) -> Result<()> {
    let config = ImageConfig::parse(&image.config)?;
    let own = Platform { architecture: config.architecture, os: config.os, variant: config.variant };
    if !own.serves(&Platform::linux(architecture)) {
        return Err(Error::Refused(format!(
            "image {} is for {} {}, not for {architecture}; check image.architecture",
            image.digest, own.os, own.architecture
        )));
    }
    if config.rootfs.diff_ids.len() != image.layers.len() {
        let reason = format!(
            "its configuration counts {} layers, its manifest {}",
            config.rootfs.diff_ids.len(),
            image.layers.len()
        );
        return Err(Error::Untrusted { what: format!("image {}", image.digest), reason });
    }
    fs::set_permissions(root, PermissionsExt::from_mode(0o755)).map_err(Error::io(root))?;
    let mut limits = Limits::default();
    for (layer, expected) in image.layers.iter().zip(&config.rootfs.diff_ids) {
        cancel.check()?;
        let file = File::open(layer).map_err(Error::io(layer))?;
        let options = ExtractOptions { limits: limits.clone(), digest: true, ..ExtractOptions::default() };
        let extracted = extract_layer(file, root, &options)?;
        if let Some(found) = extracted.sha256.filter(|found| *found != expected.0) {
            return Err(Error::Untrusted {
                what: format!("image {}", image.digest),
                reason: format!("a layer unpacks to {found}, its configuration says {expected}"),
            });
        }
        limits.entries = limits.entries.saturating_sub(extracted.entries);
        limits.unpacked = limits.unpacked.saturating_sub(extracted.size);
    }
    Ok(())
}
