//! `debootstrap`: apt distributions, bootstrapped natively.

use std::path::Path;

use millstream_image::manifest;

use crate::apt::bootstrap::{Bootstrap, Installed, Plan};
use crate::apt::index::Release;
use crate::apt::mirror;
use crate::apt::sources::Source;
use crate::recipe::PackageSet;
use crate::rootfs::{Attributes, Rootfs};
use crate::script::Scripts;
use crate::{Error, Result, output};

use super::{Context, Origin};

/// The verified Release documents of the recipe's suites.
pub(crate) fn releases(context: &Context<'_>) -> Result<Vec<Release>> {
    let sources = mirror::sources(context.resolved, context.host)?;
    #[allow(
        clippy::redundant_closure_for_method_calls,
        reason = "the method's name alone has too narrow a lifetime"
    )]
    with_bootstrap(context, &sources, |bootstrap| bootstrap.releases()).map_err(|error| match error {
        Error::NoRelease { url, release, .. } => {
            let codename = &context.host.codename;
            let mut releases = context.resolved.releases.clone();
            releases.extend((!codename.is_empty()).then(|| codename.clone()));
            releases.sort();
            releases.dedup();
            let known = format!(" (releases this recipe and this host name: {})", releases.join(", "));
            Error::NoRelease { url, release, known }
        }
        other => other,
    })
}

/// What these releases have for the recipe; `settled` packages in just these versions if possible.
pub(crate) fn plan(
    context: &Context<'_>,
    releases: Vec<Release>,
    settled: &[manifest::Package],
) -> Result<Plan> {
    let sources: Vec<_> = releases.iter().map(|release| release.source.clone()).collect();
    with_bootstrap(context, &sources, |bootstrap| bootstrap.plan(releases, settled))
}

/// Makes the base in the empty directory `root`, in which `scripts` run.
pub(crate) fn base(
    context: &Context<'_>,
    plan: Plan,
    root: &Path,
    scripts: &mut Scripts<'_>,
) -> Result<Installed> {
    let sources: Vec<_> = plan.releases.iter().map(|release| release.source.clone()).collect();
    let installed = with_bootstrap(context, &sources, |bootstrap| bootstrap.unpack(plan, root))?;
    date_scripts(&installed, scripts);
    installed.configure(root, scripts)?;
    Ok(installed)
}

/// Makes the root file system of a base: tells apt where it came from.
pub(crate) fn settle(installed: Installed, root: &Path, scripts: &mut Scripts<'_>) -> Result<Origin> {
    date_scripts(&installed, scripts);
    let sources = installed.releases.iter().map(|release| &release.source);
    let lines: Vec<_> =
        sources.map(|s| format!("{} {} {}\n", s.url, s.suites.join(" "), s.components.join(" "))).collect();
    for line in &lines {
        scripts.note(&format!("source: {}", line.trim_end()))?;
    }
    let text: String = lines.iter().flat_map(|line| ["deb ", line]).collect();
    Rootfs::open(root)?.write("/etc/apt/sources.list", text.as_bytes(), Attributes::default())?;
    let documents = installed.releases.iter().map(output::source).collect();
    Ok(Origin { sources: documents, date: installed.date(), installed: Some(installed) })
}

/// What scripts date (passwords, caches) is dated alike in every build.
fn date_scripts(installed: &Installed, scripts: &mut Scripts<'_>) {
    scripts.env.entry("SOURCE_DATE_EPOCH".into()).or_insert_with(|| installed.date().to_string());
}

/// Priorities and further packages of a variant, as debootstrap and mmdebstrap name them.
fn priorities(variant: &str) -> Result<(&'static [&'static str], &'static [&'static str])> {
    Ok(match variant {
        "minbase" => (&["required"], &[]),
        "buildd" => (&["required"], &["build-essential"]),
        "" | "-" | "important" => (&["required", "important"], &[]),
        "standard" => (&["required", "important", "standard"], &[]),
        other => {
            return Err(Error::Refused(format!(
                "source.variant: {other:?} is unknown to debootstrap; valid: minbase, buildd, important, standard"
            )));
        }
    })
}

fn with_bootstrap<T>(
    context: &Context<'_>,
    sources: &[Source],
    work: impl FnOnce(&Bootstrap<'_>) -> Result<T>,
) -> Result<T> {
    let resolved = context.resolved;
    let definition = &resolved.definition;
    let (priorities, more) = priorities(&definition.source.variant)?;
    let (keyring, keys) = mirror::keyring(resolved, context.host)?;
    let early = |action: &str| -> Vec<String> {
        let wanted = |set: &&PackageSet| set.early && (set.action == "remove") == (action == "remove");
        definition.packages.sets.iter().filter(wanted).flat_map(|set| set.packages.clone()).collect()
    };
    let bootstrap = Bootstrap {
        sources,
        keyring: &keyring,
        architecture: resolved.architecture,
        priorities,
        include: &[early("install"), more.iter().map(|name| (*name).to_owned()).collect()].concat(),
        exclude: &early("remove"),
        fetcher: context.fetcher,
    };
    work(&bootstrap).map_err(|error| match error {
        Error::Untrusted { what, reason } => {
            Error::Untrusted { what, reason: format!("{reason} (keys: {keys}; others go into source.keys)") }
        }
        other => other,
    })
}
