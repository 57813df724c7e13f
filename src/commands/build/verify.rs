//! `millstream build --verify`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, bail};
use millstream_builder::format::Formats;
use millstream_builder::staging::Staging;
use millstream_builder::{Verified, resolved};
use millstream_image::Serial;
use millstream_image::manifest::Manifest;
use millstream_server::stream::Stream;

use super::{Builder, Job};
use crate::commands::recipe;
use crate::output::{self, say};

pub fn run(builder: &Builder<'_>, image: &str) -> anyhow::Result<()> {
    let file = find(builder, image)?;
    let text = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let then = Manifest::parse(&text).with_context(|| file.display().to_string())?;
    let setting = |name: &str| then.inputs.as_ref().and_then(|inputs| inputs.settings.get(name));
    let formats =
        setting("formats").map_or_else(|| Ok(Formats::default()), |text| Formats::from_text(text))?;
    let recipe = resolved(&then)?;
    let work = Staging::new(&builder.paths.cache.join("work"), "verify-")?;
    let out = work.path().join("image");
    let built = builder.run(&Job {
        resolved: &recipe,
        recipe_dir: builder.command.file.as_deref().and_then(Path::parent).unwrap_or(Path::new(".")),
        formats: &formats,
        out: &out,
        serial: then.serial,
        serial_given: true,
        epoch: setting("SOURCE_DATE_EPOCH").and_then(|text| text.parse().ok()),
        published: &[],
        test: None,
        settled: Some(&then),
    })?;
    let now = built.manifest.context("a directory cannot be compared")?;
    let found = millstream_builder::verify(&then, file.parent(), &now, &built.dir)?;
    report(&then, &found, builder.quiet)
}

fn report(then: &Manifest, found: &Verified, quiet: bool) -> anyhow::Result<()> {
    for line in found.differences.iter().chain(&found.causes) {
        output::print(&format!("{line}\n"))?;
    }
    match found.differences.len() {
        0 => {
            let files = then.files.len();
            say(quiet, &format!("{} {}: all {files} files are the same again", then.product, then.serial));
            Ok(())
        }
        count => bail!("{} {} comes out otherwise: {count} differences", then.product, then.serial),
    }
}

/// The manifest that is meant.
fn find(builder: &Builder<'_>, image: &str) -> anyhow::Result<PathBuf> {
    let path = PathBuf::from(image);
    if path.is_dir() {
        return Ok(path.join("manifest.json"));
    }
    let (Ok(serial), Some(root)) = (image.parse::<Serial>(), &builder.command.stream) else {
        return Ok(path);
    };
    let stream = Stream::open(root)?;
    let product = match &builder.command.file {
        Some(file) => Some(recipe::resolve(file, &builder.command.resolve, &builder.host)?.product),
        None => None,
    };
    let images = stream.list(SystemTime::now())?;
    let meant = |image: &&millstream_server::stream::Listed| {
        image.serial == serial && product.as_ref().is_none_or(|product| *product == image.product)
    };
    let found: Vec<_> = images.iter().filter(meant).collect();
    match found[..] {
        [one] => Ok(root.join(&one.path).join("manifest.json")),
        [] => bail!("{} has no image of serial {serial}", root.display()),
        _ => {
            let names: Vec<_> = found.iter().map(|image| image.product.to_string()).collect();
            bail!(
                "{} has several images of serial {serial}: {}; name the recipe as well",
                root.display(),
                names.join(", ")
            )
        }
    }
}
