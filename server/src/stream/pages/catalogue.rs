//! The catalogue: a page of each distribution, and `index.html`, which lists all images while they
//! are few enough for one page.

use std::path::Path;

use millstream_image::openpgp::KeyFingerprint;
use millstream_image::simplestreams::{Freshness, Products, Version};
use serde::Serialize;
use tera::Context;

use super::image::PAGE;
use super::{Commands, FILES, Pages, amount, minute, short_name};
use crate::Result;
use crate::stream::catalogue::{Catalogue, fingerprint, images, size};
use crate::stream::documents::Documents;
use crate::stream::layout::CURRENT;

const NAME: &str = "index.html";

/// So many products at most stand on one page; more are a page a distribution.
const ON_ONE_PAGE: usize = 100;

/// A distribution with a page of its own.
#[derive(Serialize)]
struct Group {
    name: String,
    products: usize,
    page: String,
}

#[derive(Serialize)]
struct Row {
    #[serde(skip)]
    commands: Commands,
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
    path: String,
    /// Whether there is a page beside it.
    page: bool,
    /// What is told where there is none.
    fingerprint: String,
    files: Vec<String>,
}

/// Reads the documents that [`render`] will need.
pub(in crate::stream) fn gather(catalogue: &mut Catalogue) -> Result<()> {
    if catalogue.distributions().values().sum::<usize>() <= ON_ONE_PAGE {
        return catalogue.read_all();
    }
    let published = catalogue.root().join(CURRENT);
    let names = catalogue.distributions().into_keys().map(str::to_owned);
    let missing: Vec<_> = names.filter(|name| !published.join(path(name)).exists()).collect();
    missing.iter().try_for_each(|distribution| catalogue.document(distribution).map(drop))
}

/// Renders the pages of what changed and the first page, or keeps what is as it was.
pub(in crate::stream) fn render(
    catalogue: &Catalogue,
    freshness: &Freshness,
    keys: &[KeyFingerprint],
    documents: &mut Documents,
) -> Result<()> {
    let pages = Pages::new(keys)?;
    let root = catalogue.root();
    let distributions = catalogue.distributions();
    let on_one_page = distributions.values().sum::<usize>() <= ON_ONE_PAGE;
    assets(root, documents);
    let (mut all, mut groups) = (Vec::new(), Vec::new());
    for (name, products) in distributions {
        let (path, read) = (path(name), catalogue.documents().get(name));
        let published = root.join(CURRENT).join(&path);
        match read.filter(|read| read.changed || !published.exists()) {
            None => documents.names.kept.push(path.clone()),
            Some(read) => {
                let rows = rows(root, &read.products);
                documents.file(path.clone(), page(&pages, freshness, &rows, &[], "../")?);
            }
        }
        if on_one_page {
            all.extend(read.map(|read| rows(root, &read.products)).unwrap_or_default());
        } else {
            groups.push(Group { name: name.to_owned(), products, page: path });
        }
    }
    documents.file(NAME, page(&pages, freshness, &all, &groups, "")?);
    Ok(())
}

/// What pages need besides; as it was, unless this is another version of the program.
fn assets(root: &Path, documents: &mut Documents) {
    for (path, contents) in FILES {
        let published = std::fs::read(root.join(CURRENT).join(path));
        if published.is_ok_and(|published| published == contents.as_bytes()) {
            documents.names.kept.push(path.to_owned());
        } else {
            documents.file(path, contents);
        }
    }
}

fn path(distribution: &str) -> String {
    format!("pages/{distribution}.html")
}

/// A page with these images, or with these distributions; `base` leads to the root of the tree.
fn page(pages: &Pages, freshness: &Freshness, rows: &[Row], groups: &[Group], base: &str) -> Result<Vec<u8>> {
    let mut context = Context::new();
    context.insert("example", "debian/bookworm");
    if let Some(row) = rows.first() {
        context.extend(row.commands.context()?);
    }
    context.insert("updated", &format!("{} UTC", minute(freshness.created)));
    context.insert("rows", rows);
    context.insert("groups", groups);
    context.insert("base", base);
    pages.render(NAME, context)
}

fn rows(root: &Path, products: &Products) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    let mut images: Vec<_> = images(products).collect();
    images.sort_by(|a, b| (&a.0, b.1).cmp(&(&b.0, a.1)));
    for (product, serial, entry, version) in images {
        let path = product.image_path(serial).display().to_string();
        let before = rows.last().and_then(|row| row.serials.last());
        let same = before.is_some_and(|before| same_product(&before.path, &path));
        // Images have one, unless another server has them: then none of the tree's has.
        let page = before.map_or_else(|| root.join(&path).join(PAGE).exists(), |before| before.page);
        let row = if same { rows.last_mut() } else { None };
        // Its page tells more.
        let (fingerprint, files) =
            if page { (None, Vec::new()) } else { (fingerprint(version), files(version, &path)) };
        let build = Build {
            serial: serial.to_string(),
            date: minute(serial.time()),
            size: amount(size(version)),
            fingerprint: fingerprint.map(|f| f.to_string()).unwrap_or_default(),
            files,
            page,
            path,
        };
        let arch = product.architecture().debian();
        match row {
            Some(row) => row.serials.push(build),
            None => rows.push(Row {
                name: short_name(&product),
                os: entry.os.clone(),
                release: product.release().to_owned(),
                variant: product.variant().to_owned(),
                arch: arch.to_owned(),
                commands: Commands::of(&product, &build.path, &version.items),
                serials: vec![build],
            }),
        }
    }
    rows
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
