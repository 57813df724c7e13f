//! Deltas between two days of one image against what LXD's servers publish.

use std::fs;

use anyhow::{Context, bail};

use crate::builds::repository;
use crate::compare::{Bench, Comparison, Sides};

/// Largest share of the whole image that a delta may take.
const OF_IMAGE: f64 = 0.04;
/// Largest share of the vcdiff between squashfs images.
const OF_VCDIFF: f64 = 0.5;
/// Seconds, and kilobytes of memory.
const MOST_SECONDS: f64 = 20.0;
const MOST_MEMORY: f64 = 1.5 * 1024.0 * 1024.0;

pub fn all() -> Vec<Comparison> {
    vec![Comparison {
        name: "delta",
        about: "the delta for real package updates, made and proved, against xdelta3 between squashfs images",
        // The promise is twenty seconds, which `check` judges. xdelta3 alone is quicker: it proves
        // nothing, compares squashfs images and comes to four times the size.
        target: 6.0,
        setup,
        check,
    }]
}

/// Builds the release as it came out, `old`, and with all its updates, `new`.
pub fn two_days(bench: &Bench) -> anyhow::Result<()> {
    let recipe = repository("recipes/debian.yaml");
    let build = |serial: &str, out: &str, more: &str| {
        bench.run(&format!(
            "$MILLSTREAM -q build {} -o image.release=bookworm -o image.serial={serial} {more} --out {out}",
            recipe.display()
        ))
    };
    build("20260102_0000", "new", "")?;
    let manifest = fs::read_to_string(bench.path("new/manifest.json"))?;
    // A mirror that is named carries the release alone.
    let mirror = manifest.split("\"url\": \"").nth(1).and_then(|rest| rest.split('"').next());
    build(
        "20260101_0000",
        "old",
        &format!("-o source.url={}", mirror.context("the manifest names no source")?),
    )
    .map(drop)
}

fn setup(bench: &Bench) -> anyhow::Result<Sides> {
    two_days(bench)?;
    bench.run(
        "for image in old new; do
             mkdir $image.root
             tar --xattrs --xattrs-include='*' -xJf $image/rootfs.tar.xz -C $image.root
             mksquashfs $image.root $image.squashfs -comp xz -noappend -no-exports -no-progress -no-recovery
         done
         $MILLSTREAM -q stream init first
         $MILLSTREAM -q stream add first old",
    )?;
    Ok(Sides {
        ours: "/usr/bin/time -f '%e %M' -o figures $MILLSTREAM -q stream add tree new --deltas 1".into(),
        theirs: "xdelta3 -f -e -9 -B 134217728 -s old.squashfs new.squashfs vcdiff".into(),
        before_ours: "rm -rf tree && cp -a first tree".into(),
        before_theirs: String::new(),
    })
}

fn check(bench: &Bench) -> anyhow::Result<String> {
    let delta = bench.run("ls tree/images/*/*/*/*/*/rootfs.*.delta")?;
    let size = |file: &str| fs::metadata(bench.path(file.trim())).map(|meta| meta.len() as f64);
    let (delta, full, vcdiff) = (size(&delta)?, size("new/rootfs.tar.xz")?, size("vcdiff")?);
    let figures = fs::read_to_string(bench.path("figures"))?;
    let figures: Vec<f64> = figures.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let [seconds, memory] = figures[..] else { bail!("no figures of time and memory") };
    let verdict = |value: f64, most: f64| if value <= most { "met" } else { "missed" };
    Ok(format!(
        "delta {:.2} MB: {:.1} % of rootfs.tar.xz ({}), {:.2} of the vcdiff's {:.2} MB ({}); \
         image added in {seconds:.1} s ({}) with {:.0} MB of memory ({})",
        delta / 1e6,
        delta / full * 100.0,
        verdict(delta / full, OF_IMAGE),
        delta / vcdiff,
        vcdiff / 1e6,
        verdict(delta / vcdiff, OF_VCDIFF),
        verdict(seconds, MOST_SECONDS),
        memory / 1024.0,
        verdict(memory, MOST_MEMORY),
    ))
}
