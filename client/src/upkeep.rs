//! Keeping the store up to date and small: newer serials in, unused images out.

use std::collections::BTreeSet;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use millstream_image::Fingerprint;

use crate::catalogue::{Catalogue, CatalogueImage};
use crate::client::Client;
use crate::fetch::Keep;
use crate::settings::Settings;
use crate::store::{Origin, Store, StoredImage};
use crate::{Error, Progress, RemoteName, Result};

/// An image that newer serials were looked for.
#[derive(Debug)]
pub struct Refreshed {
    /// The image as it was.
    pub image: StoredImage,
    /// The newer one that took its place, `None` where it is the newest; or why nobody knows.
    pub newer: Result<Option<StoredImage>>,
}

impl Client {
    /// Looks for newer serials of images, and brings them here with the aliases and flags of
    /// the old ones, which go unless something is made from them. Each image stands for itself: a
    /// remote that fails keeps none of another from its update. May be stopped at any moment.
    pub async fn refresh(
        &self,
        images: Vec<StoredImage>,
        in_use: &BTreeSet<Fingerprint>,
        progress: &dyn Progress,
    ) -> Result<Vec<Refreshed>> {
        let store = self.store()?;
        let mut done = Vec::new();
        for image in images {
            let newer = self.refresh_one(&store, &image, in_use, progress).await;
            done.push(Refreshed { image, newer });
        }
        Ok(done)
    }

    async fn refresh_one(
        &self,
        store: &Arc<Store>,
        image: &StoredImage,
        in_use: &BTreeSet<Fingerprint>,
        progress: &dyn Progress,
    ) -> Result<Option<StoredImage>> {
        let Some(origin) = &image.origin else {
            return Err(Error::image(&image.fingerprint, "it came from no remote"));
        };
        let remote: RemoteName = origin.remote.parse()?;
        let catalogue = self.catalogue(&remote).await?;
        let newest = newest(&catalogue, origin)
            .ok_or_else(|| Error::image(&origin.product, "the remote no longer offers it"))?;
        if newest.fingerprint == image.fingerprint || newest.serial <= origin.serial {
            // Nothing new, so there is time for what the last update put off.
            let (worker, incomplete) = (store.clone(), image.clone());
            let complete = tokio::task::spawn_blocking(move || worker.complete(&incomplete));
            complete.await.map_err(|e| Error::Setup(e.to_string()))??;
            store.note_look(image.fingerprint, Utc::now())?;
            return Ok(None);
        }
        let keep = Keep { cached: image.cached, auto_update: image.auto_update };
        let newer = self.fetch_image(&remote, newest, keep, progress).await?;
        // It came by itself: that is no use of it.
        store.touch(newer.fingerprint, image.last_used.unwrap_or(image.stored))?;
        // Names first: while both are here, each name means one of them.
        for alias in &image.aliases {
            store.add_alias(alias, newer.fingerprint, true)?;
        }
        if in_use.contains(&image.fingerprint) {
            // It is kept for what was made from it, and is not looked after any more.
            store.set_flags(image.fingerprint, true, false)?;
        } else {
            store.delete(image.fingerprint)?;
        }
        store.get(newer.fingerprint)
    }
}

fn newest<'a>(catalogue: &'a Catalogue, origin: &Origin) -> Option<&'a CatalogueImage> {
    // Of LXD's API several of a product may have names.
    let of_product = catalogue.newest().filter(|image| image.product == origin.product);
    of_product.max_by(|a, b| a.serial.cmp(&b.serial))
}

impl Store {
    /// The images that newer ones should be looked for now, by themselves.
    pub fn due(&self, settings: &Settings, now: DateTime<Utc>) -> Result<Vec<StoredImage>> {
        let Some(interval) = settings.auto_update_interval() else { return Ok(Vec::new()) };
        let mut images = self.list()?;
        images.retain(|image| {
            let looked = image.looked.unwrap_or(image.stored).max(image.stored);
            let follows = image.auto_update && (!image.cached || settings.auto_update_cached());
            // A clock that was set back puts nothing off.
            follows && (looked > now || now.signed_duration_since(looked) >= interval)
        });
        Ok(images)
    }

    /// The images that may go: cached, without a name, unused for `expiry`, and nothing made from
    /// them.
    pub fn expired(
        &self,
        in_use: &BTreeSet<Fingerprint>,
        expiry: TimeDelta,
        now: DateTime<Utc>,
    ) -> Result<Vec<StoredImage>> {
        let mut images = self.list()?;
        images.retain(|image| {
            let used = image.last_used.unwrap_or(image.stored);
            image.cached
                && image.aliases.is_empty()
                && !in_use.contains(&image.fingerprint)
                && now.signed_duration_since(used) > expiry
        });
        Ok(images)
    }
}
