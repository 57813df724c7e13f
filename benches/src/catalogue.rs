//! A catalogue of ten thousand products, listed.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, SystemTime};

use millstream_image::openpgp::{Algorithm, SigningKey};
use millstream_image::simplestreams::{
    Freshness, INDEX_PATH, Index, IndexEntry, Item, ProductEntry, Products, Version, signed_path, to_bytes,
};
use millstream_image::{Product, Sha256Digest};

use crate::compare::{Bench, Comparison, Sides};
use crate::fetch::serve;

/// So many distributions, releases of each, and variants on two architectures: 10,000 products.
pub(crate) const DISTRIBUTIONS: usize = 25;
const RELEASES: usize = 20;
const VARIANTS: usize = 10;
/// Versions of each product.
const VERSIONS: usize = 3;

pub fn all() -> Vec<Comparison> {
    vec![
        Comparison {
            name: "catalogue-cold",
            about: "image list of 10,000 products and 30,000 versions over loopback, against the 1.5 s promised",
            target: 1.0,
            setup: |bench| sides(bench, "rm -rf client/cache", 1.5),
            check: memory,
        },
        Comparison {
            name: "catalogue-warm",
            about: "the same with the documents of before, against the 0.3 s promised",
            target: 1.0,
            setup: |bench| sides(bench, "true", 0.3),
            check: memory,
        },
    ]
}

fn sides(bench: &Bench, before: &str, promised: f64) -> anyhow::Result<Sides> {
    write_tree(bench)?;
    serve(bench)?;
    Ok(Sides {
        ours: "MILLSTREAM_DIR=$PWD/client /usr/bin/time -f '%M' -o memory $MILLSTREAM -q image list home: > list"
            .into(),
        theirs: format!("sleep {promised}"),
        before_ours: before.into(),
        before_theirs: String::new(),
    })
}

fn memory(bench: &Bench) -> anyhow::Result<String> {
    let kilobytes: f64 = fs::read_to_string(bench.path("memory"))?.trim().parse()?;
    let lines = fs::read_to_string(bench.path("list"))?.lines().count();
    let verdict = if kilobytes <= 150.0 * 1024.0 { "met" } else { "missed" };
    Ok(format!("{lines} lines; {:.0} MiB of memory (150: {verdict})", kilobytes / 1024.0))
}

fn write_tree(bench: &Bench) -> anyhow::Result<()> {
    let now = SystemTime::now();
    let key = SigningKey::generate("Bench <b@example.org>", Algorithm::Ed25519, now, None)?;
    let tree = bench.path("tree");
    fs::create_dir_all(tree.join("streams/v1/by-hash"))?;
    let mut entries = BTreeMap::new();
    for distribution in 0..DISTRIBUTIONS {
        let name = format!("images:dist{distribution}");
        let mut document = Products::empty(name.clone());
        for product in products(distribution)? {
            document.products.insert(product.to_string(), entry(&product));
        }
        let bytes = to_bytes(&document)?;
        let sha256 = Sha256Digest::of(&bytes);
        let by_hash = format!("streams/v1/by-hash/{sha256}.json");
        fs::write(tree.join(&by_hash), &bytes)?;
        let entry = IndexEntry {
            datatype: "image-downloads".into(),
            path: format!("streams/v1/images-dist{distribution}.json"),
            format: "products:1.0".into(),
            products: document.products.into_keys().collect(),
            sha256: Some(sha256),
            size: Some(bytes.len() as u64),
            by_hash: Some(by_hash),
            ..IndexEntry::default()
        };
        entries.insert(name, entry);
    }
    let freshness = Freshness {
        path: INDEX_PATH.into(),
        created: now.into(),
        expires: (now + Duration::from_hours(24)).into(),
        keys: Vec::new(),
        generation: 1,
    };
    let index = Index {
        format: "index:1.0".into(),
        index: entries,
        updated: String::new(),
        millstream: Some(freshness),
    };
    let text = to_bytes(&index.clone().for_signed_readers())?;
    let signed = key.sign_cleartext(std::str::from_utf8(&text)?, now)?;
    fs::write(tree.join(signed_path(INDEX_PATH)), signed)?;
    fs::write(tree.join(INDEX_PATH), to_bytes(&index)?)?;
    Ok(fs::write(tree.join("key.asc"), key.to_armored_public()?)?)
}

pub(crate) fn products(distribution: usize) -> anyhow::Result<Vec<Product>> {
    let mut products = Vec::new();
    for release in 0..RELEASES {
        for variant in 0..VARIANTS {
            for arch in ["amd64", "arm64"] {
                let (dist, release, variant) =
                    (format!("dist{distribution}"), format!("r{release}"), format!("variant{variant}"));
                products.push(Product::new(&dist, &release, arch.parse()?, &variant)?);
            }
        }
    }
    Ok(products)
}

pub(crate) fn entry(product: &Product) -> ProductEntry {
    let version = |n: usize| {
        let serial = format!("2026010{}_0000", n + 1);
        let directory = format!("images/{}/{serial}", product.to_string().replace(':', "/"));
        let digest = |what: &str| Some(Sha256Digest::of(format!("{directory}{what}").as_bytes()));
        let item = |ftype: &str, file: &str| Item {
            ftype: ftype.into(),
            path: format!("{directory}/{file}"),
            size: 1_000_000,
            sha256: digest(file),
            ..Item::default()
        };
        let mut items = BTreeMap::new();
        for metadata in ["lxd.tar.xz", "incus.tar.xz"] {
            let combined = digest("combined");
            let item = Item {
                combined_sha256: combined,
                combined_rootxz_sha256: combined,
                ..item(metadata, metadata)
            };
            items.insert(metadata.to_owned(), item);
        }
        let rootfs = Item { sha256_uncompressed: digest("tar"), ..item("root.tar.xz", "rootfs.tar.xz") };
        items.insert("root.tar.xz".into(), rootfs);
        items.insert("manifest.json".into(), item("manifest.json", "manifest.json"));
        (serial, Version { items })
    };
    let aliases: Vec<_> = product.aliases([]).iter().map(ToString::to_string).collect();
    ProductEntry {
        aliases: aliases.join(","),
        arch: product.architecture().debian().into(),
        os: product.distribution().into(),
        release: product.release().into(),
        release_title: product.release().into(),
        variant: product.variant().into(),
        versions: (0..VERSIONS).map(version).collect(),
        ..ProductEntry::default()
    }
}
