//! One way for every distribution that publishes root file systems over HTTP: find the newest file
//! that fits, check it against what the distribution published and signed, unpack it.

use std::fs;
use std::future::Future;
use std::pin::Pin;

use millstream_image::manifest;

use super::layouts::{Facts, LAYOUTS, Layout, Plan, Signed, Sums};
use super::remote::{Fetched, Remote};
use super::trust::Trust;
use super::{Context, Origin, archive, oci, sums, wildcard};
use crate::apt::mirror;
use crate::recipe::Resolved;
use crate::script::Scripts;
use crate::{Error, Result};

/// Directories of the same kind that are looked into, the newest first.
const MAX_TRIES: usize = 8;

/// The layout behind a downloader's name.
pub(super) fn layout(downloader: &str) -> Option<&'static Layout> {
    LAYOUTS.iter().find(|layout| layout.downloader == downloader)
}

/// Fills the root directory from the distribution's mirror.
pub(super) fn unpack(context: &Context<'_>, layout: &Layout, scripts: &mut Scripts<'_>) -> Result<Origin> {
    let resolved = context.resolved;
    let base = mirror::base_url(resolved, context.host)?;
    let plan = plan(layout, resolved)?;
    let trust = Trust::of(resolved, context.host)?;
    trust.check_way(&base, plan.signed != Signed::Nothing)?;
    let finder = Finder { remote: Remote { context, trust: &trust }, plan: &plan };
    let (found, extra) = context.fetcher.run(async {
        let found = finder.find(&base).await?;
        let extra = match &plan.extra {
            Some(extra) => {
                let url = format!("{base}/{}", extra.path);
                Some(finder.checked(&url, None, Signed::Archive(extra.signature)).await?)
            }
            None => None,
        };
        Ok((found, extra))
    })?;
    for note in finder.notes(&found.source, &plan) {
        scripts.note(&note)?;
    }
    let wanted =
        oci::Wanted { architecture: resolved.architecture, tag: None, cancel: context.fetcher.cancel };
    archive::unpack(&found.path, context.root, &plan.inside, &wanted)?;
    let mut sources = vec![found.source];
    if let (Some(file), Some(extra)) = (extra, &plan.extra) {
        let target = context.root.join(extra.to);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent).map_err(Error::io(parent))?;
        }
        // What the root file system has there is older.
        let _gone = fs::remove_dir_all(&target);
        fs::create_dir(&target).map_err(Error::io(&target))?;
        archive::unpack(&file.path, &target, extra.inside, &wanted)?;
        sources.push(file.source);
    }
    let date = archive::newest_time(context.root)?;
    scripts.env.entry("SOURCE_DATE_EPOCH".into()).or_insert_with(|| date.to_string());
    if layout.downloader == "alpinelinux-http" && resolved.product.release() == "edge" {
        scripts.run("moving on to edge", EDGE)?;
    }
    Ok(Origin { sources, date, installed: None })
}

/// Alpine's edge starts from a release and takes all newer packages.
const EDGE: &str = "#!/bin/sh\nset -e\nsed -i -e 's/v[[:digit:]]\\.[[:digit:]]\\+/edge/g' /etc/apk/repositories\n\
                    apk upgrade --update-cache --available\n";

fn plan(layout: &Layout, resolved: &Resolved) -> Result<Plan> {
    let definition = &resolved.definition;
    let debian = resolved.architecture.debian();
    let own = definition.mappings.architectures.get(debian).map(String::as_str);
    let known = layout.architectures.iter().find(|(name, _)| *name == debian).map(|(_, theirs)| *theirs);
    let Some(arch) = own.or(known) else {
        let names: Vec<_> = layout.architectures.iter().map(|(name, _)| *name).collect();
        return Err(Error::Refused(format!(
            "image.architecture: {} has no root file system for {debian} (valid: {}); \
             a name of its own can be given in mappings.architectures",
            layout.title,
            names.join(", ")
        )));
    };
    let facts = Facts {
        release: &definition.image.release,
        arch,
        variant: &definition.source.variant,
        image_variant: &definition.image.variant,
        same_as: &definition.source.same_as,
    };
    for (key, value) in [
        ("image.release", facts.release),
        ("mappings.architectures", facts.arch),
        ("source.variant", facts.variant),
        ("image.variant", facts.image_variant),
        ("source.same_as", facts.same_as),
    ] {
        if value.contains(['/', '*', '#', '?', '%']) || value.contains("..") {
            return Err(Error::Refused(format!("{key}: {value:?} cannot be part of a file's name")));
        }
    }
    (layout.plan)(&facts)
}

struct Finder<'a> {
    remote: Remote<'a>,
    plan: &'a Plan,
}

type Step<'f> = Pin<Box<dyn Future<Output = Result<Option<Fetched>>> + 'f>>;

impl Finder<'_> {
    async fn find(&self, base: &str) -> Result<Fetched> {
        let parts: Vec<&str> = self.plan.path.split('/').collect();
        let mut seen = Vec::new();
        if let Some(found) = self.descend(base.to_owned(), &parts, &mut seen).await? {
            return Ok(found);
        }
        seen.truncate(4);
        let seen = if seen.is_empty() { String::new() } else { format!("; looked at: {}", seen.join(", ")) };
        Err(Error::Refused(format!(
            "{base}: there is no {} ({} {}); check image.release, image.architecture and source.url{seen}",
            self.plan.path,
            self.remote.context.resolved.product,
            self.remote.context.resolved.definition.source.variant
        )))
    }

    /// Follows `parts` below `at`; of directories that fit, the newest that leads to a file.
    fn descend<'f>(&'f self, at: String, parts: &'f [&'f str], seen: &'f mut Vec<String>) -> Step<'f> {
        Box::pin(async move {
            let fixed = parts.iter().take_while(|part| !wildcard::is_pattern(part)).count();
            let at = parts[..fixed.min(parts.len() - 1)].iter().fold(at, |at, part| format!("{at}/{part}"));
            let rest = &parts[fixed.min(parts.len() - 1)..];
            if let [file] = rest {
                return self.in_directory(&at, file, seen).await;
            }
            seen.push(format!("{at}/"));
            let Some(listing) = self.remote.document(&format!("{at}/")).await? else { return Ok(None) };
            for name in wildcard::newest(&listing, rest[0], true).into_iter().take(MAX_TRIES) {
                let found = self.descend(format!("{at}/{name}"), &rest[1..], &mut *seen).await?;
                if found.is_some() {
                    return Ok(found);
                }
            }
            Ok(None)
        })
    }

    /// The newest file of a directory that fits, fetched and checked.
    async fn in_directory(&self, at: &str, file: &str, seen: &mut Vec<String>) -> Result<Option<Fetched>> {
        let sums = match self.plan.sums {
            Sums::All(name) if !self.remote.trust.is_skipped() => {
                seen.push(format!("{at}/{name}"));
                let list = format!("{at}/{name}");
                match self.remote.sums(&list, self.plan.signed).await? {
                    Some(sums) => Some(sums),
                    None => return self.without_sums(at, &list, "").await,
                }
            }
            _ => None,
        };
        // What the signed list does not have is not looked for elsewhere.
        let name = match &sums {
            _ if !wildcard::is_pattern(file) => Some(file.to_owned()),
            Some(sums) => wildcard::newest(sums, file, false).into_iter().next(),
            None => {
                seen.push(format!("{at}/"));
                let Some(listing) = self.remote.document(&format!("{at}/")).await? else { return Ok(None) };
                wildcard::newest(&listing, file, false).into_iter().next()
            }
        };
        let Some(name) = name else { return Ok(None) };
        let url = format!("{at}/{name}");
        let sums = match self.plan.sums {
            Sums::Beside(ending) if !self.remote.trust.is_skipped() => {
                let list = format!("{url}{ending}");
                seen.push(list.clone());
                match self.remote.sums(&list, self.plan.signed).await? {
                    Some(sums) => Some(sums),
                    None => return self.without_sums(at, &list, &name).await,
                }
            }
            _ => sums,
        };
        self.checked(&url, sums.as_deref(), self.plan.signed).await.map(Some)
    }

    /// A directory that is not there is passed over; one whose file lost its checksum is not, or an
    /// older release would quietly take the place of the newest.
    async fn without_sums(&self, at: &str, list: &str, file: &str) -> Result<Option<Fetched>> {
        match self.remote.document(&format!("{at}/")).await? {
            Some(listing) if listing.contains(file) => Err(Error::Untrusted {
                what: list.to_owned(),
                reason: "there is no such list of checksums (source.skip_verification: true does without)"
                    .into(),
            }),
            _ => Ok(None),
        }
    }

    /// A file of the list `sums`, whose checksum and signature are right.
    async fn checked(&self, url: &str, sums: Option<&str>, signed: Signed) -> Result<Fetched> {
        let name = url.rsplit('/').next().unwrap_or(url);
        let expected = match sums {
            Some(text) => Some(sums::find(text, name).ok_or_else(|| Error::Untrusted {
                what: url.to_owned(),
                reason: "the list of checksums has none for it, or two".into(),
            })?),
            None => None,
        };
        self.remote.checked(url, expected.as_ref(), signed).await
    }

    /// What the log says about source and trust.
    fn notes(&self, source: &manifest::Source, plan: &Plan) -> Vec<String> {
        let mut notes = vec![format!("source: {} SHA-256 {}", source.url, source.sha256)];
        if self.remote.trust.is_skipped() {
            notes
                .push("warning: source.skip_verification: neither checksum nor signature was checked".into());
        } else if plan.signed == Signed::Nothing {
            notes.push("warning: this distribution signs nothing; the server itself was trusted".into());
        } else if !self.remote.trust.has_keys() {
            notes.push(
                "warning: no source.keys: no signature was checked; the server itself was trusted".into(),
            );
        } else if matches!(plan.signed, Signed::SumsMinisign(_)) && !self.remote.trust.has_minisign_keys() {
            notes.push(
                "note: source.keys has no key of minisign (RW…); a signature by it is not checked, and the \
                 server itself was trusted"
                    .into(),
            );
        }
        notes
    }
}
