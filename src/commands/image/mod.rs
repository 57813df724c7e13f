//! `millstream image`.

mod columns;
mod edit;
mod import;
pub(super) mod registry;
mod upkeep;

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, bail};
use chrono::{DateTime, Utc};
use millstream_client::catalogue::Catalogue;
use millstream_client::{
    CatalogueImage, Client, Filter, ImageName, ImageRef, Keep, Place, Resolved, StoredImage,
};
use millstream_image::{Alias as Name, Architecture};
use serde::Serialize;
use serde_json::json;

use crate::cli::Output;
use crate::cli::client::{Alias, CopyImage, Image};
use crate::commands::client;
use crate::output::{self, Column, Format};
use crate::progress::Bar;

pub fn run(command: &Image, quiet: bool) -> anyhow::Result<()> {
    let client = client::open();
    match command {
        Image::List { filters, all, columns, output } => {
            let columns = columns::parse(columns)?;
            list(&client, filters, *all, &columns, *output)
        }
        Image::Edit { image } => edit::run(&client, image),
        Image::Info { image, output } if registry::is_in(&client, image)? => {
            registry::info(&client, image, output.format)
        }
        Image::Copy(command) if registry::is_in(&client, &command.source)? => {
            registry::copy(&client, command, quiet)
        }
        Image::Info { image, output } => info(&client, &image.parse()?, output.format),
        Image::Copy(command) => copy(&client, command, quiet),
        Image::Import(command) => import::run(&client, command, quiet),
        Image::Delete { images } => upkeep::delete(images),
        Image::Alias(command) => alias(&client, command),
        Image::Export { image, dir } => export(&client, &image.parse()?, dir, quiet),
        Image::Verify { images } => verify(&client, images, quiet),
        Image::Set { image, properties } => set(&client, image, properties),
        Image::Unset { image, keys } => change(&client, image, |properties| {
            properties.retain(|key, _| !keys.contains(key));
        }),
        Image::Refresh { images, all } => upkeep::refresh(images, *all, quiet),
        Image::Prune { days, dry_run } => upkeep::prune(*days, *dry_run, quiet),
    }
}

/// A line of a list, of the store or of a remote.
#[derive(Serialize)]
struct Line {
    aliases: Vec<String>,
    fingerprint: String,
    os: String,
    release: String,
    variant: String,
    architecture: String,
    serial: String,
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    remote: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signed: Option<bool>,
    description: String,
    public: bool,
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    stored: Option<DateTime<Utc>>,
}

fn list(
    client: &Client,
    arguments: &[String],
    all: bool,
    columns: &[Column<'_, Line>],
    output: Output,
) -> anyhow::Result<()> {
    let (place, filters) = match arguments.split_first() {
        Some((first, rest)) if first.ends_with(':') => (first[..first.len() - 1].parse()?, rest),
        _ => (Place::Local, arguments),
    };
    let filters: Vec<Filter> = filters.iter().map(|text| text.parse()).collect::<Result<_, _>>()?;
    let lines: Vec<_> = match place {
        Place::Remote(name) => {
            let remotes = client.remotes()?;
            let signed = remotes.get(&name)?.is_signed();
            if !signed {
                eprintln!("{name}: NOT SIGNED, as you allowed");
            }
            let catalogue = client::block_on(client.catalogue(&name))??;
            warn_refused(&catalogue);
            let any_arch = all || filters.iter().any(Filter::is_architecture);
            let here = |image: &&CatalogueImage| {
                (any_arch || image.product.architecture() == Architecture::host())
                    && (all || image.newest)
                    && image.matches(&filters)
            };
            let lines =
                catalogue.images.iter().filter(here).map(|image| remote_line(image, signed)).collect();
            // Taking a large one apart takes longer than the list; the process ends soon.
            std::mem::forget(catalogue);
            lines
        }
        Place::Local | Place::Anywhere => {
            let images = client.store()?.list()?;
            if let Some(first) = arguments.first().filter(|first| is_remote(client, first)) {
                eprintln!("this is the local store; for the remote, type: millstream image list {first}:");
            }
            images.iter().filter(|image| image.matches(&filters)).map(local_line).collect()
        }
    };
    output::list(output.format, &lines, columns)
}

fn is_remote(client: &Client, word: &str) -> bool {
    let name = word.parse::<millstream_client::RemoteName>();
    name.is_ok_and(|name| client.remotes().is_ok_and(|remotes| remotes.get(&name).is_ok()))
}

fn warn_refused(catalogue: &Catalogue) {
    for refused in &catalogue.refused {
        eprintln!("refused {}: {}", refused.product.escape_debug(), refused.reason.escape_debug());
    }
}

fn line(
    fingerprint: String,
    aliases: &[Name],
    properties: &std::collections::BTreeMap<String, String>,
) -> Line {
    let get = |key: &str| properties.get(key).cloned().unwrap_or_default();
    Line {
        aliases: aliases.iter().map(ToString::to_string).collect(),
        fingerprint,
        os: get("os"),
        release: get("release"),
        variant: get("variant"),
        architecture: get("architecture"),
        serial: get("serial"),
        size: 0,
        remote: None,
        signed: None,
        description: get("description"),
        public: false,
        r#type: "container",
        stored: None,
    }
}

fn remote_line(image: &CatalogueImage, signed: bool) -> Line {
    let line = line(image.fingerprint.to_string(), image.aliases(), &image.properties());
    Line { size: image.size(), signed: Some(signed), public: true, ..line }
}

fn local_line(image: &StoredImage) -> Line {
    let line = line(image.fingerprint.to_string(), &image.aliases, &image.properties);
    let remote = image.origin.as_ref().map(|origin| origin.remote.clone());
    Line { size: image.size, remote, public: image.public, stored: Some(image.stored), ..line }
}

fn size(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

fn info(client: &Client, name: &ImageName, format: Format) -> anyhow::Result<()> {
    match client::block_on(client.resolve(name))?? {
        Resolved::Local(image) => output::object(format, &*image),
        Resolved::Remote(remote, image) => {
            let here = client.store()?.get(image.fingerprint)?.is_some();
            let file = |file: &millstream_client::catalogue::RemoteFile| json!({"path": file.path.as_str(), "size": file.size, "sha256": file.sha256.to_string()});
            let object = json!({
                "fingerprint": image.fingerprint.to_string(),
                "remote": remote.as_str(),
                "signed": client.remotes()?.get(&remote)?.is_signed(),
                "product": image.product.to_string(),
                "serial": image.serial,
                "aliases": image.aliases(),
                "properties": image.properties(),
                "size": image.size(),
                "files": [file(&image.metadata), file(&image.rootfs)],
                "in_local_store": here,
            });
            output::object(format, &object)
        }
    }
}

fn copy(client: &Client, command: &CopyImage, quiet: bool) -> anyhow::Result<()> {
    if command.target != "local:" {
        bail!("{}: images are copied to this machine's store; write local: or leave it out", command.target);
    }
    let name: ImageName = command.source.parse()?;
    let mut aliases: Vec<Name> = command.alias.iter().map(|text| text.parse()).collect::<Result<_, _>>()?;
    let store = client.store()?;
    let bar = Bar::new(quiet);
    let image = client::block_on(async {
        let (remote, image) = match client.resolve(&name).await? {
            Resolved::Local(image) => {
                let keep = Keep { cached: false, auto_update: image.auto_update };
                return client.keep(*image, keep).await;
            }
            Resolved::Remote(remote, image) => (remote, image),
        };
        if command.copy_aliases {
            aliases.extend(image.aliases().iter().cloned());
        }
        if store.get(image.fingerprint)?.is_none() {
            let size = size(image.size());
            bar.stage(&format!("fetching {remote}:{} {} ({size})", image.product, image.serial));
        }
        let keep = Keep { cached: command.cached, auto_update: command.auto_update };
        client.fetch_image(&remote, &image, keep, &bar).await
    });
    bar.finish();
    let image = image??;
    client.add_aliases(&image, &aliases, true)?;
    output::print(&format!("{}\n", image.fingerprint))
}

/// A name for the local store, with or without `local:`.
fn local(name: &str) -> anyhow::Result<ImageRef> {
    let name: ImageName = name.parse()?;
    if let Place::Remote(remote) = &name.place {
        bail!("{name}: this works on the local store, not on the remote \"{remote}\"");
    }
    Ok(name.image)
}

#[derive(Serialize)]
struct AliasLine {
    alias: String,
    fingerprint: String,
}

fn alias(client: &Client, command: &Alias) -> anyhow::Result<()> {
    let store = client.store()?;
    match command {
        Alias::Create { alias, image } => {
            let image = store.resolve(&local(image)?)?;
            Ok(store.add_alias(&alias.parse()?, image.fingerprint, false)?)
        }
        Alias::Rename { from, to } => Ok(store.rename_alias(&from.parse()?, &to.parse()?)?),
        Alias::List { output } => {
            let line = |(alias, fingerprint): (Name, millstream_image::Fingerprint)| AliasLine {
                alias: alias.to_string(),
                fingerprint: fingerprint.to_string(),
            };
            let lines: Vec<_> = store.aliases()?.into_iter().map(line).collect();
            output::list(
                output.format,
                &lines,
                &[
                    ("ALIAS", &|line| line.alias.clone()),
                    ("FINGERPRINT", &|line| line.fingerprint[..12].to_owned()),
                ],
            )
        }
        Alias::Delete { aliases } => {
            aliases.iter().try_for_each(|alias| Ok(store.remove_alias(&alias.parse()?)?))
        }
    }
}

fn export(client: &Client, name: &ImageName, dir: &Path, quiet: bool) -> anyhow::Result<()> {
    let bar = Bar::new(quiet);
    let image = client::block_on(client.fetch(name, Keep { cached: true, auto_update: false }, &bar));
    bar.finish();
    let image = image??;
    let files = client.store()?.export(&image, dir)?;
    files.iter().try_for_each(|file| output::print(&format!("{}\n", file.display())))
}

fn set(client: &Client, name: &str, pairs: &[String]) -> anyhow::Result<()> {
    let pair = |text: &String| text.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()));
    let pairs = pairs.iter().map(|text| pair(text).filter(|(key, _)| !key.is_empty()).context(text.clone()));
    let pairs: Vec<_> = pairs.collect::<Result<_, _>>().context("properties are written KEY=VALUE")?;
    change(client, name, |properties| properties.extend(pairs))
}

fn change(
    client: &Client,
    name: &str,
    change: impl FnOnce(&mut BTreeMap<String, String>),
) -> anyhow::Result<()> {
    let store = client.store()?;
    let image = store.resolve(&local(name)?)?;
    Ok(store.change_properties(image.fingerprint, change)?)
}

fn verify(client: &Client, names: &[String], quiet: bool) -> anyhow::Result<()> {
    let store = client.store()?;
    let images: Vec<StoredImage> = if names.is_empty() {
        store.list()?
    } else {
        names.iter().map(|name| Ok(store.resolve(&local(name)?)?)).collect::<anyhow::Result<_>>()?
    };
    let mut damaged = 0;
    for image in &images {
        match store.verify(image) {
            Ok(()) if quiet => {}
            Ok(()) => output::print(&format!("{} good\n", image.fingerprint))?,
            Err(error) => {
                damaged += 1;
                eprintln!("{error}");
            }
        }
    }
    if damaged > 0 {
        bail!("{damaged} of {} images are damaged", images.len());
    }
    Ok(())
}
