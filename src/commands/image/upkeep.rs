//! Images that go, and images that are replaced by newer ones. An unpacked image goes with its image,
//! unless a container rests on it.

use std::collections::BTreeSet;

use anyhow::bail;
use chrono::{TimeDelta, Utc};
use millstream_client::{Client, StoredImage};
use millstream_image::Fingerprint;
use millstream_runtime::Runtime;

use super::local;
use crate::commands::client;
use crate::output;
use crate::progress::Bar;

pub(super) fn delete(names: &[String]) -> anyhow::Result<()> {
    let containers = client::containers()?;
    let store = client::open().store()?;
    // All are looked up before the first goes: a typing error deletes nothing.
    let images: Vec<_> = names
        .iter()
        .map(|name| store.resolve(&local(name)?).map_err(Into::into))
        .collect::<anyhow::Result<_>>()?;
    images.iter().try_for_each(|image| {
        store.delete(image.fingerprint)?;
        forget(containers.as_ref(), image.fingerprint)
    })
}

pub(super) fn refresh(names: &[String], all: bool, quiet: bool) -> anyhow::Result<()> {
    let containers = client::containers()?;
    let client = client::open();
    let images = to_refresh(&client, names, all, quiet)?;
    let in_use = in_use(containers.as_ref())?;
    let bar = Bar::new(quiet);
    let done = client::block_on(client.refresh(images, &in_use, &bar));
    bar.finish();
    let mut failed = 0;
    for refreshed in done?? {
        let old = refreshed.image.fingerprint.short();
        match refreshed.newer {
            Ok(Some(newer)) => {
                output::print(&format!("{old} -> {}\n", newer.fingerprint.short()))?;
                if client.store()?.get(refreshed.image.fingerprint)?.is_none() {
                    forget(containers.as_ref(), refreshed.image.fingerprint)?;
                }
            }
            Ok(None) => output::say(quiet, &format!("{old} is the newest")),
            Err(error) => {
                failed += 1;
                output::say(false, &format!("{old}: {error}"));
            }
        }
    }
    if failed > 0 {
        bail!("{failed} images could not be refreshed; they stay as they are");
    }
    Ok(())
}

fn to_refresh(client: &Client, names: &[String], all: bool, quiet: bool) -> anyhow::Result<Vec<StoredImage>> {
    let store = client.store()?;
    if !names.is_empty() {
        return names.iter().map(|name| Ok(store.resolve(&local(name)?)?)).collect();
    }
    let following: Vec<_> = store.list()?.into_iter().filter(|image| image.auto_update).collect();
    if all {
        return Ok(following);
    }
    let due = store.due(&client.settings()?, Utc::now())?;
    if due.is_empty() && !following.is_empty() {
        output::say(
            quiet,
            "no image is due; millstream image refresh --all looks at all that follow newer ones",
        );
    }
    Ok(due)
}

pub(super) fn prune(days: Option<u32>, dry_run: bool, quiet: bool) -> anyhow::Result<()> {
    let containers = client::containers()?;
    let client = client::open();
    let expiry = match days {
        Some(days) => Some(TimeDelta::days(days.into())),
        None => client.settings()?.cache_expiry(),
    };
    let Some(expiry) = expiry else {
        output::say(quiet, "images.remote_cache_expiry is 0: images are kept");
        return Ok(());
    };
    let store = client.store()?;
    for image in store.expired(&in_use(containers.as_ref())?, expiry, Utc::now())? {
        if !dry_run {
            store.delete(image.fingerprint)?;
            forget(containers.as_ref(), image.fingerprint)?;
        }
        output::print(&format!("{}\n", image.fingerprint))?;
    }
    if let Some(runtime) = containers.filter(|_| !dry_run) {
        let stored: BTreeSet<_> = store.list()?.into_iter().map(|image| image.fingerprint).collect();
        runtime.remove_unneeded_images(&stored, expiry.to_std()?)?;
    }
    Ok(())
}

/// Images that containers were made from.
fn in_use(containers: Option<&Runtime>) -> anyhow::Result<BTreeSet<Fingerprint>> {
    Ok(containers.map_or_else(|| Ok(BTreeSet::new()), Runtime::images_in_use)?)
}

/// Removes what an image was unpacked to, unless a container rests on it.
fn forget(containers: Option<&Runtime>, image: Fingerprint) -> anyhow::Result<()> {
    Ok(containers.map_or(Ok(()), |runtime| runtime.remove_unused_image(image))?)
}
