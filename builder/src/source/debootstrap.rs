//! `debootstrap`: apt distributions, bootstrapped natively.

use millstream_image::openpgp::Keyring;

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
    let (keyring, keys) = mirror::keyring(context.resolved, context.host)?;
    scripts.note(&format!("keys: {keys}"))?;
    let installed = bootstrap(context, &sources, &keyring).map_err(|error| match error {
        Error::Untrusted { what, reason } => {
            Error::Untrusted { what, reason: format!("{reason} (keys: {keys}; others go into source.keys)") }
        }
        other => other,
    })?;
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

/// Priorities and further packages of a variant, as debootstrap and mmdebstrap name them.
fn base(variant: &str) -> Result<(&'static [&'static str], &'static [&'static str])> {
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

fn bootstrap(context: &Context<'_>, sources: &[Source], keyring: &Keyring) -> Result<Installed> {
    let resolved = context.resolved;
    let definition = &resolved.definition;
    let (priorities, more) = base(&definition.source.variant)?;
    let early = |action: &str| -> Vec<String> {
        let wanted = |set: &&PackageSet| set.early && (set.action == "remove") == (action == "remove");
        definition.packages.sets.iter().filter(wanted).flat_map(|set| set.packages.clone()).collect()
    };
    let bootstrap = Bootstrap {
        sources,
        keyring,
        architecture: resolved.architecture,
        priorities,
        include: &[early("install"), more.iter().map(|name| (*name).to_owned()).collect()].concat(),
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
