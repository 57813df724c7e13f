//! Builds of Debian against the programs people use for that.

use std::fmt::Write as _;
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
            target: 0.6,
            setup: default_recipe,
            check: same_default,
        },
        Comparison {
            name: "rebuild-updates",
            about: "that image again when updates came, with what the build before left, against distrobuilder",
            target: 0.25,
            setup: updates,
            check: same_packages_of_images,
        },
        Comparison {
            name: "rebuild-unchanged",
            about: "that image again when nothing changed, against the three seconds promised",
            target: 1.0,
            setup: unchanged,
            check: |bench| bench.run("cmp first/rootfs.tar.xz ours/rootfs.tar.xz && echo the same archive"),
        },
        Comparison {
            name: "variants",
            about: "three variants of one release, nothing cached, against one of them",
            target: 1.6,
            setup: variants,
            check: |bench| bench.run("ls -d ours/*/rootfs.tar.xz | wc -l"),
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

/// The default recipe as both can read it, with the mirror's URL and options for both.
struct Default {
    lines: Vec<String>,
    mirror: String,
    options: String,
}

impl Default {
    fn prepare(bench: &Bench) -> anyhow::Result<Self> {
        let lines = sources(bench, &repository("benches/recipes/minbase.yaml"))?;
        let line = lines.first().context("no source of packages")?;
        let mirror = line.split_whitespace().nth(1).context("no mirror in the source")?.to_owned();
        // distrobuilder refuses the keys it does not know.
        let recipe = fs::read_to_string(repository("recipes/debian.yaml"))?;
        let (before, rest) =
            recipe.split_once("\nsimplestream:").context("the recipe has no simplestream")?;
        let after = rest.find("\ntargets:").context("the recipe has no targets")?;
        fs::write(bench.path("recipe.yaml"), format!("{before}{}", &rest[after..]))?;
        let options =
            "-o image.release=bookworm -o image.architecture=amd64 -o image.serial=20260101_0000".into();
        Ok(Self { lines, mirror, options })
    }
}

fn default_recipe(bench: &Bench) -> anyhow::Result<Sides> {
    distrobuilder(bench)?;
    let Default { mirror, options, .. } = Default::prepare(bench)?;
    let options = format!("{options} -o source.url={mirror}");
    Ok(Sides {
        ours: format!("$MILLSTREAM -q build --out ours recipe.yaml {options}"),
        theirs: format!("./distrobuilder build-lxc recipe.yaml theirs --cache-dir cache {options}"),
        before_ours: COLD_OURS.into(),
        before_theirs: COLD_THEIRS.into(),
    })
}

/// First from the main suite alone, as yesterday; then, timed, with the updates and security suites.
fn updates(bench: &Bench) -> anyhow::Result<Sides> {
    distrobuilder(bench)?;
    let Default { lines, mirror, options } = Default::prepare(bench)?;
    let recipe = fs::read_to_string(bench.path("recipe.yaml"))?;
    let mut repositories = String::new();
    for (number, line) in lines.iter().skip(1).enumerate() {
        writeln!(repositories, "    - name: updates{number}\n      url: {line}")?;
    }
    let (before, after) = recipe.split_once("packages:\n").context("the recipe has no packages")?;
    fs::write(
        bench.path("theirs.yaml"),
        format!("{before}packages:\n  repositories:\n{repositories}{after}"),
    )?;
    bench.run(COLD_OURS)?;
    bench.run(&format!("$MILLSTREAM -q build --out ours recipe.yaml {options} -o source.url={mirror}"))?;
    let theirs = format!("{options} -o source.url={mirror}");
    let keep = "--cache-dir cache --sources-dir sources --keep-sources";
    bench.run(&format!("./distrobuilder build-lxc recipe.yaml theirs {keep} {theirs}"))?;
    bench.run("mv state yesterday")?;
    Ok(Sides {
        ours: format!("$MILLSTREAM -q build --out ours recipe.yaml {options}"),
        theirs: format!("./distrobuilder build-lxc theirs.yaml theirs {keep} {theirs}"),
        before_ours: "rm -rf state ours; cp -a yesterday state".into(),
        before_theirs: "rm -rf theirs".into(),
    })
}

fn unchanged(bench: &Bench) -> anyhow::Result<Sides> {
    let recipe = repository("recipes/debian.yaml");
    let build = |out: &str| {
        format!("$MILLSTREAM -q build --out {out} {} -o image.release=bookworm", recipe.display())
    };
    bench.run(&build("first"))?;
    Ok(Sides {
        ours: build("ours"),
        theirs: "sleep 3".into(),
        before_ours: "rm -rf ours".into(),
        before_theirs: "true".into(),
    })
}

/// The default recipe's two variants and a third.
fn variants(bench: &Bench) -> anyhow::Result<Sides> {
    let recipe = fs::read_to_string(repository("recipes/debian.yaml"))?;
    let (before, after) = recipe.split_once("  sets:\n").context("the recipe has no sets")?;
    let server = "  sets:\n    - packages: [openssh-server, rsync]\n      action: install\n      \
                  flags: [--no-install-recommends]\n      variants: [server]\n";
    fs::write(bench.path("recipe.yaml"), format!("{before}{server}{after}"))?;
    let build = |out: &str, variant: &str| {
        format!(
            "$MILLSTREAM -q build --out {out}/{variant} recipe.yaml -o image.release=bookworm -o image.variant={variant}\n"
        )
    };
    let three: String =
        ["default", "minimal", "server"].iter().map(|variant| build("ours", variant)).collect();
    Ok(Sides {
        ours: three,
        theirs: build("theirs", "default"),
        before_ours: "rm -rf state ours; mkdir ours".into(),
        before_theirs: "rm -rf state theirs; mkdir theirs".into(),
    })
}

/// Takes distrobuilder out of the next release's package.
fn distrobuilder(bench: &Bench) -> anyhow::Result<()> {
    peer(bench, "trixie", "distrobuilder")?;
    bench.run("cp unpacked/usr/bin/distrobuilder .").map(drop)
}

/// The release whose lines of the host's own sources others are derived from.
pub(crate) const HOST_SUITE: &str = "bookworm";

/// Unpacks a package of another suite into `unpacked`.
pub(crate) fn peer(bench: &Bench, suite: &str, package: &str) -> anyhow::Result<()> {
    let script = repository("xtask/from-suite.sh");
    bench.run(&format!("sh {} {suite} . {package}", script.display())).map(drop)
}

fn same_packages_of_images(bench: &Bench) -> anyhow::Result<String> {
    let packages = |archive: &str| {
        bench.run(&format!(
            "rm -rf db && mkdir db && tar -xJf {archive} -C db ./var/lib/dpkg && \
             dpkg-query --admindir=db/var/lib/dpkg -W -f '${{Package}} ${{Version}}\\n' | sort"
        ))
    };
    same_packages(&packages("ours/rootfs.tar.xz")?, &packages("theirs/rootfs.tar.xz")?)
}

fn same_default(bench: &Bench) -> anyhow::Result<String> {
    let same = same_packages_of_images(bench)?;
    let size = |file: &str| fs::metadata(bench.path(file)).map(|meta| meta.len() as f64 / 1e6);
    let (ours, theirs) = (size("ours/rootfs.tar.xz")?, size("theirs/rootfs.tar.xz")?);
    // What the blocks cost: the same files by name, in one stream.
    let one = "rm -rf tree && mkdir tree && tar -xJf ours/rootfs.tar.xz -C tree && \
               tar --sort=name --numeric-owner -C tree -c . | xz -6 -T1 | wc -c";
    let stream = bench.run(one)?.trim().parse::<f64>()? / 1e6;
    let (more, verdict) =
        (100.0 * (ours / stream - 1.0), if ours <= 1.03 * stream { "met" } else { "missed" });
    Ok(format!(
        "{same}; rootfs.tar.xz: ours {ours:.1} MB, theirs {theirs:.1} MB; xz -6 in one stream {stream:.1} MB, ours \
         {more:+.1} % (target +3: {verdict})"
    ))
}
