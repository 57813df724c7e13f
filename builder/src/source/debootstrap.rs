//! `debootstrap`: apt distributions, bootstrapped natively.

use crate::apt::bootstrap::{Bootstrap, Installed};
use crate::apt::mirror;
use crate::apt::sources::Source;
use crate::recipe::PackageSet;
use crate::rootfs::{Attributes, Rootfs};
use crate::script::Scripts;
use crate::{Error, Result, output};

use super::{Context, Origin};

pub(super) fn unpack(context: &Context<'_>, scripts: &mut Scripts<'_>) -> Result<Origin> {
    let sources = mirror::sources(context.resolved, context.host)?;
    for source in &sources {
        scripts.note(&format!("source: {} {}", source.url, source.suites.join(" ")))?;
    }
    let installed = bootstrap(context, &sources)?;
    let date = installed.date();
    // What scripts date (passwords, caches) is then dated alike in every build.
    scripts.env.entry("SOURCE_DATE_EPOCH".into()).or_insert_with(|| output::epoch(date).to_string());
    installed.configure(context.root, scripts)?;
    let lines: Vec<_> = sources
        .iter()
        .map(|s| format!("deb {} {} {}\n", s.url, s.suites.join(" "), s.components.join(" ")))
        .collect();
    Rootfs::open(context.root)?.write(
        "/etc/apt/sources.list",
        lines.concat().as_bytes(),
        Attributes::default(),
    )?;
    let documents = installed.releases.iter().map(output::source).collect();
    Ok(Origin { sources: documents, date, installed: Some(installed) })
}

fn bootstrap(context: &Context<'_>, sources: &[Source]) -> Result<Installed> {
    let resolved = context.resolved;
    let definition = &resolved.definition;
    let early = |action: &str| -> Vec<String> {
        let wanted = |set: &&PackageSet| set.early && (set.action == "remove") == (action == "remove");
        definition.packages.sets.iter().filter(wanted).flat_map(|set| set.packages.clone()).collect()
    };
    let bootstrap = Bootstrap {
        sources,
        keyring: &mirror::keyring(&definition.source)?,
        architecture: resolved.architecture,
        important: definition.source.variant != "minbase",
        include: &early("install"),
        exclude: &early("remove"),
        fetcher: context.fetcher,
    };
    bootstrap.unpack(context.root).map_err(|error| match error {
        Error::NoRelease { url, release, .. } => {
            let codename = &context.host.codename;
            let mut releases = resolved.releases.clone();
            releases.extend((!codename.is_empty()).then(|| codename.clone()));
            releases.sort();
            releases.dedup();
            let known = format!(" (releases this recipe and this host name: {})", releases.join(", "));
            Error::NoRelease { url, release, known }
        }
        other => other,
    })
}
