//! Adding an image to a tree of ten thousand products.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use millstream_image::openpgp::{Algorithm, SigningKey};
use millstream_image::simplestreams::{
    Freshness, INDEX_PATH, Index, IndexEntry, Products, signed_path, to_bytes,
};
use millstream_image::{Product, Serial, Sha256Digest, lxc_index};

use crate::catalogue::{DISTRIBUTIONS, entry, products};
use crate::compare::{Bench, Comparison, Sides};

/// The distribution that gets one more image.
const ADDED_TO: usize = 3;

pub fn all() -> Vec<Comparison> {
    vec![
        Comparison {
            name: "publish",
            about: "stream add of a 90 MB image to 10,000 products, signed, against incus-simplestreams add",
            target: 0.6,
            setup: against_incus,
            check: memory,
        },
        Comparison {
            name: "publish-large",
            about: "stream add of a small image to 10,000 products, against hashing and placing it \
                    (stream add --unsigned) and the 50 ms promised",
            target: 1.0,
            setup: against_placing,
            check: |_| Ok(String::new()),
        },
    ]
}

fn against_incus(bench: &Bench) -> anyhow::Result<Sides> {
    crate::builds::peer(bench, &format!("{}-backports", crate::builds::HOST_SUITE), "incus-extra")?;
    large_tree(bench)?;
    incus_tree(&bench.path("incus.base"))?;
    image(bench, "image", 90, 3)?;
    bench.run("mksquashfs rootfs rootfs.squashfs -quiet -no-progress -noappend")?;
    let measured = "/usr/bin/time -f %M -o";
    Ok(Sides {
        ours: format!("{measured} ours.memory $MILLSTREAM -q stream add tree image"),
        theirs: format!(
            "cd incus; {measured} ../theirs.memory ../unpacked/usr/bin/incus-simplestreams add \
             ../image/incus.tar.xz ../rootfs.squashfs"
        ),
        before_ours: "rm -rf tree; cp -a tree.base tree; sync".into(),
        before_theirs: "rm -rf incus; cp -a incus.base incus; sync".into(),
    })
}

fn against_placing(bench: &Bench) -> anyhow::Result<Sides> {
    large_tree(bench)?;
    image(bench, "image", 0, 3)?;
    let before = "rm -rf tree; cp -a tree.base tree; sync";
    Ok(Sides {
        ours: "$MILLSTREAM -q stream add tree image".into(),
        theirs: "$MILLSTREAM -q stream add --unsigned tree image; sleep 0.05".into(),
        before_ours: before.into(),
        before_theirs: before.into(),
    })
}

fn memory(bench: &Bench) -> anyhow::Result<String> {
    let of = |file: &str| -> anyhow::Result<f64> {
        Ok(fs::read_to_string(bench.path(file))?.trim().parse::<f64>()? / 1024.0)
    };
    let (ours, theirs) = (of("ours.memory")?, of("theirs.memory")?);
    let verdict = if ours <= 0.5 * theirs { "met" } else { "missed" };
    let ratio = ours / theirs;
    Ok(format!(
        "memory: ours {ours:.0} MiB, theirs {theirs:.0} MiB, ratio {ratio:.2} (target 0.5: {verdict})"
    ))
}

/// An image of a product the tree has, with so many megabytes that nothing compresses.
fn image(bench: &Bench, name: &str, megabytes: usize, variant: usize) -> anyhow::Result<()> {
    bench.run(&format!(
        "mkdir -p rootfs/etc rootfs/sbin
         printf 'ID=dist{ADDED_TO}\\nVERSION_ID=r5\\nNAME=Dist\\n' > rootfs/etc/os-release
         head -c {megabytes}M /dev/urandom > rootfs/data
         cp /bin/busybox rootfs/sbin/init
         $MILLSTREAM -q pack rootfs --out {name} -o image.distribution=dist{ADDED_TO} -o image.release=r5 \
         -o image.architecture=amd64 -o image.variant=variant{variant} -o image.serial=20260901_0000"
    ))?;
    Ok(())
}

/// A tree as `stream add` would have made it in thirty thousand steps, but for the images' files,
/// which adding one never reads, and most of their pages: `tree.base`.
fn large_tree(bench: &Bench) -> anyhow::Result<()> {
    let now = SystemTime::now();
    let key = SigningKey::generate("Bench <b@example.org>", Algorithm::Ed25519, now, None)?;
    fs::write(bench.path("key.sec"), key.to_armored_secret()?)?;
    bench
        .run("chmod 600 key.sec; $MILLSTREAM -q key import key.sec; $MILLSTREAM -q stream init tree.base")?;
    let tree = bench.path("tree.base/.documents/1");
    fs::create_dir_all(tree.join("streams/v1/by-hash"))?;
    let (mut entries, mut lines) = (BTreeMap::new(), Vec::new());
    let newest: Serial = "20260103_0000".parse()?;
    for distribution in 0..DISTRIBUTIONS {
        let name = format!("images:dist{distribution}");
        let mut document = Products::empty(name.clone());
        for product in products(distribution)? {
            let entry = entry(&product);
            for serial in entry.serials().filter(|_| distribution == ADDED_TO) {
                let directory = bench.path("tree.base").join(product.image_path(serial));
                fs::create_dir_all(&directory)?;
                fs::write(directory.join("index.html"), "")?;
            }
            document.products.insert(product.to_string(), entry);
            lines.push(lxc_index::Entry::new(product, newest));
        }
        let bytes = to_bytes(&document)?;
        let sha256 = Sha256Digest::of(&bytes);
        let path = format!("streams/v1/images-dist{distribution}.json");
        let by_hash = format!("streams/v1/by-hash/{sha256}.json");
        signed(&tree, &path, &bytes, &bytes, &key, now)?;
        fs::hard_link(tree.join(&path), tree.join(&by_hash))?;
        let entry = IndexEntry {
            datatype: "image-downloads".into(),
            path,
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
        keys: vec![key.fingerprint()],
        generation: 1,
    };
    let index = Index {
        format: "index:1.0".into(),
        index: entries,
        updated: String::new(),
        millstream: Some(freshness),
    };
    signed(
        &tree,
        INDEX_PATH,
        &to_bytes(&index)?,
        &to_bytes(&index.clone().for_signed_readers())?,
        &key,
        now,
    )?;
    let text = lxc_index::to_text(&lines);
    fs::write(tree.join("meta/1.0/index-system.asc"), key.sign_detached(text.as_bytes(), now)?)?;
    fs::write(tree.join("meta/1.0/index-system"), text)?;
    // The first one writes the pages of all distributions, which later ones keep.
    image(bench, "first", 0, 7)?;
    bench.run("$MILLSTREAM -q stream add tree.base first").map(drop)
}

fn signed(
    tree: &Path,
    path: &str,
    plain: &[u8],
    text: &[u8],
    key: &SigningKey,
    now: SystemTime,
) -> anyhow::Result<()> {
    fs::write(tree.join(path), plain)?;
    fs::write(tree.join(format!("{path}.gpg")), key.sign_detached(plain, now)?)?;
    let signed = key.sign_cleartext(std::str::from_utf8(text)?, now)?;
    Ok(fs::write(tree.join(signed_path(path)), signed)?)
}

/// The same products in the two documents that `incus-simplestreams` keeps.
fn incus_tree(tree: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(tree.join("streams/v1"))?;
    fs::create_dir_all(tree.join("images"))?;
    let mut document = Products::empty("images".into());
    let all: Vec<Vec<Product>> = (0..DISTRIBUTIONS).map(products).collect::<anyhow::Result<_>>()?;
    for product in all.iter().flatten() {
        document.products.insert(product.to_string(), entry(product));
    }
    fs::write(tree.join("streams/v1/images.json"), to_bytes(&document)?)?;
    let entry = IndexEntry {
        datatype: "image-downloads".into(),
        path: "streams/v1/images.json".into(),
        format: "products:1.0".into(),
        products: document.products.into_keys().collect(),
        ..IndexEntry::default()
    };
    let index = Index {
        format: "index:1.0".into(),
        index: BTreeMap::from([("images".to_owned(), entry)]),
        updated: String::new(),
        millstream: None,
    };
    Ok(fs::write(tree.join(INDEX_PATH), to_bytes(&index)?)?)
}
