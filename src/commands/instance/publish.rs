//! `publish`.

use std::collections::BTreeMap;
use std::fs;

use anyhow::bail;
use millstream_client::{ImportOptions, ImportSource, NoProgress};
use millstream_image::Alias;
use millstream_runtime::{ImageFiles, Runtime};

use crate::cli::storage::Publish;
use crate::commands::client;
use crate::output;
use crate::paths::Paths;

pub fn run(runtime: &Runtime, args: &Publish, quiet: bool) -> anyhow::Result<()> {
    let (name, snapshot) = super::storage::split(&args.name)?;
    let aliases = args.alias.iter().map(|alias| alias.parse()).collect::<Result<Vec<Alias>, _>>()?;
    let properties: BTreeMap<_, _> =
        args.property.iter().map(|text| super::settings::pair(text)).collect::<anyhow::Result<_>>()?;
    if let Some(directory) = &args.out {
        if directory.exists() {
            bail!("{} exists already", directory.display());
        }
        let parent = directory.parent().filter(|parent| !parent.as_os_str().is_empty());
        let staging =
            tempfile::Builder::new().prefix(".publish-").tempdir_in(parent.unwrap_or(".".as_ref()))?;
        runtime.publish(&name, snapshot.as_ref(), staging.path(), &properties)?;
        fs::rename(staging.keep(), directory)?;
        output::say(quiet, &format!("it is in {}", directory.display()));
        return Ok(());
    }
    let data = Paths::from_env().data;
    let staging = tempfile::Builder::new().prefix(".publish-").tempdir_in(data)?;
    let image = runtime.publish(&name, snapshot.as_ref(), staging.path(), &properties)?;
    store(&image, &aliases)?;
    output::print(&format!("{}\n", image.fingerprint))
}

/// Makes it an image of the store.
fn store(image: &ImageFiles, aliases: &[Alias]) -> anyhow::Result<()> {
    let client = client::open();
    let source = ImportSource::Files(vec![image.metadata.clone(), image.rootfs.clone()]);
    let image = client::block_on(client.import(source, ImportOptions::default(), &NoProgress))??;
    Ok(client.add_aliases(&image, aliases, true)?)
}
