//! `index.html`: the images as a page for people, static, in the tree like any other document.

use millstream_image::Product;
use millstream_image::openpgp::KeyFingerprint;
use millstream_image::simplestreams::{Freshness, Version};
use serde::Serialize;
use tera::{Context, Tera};

use super::catalogue::{Catalogue, fingerprint, size};
use crate::{Error, Result};

/// The name's ending is what makes tera escape whatever is inserted.
const NAME: &str = "index.html";
const TEMPLATE: &str = include_str!("../../../web/index.html");

#[derive(Serialize)]
struct Row {
    name: String,
    os: String,
    release: String,
    variant: String,
    arch: String,
    serials: Vec<Build>,
}

#[derive(Serialize)]
struct Build {
    serial: String,
    date: String,
    size: String,
    fingerprint: String,
    path: String,
    files: Vec<String>,
}

/// Renders the page.
pub(super) fn render(catalogue: &Catalogue, freshness: &Freshness, key: &KeyFingerprint) -> Result<String> {
    let bad = |error: tera::Error| {
        let chain = std::iter::successors(std::error::Error::source(&error), |e| e.source());
        let causes: Vec<_> = chain.map(ToString::to_string).collect();
        Error::tree(NAME, format!("{error}: {}", causes.join(": ")))
    };
    let mut tera = Tera::default();
    tera.add_raw_template(NAME, TEMPLATE).map_err(bad)?;
    let rows = rows(catalogue);
    let mut context = Context::new();
    context.insert("example", &rows.first().map_or("debian/bookworm", |row| row.name.as_str()));
    context.insert("lxc", &rows.first().map(|row| (&row.release, &row.arch, &row.variant)));
    context.insert("dist", &rows.first().and_then(|row| row.name.split('/').next()));
    context.insert("rows", &rows);
    context.insert("updated", &freshness.created.format("%Y-%m-%d %H:%M UTC").to_string());
    context.insert("key", &grouped(key.as_str()));
    tera.render(NAME, &context).map_err(bad)
}

fn rows(catalogue: &Catalogue) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    let mut images: Vec<_> = catalogue.images().collect();
    images.sort_by(|a, b| (&a.0, b.1).cmp(&(&b.0, a.1)));
    for (product, serial, entry, version) in images {
        let path = product.image_path(serial).display().to_string();
        let build = Build {
            serial: serial.to_string(),
            date: serial.time().format("%Y-%m-%d %H:%M").to_string(),
            size: megabytes(size(version)),
            fingerprint: fingerprint(version).map(|f| f.to_string()).unwrap_or_default(),
            files: files(version, &path),
            path,
        };
        let arch = product.architecture().debian();
        match rows.last_mut() {
            Some(row) if row.serials.last().is_some_and(|last| same_product(&last.path, &build.path)) => {
                row.serials.push(build);
            }
            _ => rows.push(Row {
                name: short_name(&product),
                os: entry.os.clone(),
                release: product.release().to_owned(),
                variant: product.variant().to_owned(),
                arch: arch.to_owned(),
                serials: vec![build],
            }),
        }
    }
    rows
}

/// The name people type.
fn short_name(product: &Product) -> String {
    match product.variant() {
        "default" => format!("{}/{}", product.distribution(), product.release()),
        variant => format!("{}/{}/{variant}", product.distribution(), product.release()),
    }
}

fn same_product(a: &str, b: &str) -> bool {
    a.rsplit_once('/').map(|(product, _)| product) == b.rsplit_once('/').map(|(product, _)| product)
}

/// What to download, by name; LXC's metadata and the log are in no document but always there.
fn files(version: &Version, directory: &str) -> Vec<String> {
    let listed = version.items.values().filter_map(|item| item.path.strip_prefix(directory));
    let mut names: Vec<_> = listed.map(|name| name.trim_start_matches('/').to_owned()).collect();
    names.extend(["meta.tar.xz".into(), "SHA256SUMS".into(), "SHA256SUMS.asc".into()]);
    names.sort();
    names
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

/// A fingerprint in groups of four, as people compare it.
fn grouped(fingerprint: &str) -> String {
    let groups: Vec<_> =
        fingerprint.as_bytes().chunks(4).map(|group| String::from_utf8_lossy(group).into_owned()).collect();
    groups.join(" ")
}
