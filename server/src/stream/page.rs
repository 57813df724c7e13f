//! The images as pages for people, static, in the tree like any other document: one of each
//! distribution, and `index.html`, which lists all images while they are few enough for one page.

use millstream_image::Product;
use millstream_image::openpgp::KeyFingerprint;
use millstream_image::simplestreams::{Freshness, Products, Version};
use serde::Serialize;
use tera::{Context, Tera};

use super::catalogue::{Catalogue, fingerprint, images, size};
use super::documents::Documents;
use super::layout::CURRENT;
use crate::{Error, Result};

/// The name's ending is what makes tera escape whatever is inserted.
const NAME: &str = "index.html";
const TEMPLATE: &str = include_str!("../../../web/index.html");

/// So many products at most stand on one page; more are a page a distribution.
const ON_ONE_PAGE: usize = 200;

/// A distribution with a page of its own.
#[derive(Serialize)]
struct Group {
    name: String,
    products: usize,
    page: String,
}

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

/// Renders the pages of what changed and the first page, or keeps what is as it was.
pub(super) fn render(
    catalogue: &mut Catalogue,
    freshness: &Freshness,
    keys: &[KeyFingerprint],
    documents: &mut Documents,
) -> Result<()> {
    let pages = Pages::new(freshness, keys)?;
    let total: usize = catalogue.entries.values().map(|entry| entry.products.len()).sum();
    if total <= ON_ONE_PAGE {
        catalogue.read_all()?;
    }
    let distributions: Vec<_> = catalogue.entries.keys().cloned().collect();
    let mut all = Vec::new();
    for distribution in distributions {
        let path = path(&distribution);
        let changed = catalogue.changed().any(|name| *name == distribution);
        if !changed && catalogue.root().join(CURRENT).join(&path).exists() {
            documents.kept.push(path);
        } else {
            let rows = rows(&catalogue.document(&distribution)?.products);
            documents.files.push((path, pages.render(&rows, &[], "../")?.into_bytes()));
        }
        if total <= ON_ONE_PAGE {
            all.extend(rows(&catalogue.document(&distribution)?.products));
        }
    }
    let groups = catalogue.entries.iter().filter(|_| total > ON_ONE_PAGE);
    let groups: Vec<_> = groups
        .map(|(name, entry)| Group { name: name.clone(), products: entry.products.len(), page: path(name) })
        .collect();
    documents.files.push((NAME.into(), pages.render(&all, &groups, "")?.into_bytes()));
    Ok(())
}

fn path(distribution: &str) -> String {
    format!("pages/{distribution}.html")
}

/// What all pages of a publication have in common.
struct Pages {
    tera: Tera,
    context: Context,
}

impl Pages {
    fn new(freshness: &Freshness, keys: &[KeyFingerprint]) -> Result<Self> {
        let mut tera = Tera::default();
        tera.add_raw_template(NAME, TEMPLATE).map_err(|e| bad(&e))?;
        let mut context = Context::new();
        context.insert("updated", &freshness.created.format("%Y-%m-%d %H:%M UTC").to_string());
        let keys: Vec<_> = keys.iter().map(|key| grouped(key.as_str())).collect();
        context.insert("key", &keys.join(" · "));
        Ok(Self { tera, context })
    }

    /// A page with these images, or with these distributions; `base` leads to the root of the tree.
    fn render(&self, rows: &[Row], groups: &[Group], base: &str) -> Result<String> {
        let mut context = self.context.clone();
        context.insert("example", &rows.first().map_or("debian/bookworm", |row| row.name.as_str()));
        context.insert("lxc", &rows.first().map(|row| (&row.release, &row.arch, &row.variant)));
        context.insert("dist", &rows.first().and_then(|row| row.name.split('/').next()));
        context.insert("rows", rows);
        context.insert("groups", groups);
        context.insert("base", base);
        self.tera.render(NAME, &context).map_err(|e| bad(&e))
    }
}

fn bad(error: &tera::Error) -> Error {
    let chain = std::iter::successors(std::error::Error::source(error), |e| e.source());
    let causes: Vec<_> = chain.map(ToString::to_string).collect();
    Error::tree(NAME, format!("{error}: {}", causes.join(": ")))
}

fn rows(products: &Products) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    let mut images: Vec<_> = images(products).collect();
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
