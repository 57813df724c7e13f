//! Images of registries in the client's store: their layers, put together and packed as an image of LXD's.

use std::fs;
use std::path::Path;

use chrono::{DateTime, Utc};
use millstream_client::oci::Offered;
use millstream_client::store::Origin;
use millstream_client::{Client, ImportOptions, ImportSource, Keep, Progress, RemoteName, StoredImage};
use millstream_image::{Architecture, Serial};
use millstream_runtime::CancelToken;

use crate::format::{Format, Formats};
use crate::pack::{self, PackOptions};
use crate::{Error, Result};

/// How an image is brought here.
pub struct Bring<'a> {
    /// For which architecture.
    pub architecture: Architecture,
    /// How it is kept.
    pub keep: Keep,
    /// Told of stages.
    pub stage: &'a (dyn Fn(&str) + Sync),
    /// Told of downloads.
    pub progress: &'a dyn Progress,
    /// Stops the work.
    pub cancel: &'a CancelToken,
}

/// Brings the image that `name` means in a registry into the store, if what was made of it is not there. The
/// same manifest makes the same image everywhere. Needs a runtime of several threads, and root's rights over
/// files: those of a user namespace will do.
///
/// # Errors
/// When there is no such image, something is not what its digest says, or it is no root file system.
pub async fn bring(
    client: &Client,
    remote: &RemoteName,
    name: &str,
    bring: &Bring<'_>,
) -> Result<StoredImage> {
    let offered = client.registry_image(remote, name, bring.architecture).await?;
    if let Some(stored) = here(client, &offered, bring.keep)? {
        return Ok(stored);
    }
    (bring.stage)(&format!("fetching {}:{}", offered.reference.place(), offered.reference.tag()));
    let layout = client.registry_layout(&offered, bring.progress).await?;
    // Another process may have made it while this one waited.
    if let Some(stored) = here(client, &offered, bring.keep)? {
        return Ok(stored);
    }
    let made = make(client, &offered, &layout.dir, bring).await;
    // The layers are of no more use, in an image or wrong.
    fs::remove_dir_all(&layout.dir).map_err(Error::io(&layout.dir))?;
    made
}

/// Packs the image of a layout, and takes it into the store.
async fn make(client: &Client, offered: &Offered, layout: &Path, bring: &Bring<'_>) -> Result<StoredImage> {
    let parent = layout.parent().unwrap_or(layout);
    let work = tempfile::Builder::new().prefix(".pack-").tempdir_in(parent).map_err(Error::io(parent))?;
    let formats = Formats::new([Format::Lxd], None)?;
    let reference = &offered.reference;
    let overrides = [format!("image.architecture={}", bring.architecture.debian())];
    let options = PackOptions {
        out: &work.path().join("image"),
        metadata: None,
        overrides: &overrides,
        named: Some((reference.repository().rsplit('/').next().unwrap_or("image"), reference.tag())),
        serial: serial(offered),
        epoch: None,
        formats: &formats,
        threads: std::thread::available_parallelism().map_or(1, usize::from),
        stage: bring.stage,
        cancel: bring.cancel,
    };
    let built = tokio::task::block_in_place(|| pack::pack(layout, &options))?;
    let manifest = built.manifest.ok_or_else(|| Error::Internal("an image without a manifest".into()))?;
    let options = ImportOptions {
        properties: offered.properties(),
        public: false,
        origin: Some(Origin {
            remote: offered.remote.to_string(),
            product: manifest.product,
            serial: manifest.serial.to_string(),
        }),
        keep: bring.keep,
    };
    Ok(client.import(ImportSource::Files(vec![built.dir]), options, bring.progress).await?)
}

/// What was made of it before; who wants it for good makes it stay.
fn here(client: &Client, offered: &Offered, keep: Keep) -> Result<Option<StoredImage>> {
    let Some(stored) = client.stored_of(offered)? else { return Ok(None) };
    if stored.cached && !keep.cached {
        client.store()?.set_flags(stored.fingerprint, false, stored.auto_update)?;
    }
    Ok(Some(stored))
}

/// When it was made, as far as it says.
fn serial(offered: &Offered) -> Serial {
    let stated = offered.config.created.as_deref().and_then(|text| DateTime::parse_from_rfc3339(text).ok());
    Serial::at(stated.map_or_else(Utc::now, |time| time.with_timezone(&Utc)))
}
