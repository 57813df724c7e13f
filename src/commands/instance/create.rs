//! `launch` and `create`.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context;
use chrono::Utc;
use millstream_client::{Keep, Sink, StoredImage};
use millstream_runtime::container::{Configuration, CreateOptions, ImageUse};
use millstream_runtime::{ContainerName, ImageFiles, Runtime};

use crate::cli::instance::Create;
use crate::commands::client;
use crate::commands::image::registry;
use crate::output;
use crate::progress::Bar;

/// Finds an image by the name the user gave: a directory, else one of the store, else one of a
/// remote, which is fetched and kept in the store, and unpacked for the container as it comes.
fn image(runtime: &Runtime, name: &str, quiet: bool) -> anyhow::Result<ImageFiles> {
    if name.starts_with(['.', '/']) {
        return ImageFiles::in_directory(Path::new(name))
            .with_context(|| format!("{name} is no image directory as `millstream build` leaves it"));
    }
    let client = client::open();
    if registry::is_in(&client, name)? {
        return Ok(files(registry::copy_apart(&client, name, quiet)?));
    }
    let keep = Keep { cached: true, auto_update: client.settings()?.auto_update_cached() };
    let name = name.parse()?;
    let (unpacker, prepared) = (runtime.clone(), Arc::new(Mutex::new(None)));
    let slot = prepared.clone();
    // Where this fails, creating the container unpacks once more and says why.
    let sink: Sink = Box::new(move |image, rootfs| {
        *lock(&slot) = unpacker.prepare(image, rootfs).ok().flatten();
    });
    let bar = Bar::new(quiet);
    let fetched = client::block_on(client.fetch_into(&name, keep, Some(sink), &bar));
    bar.finish();
    let image = fetched??;
    client.store()?.touch(image.fingerprint, Utc::now())?;
    let files = files(image);
    if let Some(prepared) = lock(&prepared).take() {
        prepared.finish(&files)?;
    }
    Ok(files)
}

fn files(image: StoredImage) -> ImageFiles {
    ImageFiles { fingerprint: image.fingerprint, metadata: image.metadata, rootfs: image.rootfs }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub fn run(runtime: &Runtime, args: &Create, start: bool, quiet: bool) -> anyhow::Result<()> {
    let name: ContainerName = args.name.as_ref().map_or_else(ContainerName::random, |name| name.parse())?;
    let mut configuration = Configuration::default();
    if !args.profile.is_empty() {
        configuration.profiles = args.profile.iter().map(|name| name.parse()).collect::<Result<_, _>>()?;
    }
    for pair in &args.config {
        let (key, value) = super::settings::pair(pair)?;
        configuration.config.insert(key, value);
    }
    let image = image(runtime, &args.image, quiet)?;
    // Bridges are the machine's: another directory gets one only when told to.
    if std::env::var_os("MILLSTREAM_DIR").is_none() {
        super::settings::say(&runtime.create_default_network()?, quiet);
    }
    let usage = if args.copy_image { ImageUse::Copied } else { ImageUse::Automatic };
    let options = CreateOptions { image: usage, configuration, ephemeral: args.ephemeral };
    if start {
        runtime.launch_with(&name, &image, &options)?;
        super::say_notes(runtime, &name, quiet)?;
        output::say(quiet, &format!("{name} is running; `millstream shell {name}` opens a shell in it"));
    } else {
        runtime.create_with(&name, &image, &options)?;
        if args.name.is_none() {
            output::say(quiet, &format!("it is named {name}"));
        }
    }
    Ok(())
}
