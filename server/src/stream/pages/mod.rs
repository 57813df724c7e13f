//! Pages for people, static, in the tree like any other document: the catalogue, which is published
//! with the documents, and a page beside each image, which like the image never changes.

mod catalogue;
pub(crate) mod daily;
mod image;
mod plot;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use chrono::{DateTime, Datelike, Timelike, Utc};
use millstream_image::Product;
use millstream_image::openpgp::KeyFingerprint;
use millstream_image::simplestreams::Item;
use serde::Serialize;
use tera::{Context, Tera};

use super::layout::COMBINED;
use crate::{Error, Result};

pub(super) use catalogue::{gather, render};
pub(super) use image::{HISTORY, PAGE, write};

/// Templates by name. A name that ends in `.html` or `.svg` has whatever is inserted escaped.
const TEMPLATES: [(&str, &str); 6] = [
    ("base.html", include_str!("../../../../web/base.html")),
    ("commands.html", include_str!("../../../../web/commands.html")),
    ("daily.html", include_str!("../../../../web/daily.html")),
    ("image.html", include_str!("../../../../web/image.html")),
    ("index.html", include_str!("../../../../web/index.html")),
    ("plot.svg", include_str!("../../../../web/plot.svg")),
];

/// What pages need besides, by path in the tree.
const FILES: [(&str, &str); 3] = [
    ("pages/icon.svg", include_str!("../../../../web/icon.svg")),
    ("pages/style.css", include_str!("../../../../web/style.css")),
    ("pages/page.js", include_str!("../../../../web/page.js")),
];

/// The templates. Reading them takes longer than rendering most pages.
static PARSED: LazyLock<tera::Result<Tera>> = LazyLock::new(|| {
    let mut tera = Tera::default();
    tera.autoescape_on(vec![".html", ".svg"]);
    tera.add_raw_templates(TEMPLATES)?;
    Ok(tera)
});

/// Reads the templates, for whoever will render pages soon.
pub(super) fn prepare() {
    LazyLock::force(&PARSED);
}

/// The templates, and what all pages have in common.
struct Pages {
    tera: &'static Tera,
    context: Context,
}

impl Pages {
    fn new(keys: &[KeyFingerprint]) -> Result<Self> {
        let tera = PARSED.as_ref().map_err(bad)?;
        let mut context = Context::new();
        let keys: Vec<_> = keys.iter().map(|key| grouped(key.as_str())).collect();
        context.insert("key", &keys.join(" · "));
        Ok(Self { tera, context })
    }

    fn render(&self, template: &str, context: Context) -> Result<Vec<u8>> {
        let mut whole = self.context.clone();
        whole.extend(context);
        self.tera.render(template, &whole).map(String::into_bytes).map_err(|e| bad(&e))
    }
}

fn bad(error: &tera::Error) -> Error {
    let chain = std::iter::successors(std::error::Error::source(error), |e| e.source());
    let causes: Vec<_> = chain.map(ToString::to_string).collect();
    Error::tree("index.html", format!("{error}: {}", causes.join(": ")))
}

/// What the commands on a page are for.
#[derive(Serialize)]
struct Commands {
    /// The name people type.
    example: String,
    dist: String,
    /// Release, architecture and variant, as LXC's template takes them.
    lxc: [String; 3],
    /// Directory of the image, from the root.
    path: String,
    /// Whether it can be imported from its address: it has a unified archive.
    direct: bool,
}

impl Commands {
    fn of(product: &Product, path: &str, items: &BTreeMap<String, Item>) -> Self {
        let arch = product.architecture().debian();
        Self {
            example: short_name(product),
            dist: product.distribution().to_owned(),
            lxc: [product.release(), arch, product.variant()].map(str::to_owned),
            path: path.to_owned(),
            direct: COMBINED.iter().any(|ftype| items.contains_key(*ftype)),
        }
    }

    fn context(&self) -> Result<Context> {
        Context::from_serialize(self).map_err(|e| bad(&e))
    }
}

/// The name people type.
fn short_name(product: &Product) -> String {
    match product.variant() {
        "default" => format!("{}/{}", product.distribution(), product.release()),
        variant => format!("{}/{}/{variant}", product.distribution(), product.release()),
    }
}

/// As `2026-01-30 05:12`. Written out, as chrono reads its format each time.
fn minute(time: DateTime<Utc>) -> String {
    let (date, clock) = (time.date_naive(), time.time());
    let [year, month, day] = [date.year() as u32, date.month(), date.day()];
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}", clock.hour(), clock.minute())
}

/// A size in the unit that suits it.
fn amount(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        _ => format!("{:.1} MB", bytes as f64 / 1e6),
    }
}

/// A fingerprint in groups of four, as people compare it.
fn grouped(fingerprint: &str) -> String {
    let groups: Vec<_> =
        fingerprint.as_bytes().chunks(4).map(|group| String::from_utf8_lossy(group).into_owned()).collect();
    groups.join(" ")
}
