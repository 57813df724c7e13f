//! One way for every distribution that publishes root file systems over HTTP: find the newest file
//! that fits, check it against what the distribution published and signed, unpack it.

use std::fs;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;

use millstream_image::{Sha256Digest, manifest};

use super::layouts::{Facts, LAYOUTS, Layout, Plan, Signed, Sums};
use super::trust::Trust;
use super::{Context, Origin, archive, oci, sums, wildcard};
use crate::apt::mirror;
use crate::recipe::Resolved;
use crate::script::Scripts;
use crate::staging::Staging;
use crate::{Error, Result, output};

/// The largest listing, list of checksums or pointer that is read.
const MAX_DOCUMENT: u64 = 16 << 20;
/// The largest signature.
const MAX_SIGNATURE: u64 = 1 << 20;
/// The largest archive.
const MAX_ARCHIVE: u64 = 16 << 30;
/// Directories of the same kind that are looked into, the newest first.
const MAX_TRIES: usize = 8;

/// What a fetched file is, and where it lies in the cache.
pub(super) struct Fetched {
    pub(super) path: PathBuf,
    pub(super) source: manifest::Source,
}

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
    let finder = Finder { context, trust: &trust, plan: &plan };
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
    context: &'a Context<'a>,
    trust: &'a Trust,
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
            self.plan.path, self.context.resolved.product, self.context.resolved.definition.source.variant
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
            let Some(listing) = self.document(&format!("{at}/")).await? else { return Ok(None) };
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
            Sums::All(name) if !self.trust.is_skipped() => {
                seen.push(format!("{at}/{name}"));
                let list = format!("{at}/{name}");
                match self.sums(&list, self.plan.signed).await? {
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
                let Some(listing) = self.document(&format!("{at}/")).await? else { return Ok(None) };
                wildcard::newest(&listing, file, false).into_iter().next()
            }
        };
        let Some(name) = name else { return Ok(None) };
        let url = format!("{at}/{name}");
        let sums = match self.plan.sums {
            Sums::Beside(ending) if !self.trust.is_skipped() => {
                let list = format!("{url}{ending}");
                seen.push(list.clone());
                match self.sums(&list, self.plan.signed).await? {
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
        match self.document(&format!("{at}/")).await? {
            Some(listing) if listing.contains(file) => Err(Error::Untrusted {
                what: list.to_owned(),
                reason: "there is no such list of checksums (source.skip_verification: true does without)"
                    .into(),
            }),
            _ => Ok(None),
        }
    }

    /// A list of checksums, its signature checked when there are keys; `None` when it is not there.
    async fn sums(&self, url: &str, signed: Signed) -> Result<Option<String>> {
        let Some(text) = self.document(url).await? else { return Ok(None) };
        if !self.trust.has_keys() {
            return Ok(Some(plain_part(&text)));
        }
        let signature = match signed {
            Signed::Nothing | Signed::Archive(_) => return Ok(Some(plain_part(&text))),
            _ if text.starts_with(CLEARTEXT) => {
                let checked = self.trust.cleartext(url, text.as_bytes())?;
                return Ok(Some(String::from_utf8_lossy(&checked).into_owned()));
            }
            Signed::Sums(ending) => format!("{url}{ending}"),
            Signed::SumsMinisign(name) => {
                format!("{}/{name}", url.rsplit_once('/').map_or(url, |(directory, _)| directory))
            }
        };
        let data = self.signature(&signature, url).await?;
        let minisign = matches!(signed, Signed::SumsMinisign(_)) && data.starts_with(b"untrusted comment:");
        if minisign {
            // As good as no signature: so the way must be a private one.
            self.trust.check_way(url, false)?;
            return Ok(Some(text));
        }
        self.trust.detached_bytes(&signature, text.as_bytes(), &data)?;
        Ok(Some(text))
    }

    /// A file whose checksum and signature are right.
    async fn checked(&self, url: &str, sums: Option<&str>, signed: Signed) -> Result<Fetched> {
        let name = url.rsplit('/').next().unwrap_or(url);
        let expected = match sums {
            Some(text) => Some(sums::find(text, name).ok_or_else(|| Error::Untrusted {
                what: url.to_owned(),
                reason: "the list of checksums has none for it, or two".into(),
            })?),
            None => None,
        };
        let fetched = fetch(self.context, url, expected.as_ref()).await?;
        if let Signed::Archive(ending) = signed
            && self.trust.has_keys()
        {
            let what = format!("{url}{ending}");
            let signature = self.signature(&what, url).await?;
            self.trust.detached(&what, &fetched.path, &signature)?;
        }
        Ok(fetched)
    }

    async fn signature(&self, url: &str, of: &str) -> Result<Vec<u8>> {
        let fetched = self.context.fetcher.http.document(url, MAX_SIGNATURE).await;
        fetched.map_err(|error| {
            if error.is_missing() {
                Error::Untrusted {
                    what: of.to_owned(),
                    reason: format!("source.keys asks for a signature, and there is no {url}"),
                }
            } else {
                error.into()
            }
        })
    }

    /// A document, `None` when the server has none there.
    async fn document(&self, url: &str) -> Result<Option<String>> {
        match self.context.fetcher.http.document(url, MAX_DOCUMENT).await {
            Ok(document) => Ok(Some(String::from_utf8_lossy(&document).into_owned())),
            Err(error) if error.is_missing() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// What the log says about source and trust.
    fn notes(&self, source: &manifest::Source, plan: &Plan) -> Vec<String> {
        let mut notes = vec![format!("source: {} SHA-256 {}", source.url, source.sha256)];
        if self.trust.is_skipped() {
            notes
                .push("warning: source.skip_verification: neither checksum nor signature was checked".into());
        } else if plan.signed == Signed::Nothing {
            notes.push("warning: this distribution signs nothing; the server itself was trusted".into());
        } else if !self.trust.has_keys() {
            notes.push(
                "warning: no source.keys: no signature was checked; the server itself was trusted".into(),
            );
        } else if matches!(plan.signed, Signed::SumsMinisign(_)) {
            notes.push(
                "note: a signature by minisign is not checked; then the server itself was trusted".into(),
            );
        }
        notes
    }
}

const CLEARTEXT: &str = "-----BEGIN PGP SIGNED MESSAGE-----";

/// The text of a cleartext message whose signature nobody asked to check.
fn plain_part(text: &str) -> String {
    let Some(rest) = text.strip_prefix(CLEARTEXT) else { return text.to_owned() };
    let body = rest.split_once("\n\n").map_or(rest, |(_, body)| body);
    body.split("-----BEGIN PGP SIGNATURE-----").next().unwrap_or_default().to_owned()
}

/// Fetches a file into the cache, where it lies under its SHA-256. One whose SHA-256 is known is not
/// fetched twice.
pub(super) async fn fetch(
    context: &Context<'_>,
    url: &str,
    expected: Option<&sums::Checksum>,
) -> Result<Fetched> {
    let fetcher = context.fetcher;
    let name = url.rsplit('/').next().unwrap_or(url).to_owned();
    let fetched = |path: PathBuf, sha256| {
        let source = manifest::Source { url: output::without_password(url), name: name.clone(), sha256 };
        Fetched { path, source }
    };
    if let Some(sums::Checksum::Sha256(sha256)) = expected {
        let path = fetcher.cache.join(sha256.to_string());
        if is_there(&path, *sha256).await {
            return Ok(fetched(path, *sha256));
        }
    }
    // What a killed build leaves of it is collected by the next one.
    let staging = Staging::new(fetcher.cache, "build-")?;
    let temporary = staging.path().join("file");
    let got = fetcher.http.fetch(url, &temporary, MAX_ARCHIVE, fetcher.progress).await;
    let (sha256, _) = got.map_err(|error| {
        if error.is_missing() {
            Error::Refused(format!(
                "{error}; check image.release, image.architecture, the variant and source.url"
            ))
        } else {
            error.into()
        }
    })?;
    if let Some(expected) = expected {
        expected.check(url, &temporary, sha256)?;
    }
    let path = fetcher.cache.join(sha256.to_string());
    fs::rename(&temporary, &path).map_err(Error::io(&path))?;
    Ok(fetched(path, sha256))
}

async fn is_there(path: &Path, sha256: Sha256Digest) -> bool {
    let path = path.to_owned();
    let found = tokio::task::spawn_blocking(move || {
        fs::File::open(path).and_then(Sha256Digest::of_reader).map(|(digest, _)| digest)
    });
    matches!(found.await, Ok(Ok(digest)) if digest == sha256)
}
