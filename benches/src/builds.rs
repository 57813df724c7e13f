//! Builds of Debian against the programs people use for that.

use std::fs;
use std::path::Path;

use anyhow::{Context, bail};

use crate::compare::{Bench, Comparison, Sides};

/// Nothing fetched before, on either side.
const COLD_OURS: &str = "rm -rf state ours";
const COLD_THEIRS: &str = "rm -rf cache theirs";

pub fn all() -> Vec<Comparison> {
    vec![
        Comparison {
            name: "build-minbase",
            about: "Debian 12 minbase as a directory, nothing cached, against mmdebstrap",
            target: 0.7,
            setup: minbase,
            check: same_minbase,
        },
        Comparison {
            name: "build-default",
            about: "our Debian recipe to rootfs.tar.xz, nothing cached, against distrobuilder",
            target: 0.7,
            setup: default_recipe,
            check: same_default,
        },
    ]
}

/// A file of the repository.
pub fn repository(file: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file)
}

/// The sources our builder takes from this host's apt, a line each.
fn sources(bench: &Bench, recipe: &Path) -> anyhow::Result<Vec<String>> {
    bench.run(COLD_OURS)?;
    bench.run(&format!("$MILLSTREAM -q build --format dir --out ours {}", recipe.display()))?;
    let text = fs::read_to_string(bench.path("ours/rootfs/etc/apt/sources.list"))?;
    Ok(text.lines().map(str::to_owned).collect())
}

fn minbase(bench: &Bench) -> anyhow::Result<Sides> {
    let recipe = repository("benches/recipes/minbase.yaml");
    let lines = sources(bench, &recipe)?.join("' '");
    Ok(Sides {
        ours: format!("$MILLSTREAM -q build --format dir --out ours {}", recipe.display()),
        theirs: format!("mmdebstrap --quiet --variant=minbase bookworm theirs '{lines}'"),
        before_ours: COLD_OURS.into(),
        before_theirs: COLD_THEIRS.into(),
    })
}

fn same_minbase(bench: &Bench) -> anyhow::Result<String> {
    let packages = |root: &str| {
        bench.run(&format!(
            "dpkg-query --admindir={root}/var/lib/dpkg -W -f '${{Package}} ${{Version}}\\n' | sort"
        ))
    };
    same_packages(&packages("ours/rootfs")?, &packages("theirs")?)
}

fn same_packages(ours: &str, theirs: &str) -> anyhow::Result<String> {
    if ours != theirs {
        let only = |a: &str, b: &str| {
            let lines: Vec<_> = a.lines().filter(|line| !b.lines().any(|other| other == *line)).collect();
            lines.join(", ")
        };
        bail!("packages differ: only ours: {}; only theirs: {}", only(ours, theirs), only(theirs, ours));
    }
    Ok(format!("the same {} packages on both sides", ours.lines().count()))
}

fn default_recipe(bench: &Bench) -> anyhow::Result<Sides> {
    distrobuilder(bench)?;
    let sources = sources(bench, &repository("benches/recipes/minbase.yaml"))?;
    let line = sources.first().context("no source of packages")?;
    let mirror = line.split_whitespace().nth(1).context("no mirror in the source")?;
    // distrobuilder refuses the keys it does not know.
    let recipe = fs::read_to_string(repository("recipes/debian.yaml"))?;
    let (before, rest) = recipe.split_once("\nsimplestream:").context("the recipe has no simplestream")?;
    let after = rest.find("\ntargets:").context("the recipe has no targets")?;
    fs::write(bench.path("recipe.yaml"), format!("{before}{}", &rest[after..]))?;
    let options = format!(
        "-o image.release=bookworm -o image.architecture=amd64 -o image.serial=20260101_0000 -o source.url={mirror}"
    );
    Ok(Sides {
        ours: format!("$MILLSTREAM -q build --out ours recipe.yaml {options}"),
        theirs: format!("./distrobuilder build-lxc recipe.yaml theirs --cache-dir cache {options}"),
        before_ours: COLD_OURS.into(),
        before_theirs: COLD_THEIRS.into(),
    })
}

/// Takes distrobuilder out of the next release's package, with an apt of its own.
fn distrobuilder(bench: &Bench) -> anyhow::Result<()> {
    bench.run(
        "mkdir -p apt/parts apt/lists/partial apt/cache/archives/partial
        : > apt/status
        for file in /etc/apt/sources.list /etc/apt/sources.list.d/debian.sources; do
            [ ! -e $file ] || sed s/bookworm/trixie/g $file > apt/parts/$(basename $file | sed 's/^sources.list$/main.list/')
        done
        options=\"-o Dir::Etc::sourcelist=/dev/null -o Dir::Etc::sourceparts=$PWD/apt/parts -o Dir::State::lists=$PWD/apt/lists -o Dir::Cache=$PWD/apt/cache -o Dir::State::status=$PWD/apt/status -o APT::Sandbox::User=root\"
        apt-get $options -qq update
        apt-get $options -qq download distrobuilder
        dpkg-deb -x distrobuilder_*.deb unpacked
        cp unpacked/usr/bin/distrobuilder .",
    )
    .map(|_| ())
}

fn same_default(bench: &Bench) -> anyhow::Result<String> {
    let packages = |archive: &str| {
        bench.run(&format!(
            "rm -rf db && mkdir db && tar -xJf {archive} -C db ./var/lib/dpkg && \
             dpkg-query --admindir=db/var/lib/dpkg -W -f '${{Package}} ${{Version}}\\n' | sort"
        ))
    };
    let same = same_packages(&packages("ours/rootfs.tar.xz")?, &packages("theirs/rootfs.tar.xz")?)?;
    let size = |file: &str| fs::metadata(bench.path(file)).map(|meta| meta.len() as f64 / 1e6);
    let (ours, theirs) = (size("ours/rootfs.tar.xz")?, size("theirs/rootfs.tar.xz")?);
    Ok(format!("{same}; rootfs.tar.xz: ours {ours:.1} MB, theirs {theirs:.1} MB"))
}
