//! Release and Packages files: fetched, verified by signature and hash, and read.

use std::collections::HashMap;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use chrono::{DateTime, NaiveDateTime, Utc};
use millstream_client::{Download, HttpClient, Progress};
use millstream_image::Sha256Digest;
use millstream_image::archive::{Limits, decoder};
use millstream_image::openpgp::Keyring;

use super::deb822::{Paragraph, paragraphs};
use super::sources::Source;
use super::version;
use crate::{Error, Result};

const MAX_RELEASE: u64 = 4 << 20;
const MAX_PACKAGES: u64 = 512 << 20;

/// A package as its index describes it.
#[derive(Clone, Debug)]
pub(super) struct Package {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) architecture: String,
    pub(super) url: String,
    pub(super) size: u64,
    pub(super) sha256: Sha256Digest,
    pub(super) fields: Paragraph,
}

impl Package {
    pub(super) fn field(&self, name: &str) -> &str {
        self.fields.get(name).unwrap_or_default()
    }
}

/// All packages that can be installed, the newest version of each.
pub(super) type Packages = HashMap<String, Arc<Package>>;

/// A verified Release document.
#[derive(Clone, Debug)]
pub struct Release {
    /// Where it came from.
    pub source: Source,
    /// SHA-256 of the signed document as fetched.
    pub sha256: Sha256Digest,
    /// Its date, seconds since 1970.
    pub date: i64,
    files: HashMap<String, (Sha256Digest, u64)>,
    by_hash: bool,
}

/// Fetches a suite's InRelease and believes it only if signed by `keyring`, for this suite, and
/// not expired.
pub(super) async fn release(http: &HttpClient, source: &Source, keyring: &Keyring) -> Result<Release> {
    let suite = &source.suites[0];
    let url = format!("{}/dists/{suite}/InRelease", source.url);
    let document = http.document(&url, MAX_RELEASE).await?;
    let refused = |reason: String| Error::Untrusted { what: url.clone(), reason };
    let now = SystemTime::now();
    let (text, _) = keyring.verify_cleartext(&document, now).map_err(|e| refused(e.to_string()))?;
    let text = String::from_utf8(text).map_err(|_| refused("it is not UTF-8".into()))?;
    let fields = paragraphs(&text).next().unwrap_or_default();
    let field = |name: &str| fields.get(name).unwrap_or_default();
    // A signed Release of another suite must not stand in for this one.
    if ![field("Codename"), field("Suite")].contains(&suite.as_str()) {
        return Err(refused(format!("it is for suite {}, not {suite}", field("Codename"))));
    }
    let date = |name: &str| fields.get(name).and_then(parse_date);
    if date("Valid-Until").is_some_and(|until| until < DateTime::<Utc>::from(now).timestamp()) {
        return Err(refused(format!("it expired on {}; the mirror is out of date", field("Valid-Until"))));
    }
    let mut files = HashMap::new();
    for line in field("SHA256").lines() {
        if let [digest, size, path] = line.split_whitespace().collect::<Vec<_>>()[..]
            && let (Ok(digest), Ok(size)) = (digest.parse(), size.parse())
        {
            files.insert(path.to_owned(), (digest, size));
        }
    }
    Ok(Release {
        source: source.clone(),
        sha256: Sha256Digest::of(&document),
        date: date("Date").unwrap_or_default(),
        files,
        by_hash: field("Acquire-By-Hash") == "yes",
    })
}

/// `Sat, 11 Jul 2026 10:14:05 UTC`.
fn parse_date(text: &str) -> Option<i64> {
    let text = text.strip_suffix(" UTC").or_else(|| text.strip_suffix(" +0000"))?;
    NaiveDateTime::parse_from_str(text, "%a, %d %b %Y %H:%M:%S").ok().map(|time| time.and_utc().timestamp())
}

/// Adds the packages of one component to `packages`; a newer version replaces an older one.
pub(super) async fn load(
    http: &HttpClient,
    release: &Release,
    component: &str,
    architecture: &str,
    cache: &Path,
    progress: &dyn Progress,
    packages: &mut Packages,
) -> Result<()> {
    let suite = &release.source.suites[0];
    let names = ["xz", "gz"].map(|ending| format!("{component}/binary-{architecture}/Packages.{ending}"));
    let found = names.iter().find_map(|name| Some((name, release.files.get(name)?)));
    let Some((name, (sha256, size))) = found else {
        let place = format!("{}/dists/{suite}", release.source.url);
        return Err(Error::NotThere(format!("{place}: no packages of {component} for {architecture}")));
    };
    let base = format!("{}/dists/{suite}", release.source.url);
    let url = if release.by_hash {
        let directory = name.rsplit_once('/').map_or("", |(directory, _)| directory);
        format!("{base}/{directory}/by-hash/SHA256/{sha256}")
    } else {
        format!("{base}/{name}")
    };
    let file = cache.join(sha256.to_string());
    fetch(http, &url, &file, *size, *sha256, progress).await?;
    let packed = std::fs::File::open(&file).map_err(Error::io(&file))?;
    let mut text = String::new();
    decoder(packed, &Limits::default())?
        .take(MAX_PACKAGES)
        .read_to_string(&mut text)
        .map_err(Error::io(&file))?;
    for fields in paragraphs(&text) {
        let Some(package) = package(fields, &release.source.url) else { continue };
        let newer = packages
            .get(&package.name)
            .is_none_or(|known| version::compare(&package.version, &known.version).is_gt());
        if newer {
            packages.insert(package.name.clone(), Arc::new(package));
        }
    }
    Ok(())
}

fn package(fields: Paragraph, base: &str) -> Option<Package> {
    let get = |name: &str| fields.get(name).map(str::to_owned);
    let path = get("Filename")?;
    if path.starts_with('/') || path.split('/').any(|part| part == "..") {
        return None;
    }
    Some(Package {
        name: get("Package")?,
        version: get("Version")?,
        architecture: get("Architecture")?,
        url: format!("{base}/{path}"),
        size: get("Size")?.parse().ok()?,
        sha256: get("SHA256")?.parse().ok()?,
        fields,
    })
}

/// Makes sure `file` holds exactly these bytes. What the cache has is hashed at every use.
pub(super) async fn fetch(
    http: &HttpClient,
    url: &str,
    file: &Path,
    size: u64,
    sha256: Sha256Digest,
    progress: &dyn Progress,
) -> Result<()> {
    let path = file.to_owned();
    let cached = tokio::task::spawn_blocking(move || {
        let file = std::fs::File::open(path).ok()?;
        (file.metadata().ok()?.len() == size).then(|| Sha256Digest::of_reader(file).ok())?
    });
    if let Ok(Some((found, _))) = cached.await
        && found == sha256
    {
        return Ok(());
    }
    let download = Download { url, dest: file, size, sha256 };
    Ok(http.download(&download, progress).await?)
}
