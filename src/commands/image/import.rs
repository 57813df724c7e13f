//! `image import`.

use std::fs;
use std::path::Path;

use anyhow::{Context, bail};
use chrono::Utc;
use millstream_builder::format::{Format, Formats};
use millstream_builder::pack::{self, PackOptions};
use millstream_client::{Client, ImportOptions, ImportSource};
use millstream_image::oci::layout::MARKER;
use millstream_image::{Alias, Serial};
use tempfile::TempDir;

use crate::cli::client::ImportImage;
use crate::commands::client;
use crate::interrupt;
use crate::output;
use crate::paths::Paths;
use crate::progress::Bar;

pub fn run(client: &Client, command: &ImportImage, quiet: bool) -> anyhow::Result<()> {
    let aliases: Vec<Alias> = command.alias.iter().map(|text| text.parse()).collect::<Result<_, _>>()?;
    let mut options = ImportOptions { public: command.public, ..ImportOptions::default() };
    let mut files = vec![];
    for word in &command.more {
        match word.split_once('=').filter(|(key, _)| !key.is_empty() && !key.contains('/')) {
            Some((key, value)) => drop(options.properties.insert(key.to_owned(), value.to_owned())),
            None if files.is_empty() => files.push(word.into()),
            None => bail!("{word}: expected one root file system, and properties as KEY=VALUE"),
        }
    }
    let source = &command.source;
    let is_url = source.contains("://");
    if is_url && !files.is_empty() {
        bail!("{}: an address names the whole image; leave it out", Path::new(&files[0]).display());
    }
    let source = if is_url {
        ImportSource::Url(source.clone())
    } else {
        files.insert(0, source.into());
        ImportSource::Files(files)
    };
    let bar = Bar::new(quiet);
    let (source, _packed) = packed(source, &bar)?;
    let image = client::block_on(client.import(source, options, &bar));
    bar.finish();
    let image = image??;
    client.add_aliases(&image, &aliases, true)?;
    output::print(&format!("{}\n", image.fingerprint))
}

/// The image of an OCI layout as an image of LXD's; the directory it is in goes when
/// the second value is dropped. Other sources are left as they are.
fn packed(source: ImportSource, bar: &Bar) -> anyhow::Result<(ImportSource, Option<TempDir>)> {
    let ImportSource::Files(files) = &source else { return Ok((source, None)) };
    let [layout] = &files[..] else { return Ok((source, None)) };
    if !layout.join(MARKER).is_file() {
        return Ok((source, None));
    }
    let data = Paths::from_env().data;
    fs::create_dir_all(&data).with_context(|| format!("cannot make {}", data.display()))?;
    let dir = tempfile::Builder::new().prefix(".import-").tempdir_in(&data)?;
    let options = PackOptions {
        out: &dir.path().join("image"),
        metadata: None,
        overrides: &[],
        named: None,
        serial: Serial::at(Utc::now()),
        epoch: None,
        formats: &Formats::new([Format::Lxd], None)?,
        threads: std::thread::available_parallelism().map_or(1, usize::from),
        stage: &|name| bar.stage(name),
        cancel: &interrupt::token()?,
    };
    let built = pack::pack(layout, &options)?;
    Ok((ImportSource::Files(vec![built.dir]), Some(dir)))
}
