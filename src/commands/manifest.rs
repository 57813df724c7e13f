//! `millstream manifest`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use millstream_builder::difference::{Change, Difference};
use millstream_image::Serial;
use millstream_image::manifest::{self, Package};

use crate::cli::pack::Manifest;
use crate::output::{self, Format, say};

const FILE: &str = "manifest.json";

pub fn run(command: &Manifest, quiet: bool) -> anyhow::Result<()> {
    match command {
        Manifest::Show { image, format } => show(&newest(image)?, *format, quiet),
        Manifest::Diff { from, to: Some(to), format } => {
            diff(&Difference::between(&newest(from)?, &newest(to)?), *format, quiet)
        }
        Manifest::Diff { from, to: None, format } => {
            let serials = serials(from)?;
            let [.., before, after] = &serials[..] else {
                bail!("{}: fewer than two serials here; name both images", from.display());
            };
            diff(&Difference::between(&read(before)?, &read(after)?), *format, quiet)
        }
    }
}

/// The manifest a path leads to: of a file, of an image, or of the newest of several.
fn newest(path: &Path) -> anyhow::Result<manifest::Manifest> {
    if !path.is_dir() || path.join(FILE).exists() {
        return read(path);
    }
    let serials = serials(path)?;
    let last = serials.last();
    read(last.with_context(|| format!("{}: neither {FILE} nor serials of images here", path.display()))?)
}

/// The images of a product's directory in a stream, oldest first.
fn serials(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let items = fs::read_dir(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut found: Vec<(Serial, PathBuf)> = items
        .flatten()
        .filter_map(|item| Some((item.file_name().to_str()?.parse().ok()?, item.path())))
        .collect();
    found.sort();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

fn read(path: &Path) -> anyhow::Result<manifest::Manifest> {
    let file = if path.is_dir() { path.join(FILE) } else { path.to_path_buf() };
    let text = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
    manifest::Manifest::parse(&text).with_context(|| file.display().to_string())
}

fn show(manifest: &manifest::Manifest, format: Format, quiet: bool) -> anyhow::Result<()> {
    if matches!(format, Format::Json | Format::Yaml) {
        return output::object(format, manifest);
    }
    say(quiet, &format!("{} {}: {}", manifest.product, manifest.serial, manifest.description));
    for (name, file) in &manifest.files {
        say(quiet, &format!("  {name} {}", size(file.size)));
    }
    say(quiet, &format!("{} packages", manifest.packages.len()));
    let name = |package: &Package| package.name.clone();
    let version = |package: &Package| package.version.clone();
    let architecture = |package: &Package| package.architecture.clone();
    let columns: [output::Column<'_, Package>; 3] =
        [("PACKAGE", &name), ("VERSION", &version), ("ARCHITECTURE", &architecture)];
    output::list(format, &manifest.packages, &columns)
}

/// A line of the table of what changed.
#[derive(serde::Serialize)]
struct Line {
    change: Change,
    what: String,
    from: String,
    to: String,
}

fn diff(difference: &Difference, format: Format, quiet: bool) -> anyhow::Result<()> {
    if matches!(format, Format::Json | Format::Yaml) {
        return output::object(format, difference);
    }
    let (from, to) = (&difference.from, &difference.to);
    say(quiet, &format!("{} {} → {} {}", from.product, from.serial, to.product, to.serial));
    let packages = difference.packages.iter().map(|package| Line {
        change: package.change,
        what: format!("{} ({})", package.name, package.architecture),
        from: package.from.clone().unwrap_or_default(),
        to: package.to.clone().unwrap_or_default(),
    });
    let files = difference.files.iter().map(|file| Line {
        change: file.change,
        what: format!("file {}", file.name),
        from: file.from.map(size).unwrap_or_default(),
        to: file.to.map(size).unwrap_or_default(),
    });
    let lines: Vec<_> = packages.chain(files).collect();
    if lines.is_empty() {
        say(quiet, "nothing changed");
        return Ok(());
    }
    let change = |line: &Line| format!("{:?}", line.change).to_lowercase();
    let what = |line: &Line| line.what.clone();
    let before = |line: &Line| line.from.clone();
    let after = |line: &Line| line.to.clone();
    let columns: [output::Column<'_, Line>; 4] =
        [("CHANGE", &change), ("PACKAGE OR FILE", &what), ("FROM", &before), ("TO", &after)];
    output::list(format, &lines, &columns)
}

fn size(bytes: u64) -> String {
    if bytes < 1_000_000 { format!("{bytes} B") } else { format!("{:.1} MB", bytes as f64 / 1e6) }
}
