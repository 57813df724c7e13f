//! Release and Packages files: fetched, verified by signature and hash, and read.

use std::collections::HashMap;
use std::io::Read;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use chrono::{DateTime, NaiveDateTime, Utc};
use millstream_client::{Download, HttpClient, Progress};
use millstream_image::Sha256Digest;
use millstream_image::archive::{Limits, decoder};
use millstream_image::openpgp::Keyring;

use super::deb822::paragraphs;
use super::sources::Source;
use super::version;
use crate::{Error, Result};

const MAX_RELEASE: u64 = 4 << 20;
const MAX_PACKAGES: u64 = 512 << 20;

/// A package as its index describes it. An index has tens of thousands, of which a build takes a
/// hundred, so all but name and version is looked up in the index's text when it is asked for.
#[derive(Clone, Debug)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version, see [`version`].
    pub version: String,
    index: Arc<str>,
    place: Range<usize>,
    base: Arc<str>,
}

/// Where a package's file is and what it must be.
#[derive(Clone, Debug)]
pub struct PackageFile {
    /// Where it is.
    pub url: String,
    /// In bytes.
    pub size: u64,
    /// Of the whole file.
    pub sha256: Sha256Digest,
}

impl Package {
    /// Reads the paragraph at `place` of `index`; `None` when it names no package and version.
    pub(super) fn new(index: &Arc<str>, place: Range<usize>, base: &Arc<str>) -> Option<Self> {
        let text = index.get(place.clone())?;
        let (name, version) = (field(text, "Package")?.to_owned(), field(text, "Version")?.to_owned());
        Some(Self { name, version, index: Arc::clone(index), place, base: Arc::clone(base) })
    }

    /// Its paragraph.
    pub(super) fn text(&self) -> &str {
        &self.index[self.place.clone()]
    }

    /// A field's value on its first line; empty when it is not there.
    pub(super) fn field(&self, name: &str) -> &str {
        field(&self.index[self.place.clone()], name).unwrap_or_default()
    }

    /// Where its file is.
    ///
    /// # Errors
    /// When the index does not say, or says something that leads elsewhere.
    pub fn file(&self) -> Result<PackageFile> {
        let bad = |what: &str| Error::Untrusted {
            what: format!("{}: package {}", self.base, self.name),
            reason: format!("its index gives no usable {what}"),
        };
        let path = self.field("Filename");
        if path.is_empty() || path.starts_with('/') || path.split('/').any(|part| part == "..") {
            return Err(bad("Filename"));
        }
        Ok(PackageFile {
            url: format!("{}/{path}", self.base),
            size: self.field("Size").parse().map_err(|_| bad("Size"))?,
            sha256: self.field("SHA256").parse().map_err(|_| bad("SHA256"))?,
        })
    }
}

fn field<'t>(paragraph: &'t str, name: &str) -> Option<&'t str> {
    paragraph.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

/// The places of the paragraphs of a text.
pub(super) fn places(text: &str) -> impl Iterator<Item = Range<usize>> {
    let mut start = 0;
    std::iter::from_fn(move || {
        start += text[start..].len() - text[start..].trim_start_matches('\n').len();
        let rest = text.get(start..).filter(|rest| !rest.is_empty())?;
        let end = rest.find("\n\n").map_or(text.len(), |at| start + at + 1);
        let place = start..end;
        start = end;
        Some(place)
    })
}

/// All packages that can be installed, the newest version of each.
pub type Packages = HashMap<String, Arc<Package>>;

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
    /// The signed document as fetched.
    pub(super) document: Vec<u8>,
}

/// A verified list of packages.
#[derive(Clone, Debug)]
pub struct List {
    /// Its URL without the ending of its compression, as apt names it.
    pub(super) url: String,
    pub(super) text: Arc<str>,
    pub(super) base: Arc<str>,
}

impl List {
    /// The list `text` of the archive at `base`, which was at `url`.
    pub fn new(url: String, text: &str, base: &str) -> Self {
        Self { url, text: text.into(), base: base.into() }
    }
}

/// Fetches a suite's InRelease and believes it only if signed by `keyring`, for this suite, and
/// not expired.
pub(crate) async fn release(
    http: &HttpClient,
    source: &Source,
    architecture: &str,
    keyring: &Keyring,
) -> Result<Release> {
    let suite = &source.suites[0];
    let url = format!("{}/dists/{suite}/InRelease", source.url);
    let document = http.document(&url, MAX_RELEASE).await.map_err(|error| match error {
        millstream_client::Error::Status { status: 404, .. } => {
            Error::NoRelease { url: url.clone(), release: suite.clone(), known: String::new() }
        }
        other => other.into(),
    })?;
    let now = SystemTime::now();
    let (text, _) = keyring
        .verify_cleartext(&document, now)
        .map_err(|e| Error::Untrusted { what: url.clone(), reason: e.to_string() })?;
    Release::read(source, architecture, &text, document, now)
}

impl Release {
    /// Reads the `text` that a signed `document` states, and looks whether it is for the suite and
    /// architecture and has not expired. Whether the signature is good is looked at before.
    ///
    /// # Errors
    /// When it is not.
    pub fn read(
        source: &Source,
        architecture: &str,
        text: &[u8],
        document: Vec<u8>,
        now: SystemTime,
    ) -> Result<Self> {
        let suite = &source.suites[0];
        let url = format!("{}/dists/{suite}/InRelease", source.url);
        let refused = |reason: String| Error::Untrusted { what: url.clone(), reason };
        let text = std::str::from_utf8(text).map_err(|_| refused("it is not UTF-8".into()))?;
        let fields = paragraphs(text).next().unwrap_or_default();
        let field = |name: &str| fields.get(name).unwrap_or_default();
        // A signed Release of another suite must not stand in for this one.
        if ![field("Codename"), field("Suite")].contains(&suite.as_str()) {
            return Err(refused(format!("it is for suite {}, not {suite}", field("Codename"))));
        }
        let date = |name: &str| fields.get(name).and_then(parse_date);
        if date("Valid-Until").is_some_and(|until| until < DateTime::<Utc>::from(now).timestamp()) {
            return Err(refused(format!(
                "it expired on {}; the mirror is out of date",
                field("Valid-Until")
            )));
        }
        let architectures: Vec<_> = field("Architectures").split_whitespace().collect();
        if !architectures.is_empty() && !architectures.contains(&architecture) {
            let known = architectures.join(", ");
            let reason = format!("{url}: {suite} has no architecture {architecture} (valid: {known})");
            return Err(Error::Refused(reason));
        }
        let mut files = HashMap::new();
        for line in field("SHA256").lines() {
            if let [digest, size, path] = line.split_whitespace().collect::<Vec<_>>()[..]
                && let (Ok(digest), Ok(size)) = (digest.parse(), size.parse())
            {
                files.insert(path.to_owned(), (digest, size));
            }
        }
        Ok(Self {
            source: source.clone(),
            sha256: Sha256Digest::of(&document),
            date: date("Date").unwrap_or_default(),
            files,
            by_hash: field("Acquire-By-Hash") == "yes",
            document,
        })
    }
}

/// `Sat, 11 Jul 2026 10:14:05 UTC`.
fn parse_date(text: &str) -> Option<i64> {
    let text = text.strip_suffix(" UTC").or_else(|| text.strip_suffix(" +0000"))?;
    NaiveDateTime::parse_from_str(text, "%a, %d %b %Y %H:%M:%S").ok().map(|time| time.and_utc().timestamp())
}

/// Fetches the list of one component.
pub(super) async fn list(
    http: &HttpClient,
    release: &Release,
    component: &str,
    architecture: &str,
    cache: &Path,
    progress: &dyn Progress,
) -> Result<List> {
    let base = format!("{}/dists/{}", release.source.url, release.source.suites[0]);
    let plain = format!("{component}/binary-{architecture}/Packages");
    let names = ["xz", "gz"].map(|ending| format!("{plain}.{ending}"));
    let found = names.iter().find_map(|name| Some((name, release.files.get(name)?)));
    let Some((name, (sha256, size))) = found else {
        let mut known: Vec<_> = release.files.keys().filter_map(|file| component_of(file)).collect();
        known.sort_unstable();
        known.dedup();
        let known = known.join(", ");
        return Err(Error::Refused(format!(
            "{base}: no packages of component {component} for {architecture} (components there: {known})"
        )));
    };
    let url = if release.by_hash {
        let directory = name.rsplit_once('/').map_or("", |(directory, _)| directory);
        format!("{base}/{directory}/by-hash/SHA256/{sha256}")
    } else {
        format!("{base}/{name}")
    };
    let file = cache.join(sha256.to_string());
    fetch(http, &url, &file, *size, *sha256, progress).await?;
    let read = move || -> Result<String> {
        let packed = std::fs::File::open(&file).map_err(Error::io(&file))?;
        let mut text = String::new();
        let mut limited = decoder(packed, &Limits::default())?.take(MAX_PACKAGES);
        limited.read_to_string(&mut text).map_err(Error::io(&file))?;
        Ok(text)
    };
    let text = tokio::task::spawn_blocking(read)
        .await
        .map_err(|_| Error::Internal("reading a list of packages panicked".into()))??;
    Ok(List::new(format!("{base}/{plain}"), &text, &release.source.url))
}

fn component_of(file: &str) -> Option<&str> {
    let (component, rest) = file.split_once("/binary-")?;
    rest.contains("/Packages").then_some(component)
}

/// The newest version of every package in `lists`.
pub fn newest(lists: &[List]) -> Packages {
    let mut packages = Packages::new();
    for list in lists {
        for place in places(&list.text) {
            let Some(package) = Package::new(&list.text, place, &list.base) else { continue };
            let newer = packages
                .get(&package.name)
                .is_none_or(|known| version::compare(&package.version, &known.version).is_gt());
            if newer {
                packages.insert(package.name.clone(), Arc::new(package));
            }
        }
    }
    packages
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
        // What is used is what the cache keeps longest.
        let _ = file.set_modified(SystemTime::now());
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

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str) -> Vec<Package> {
        let (index, base): (Arc<str>, Arc<str>) = (text.into(), "http://m.example".into());
        places(text).filter_map(|place| Package::new(&index, place, &base)).collect()
    }

    #[test]
    fn paragraphs_are_found_and_fields_looked_up() {
        let text = "\n\nPackage: a\nVersion: 1\nDepends: b\n more\n\n\nno: package\n\nPackage: b\nVersion: 2";
        let packages = all(text);
        assert_eq!(packages.len(), 2);
        assert_eq!((packages[0].field("Depends"), packages[0].field("Package")), ("b", "a"));
        assert_eq!((packages[1].version.as_str(), packages[1].field("Depends")), ("2", ""));
    }

    #[test]
    fn files_that_lead_elsewhere_are_refused() {
        let digest = Sha256Digest::of(b"");
        for (path, good) in
            [("pool/a.deb", true), ("/etc/a.deb", false), ("pool/../../a.deb", false), ("", false)]
        {
            let text = format!("Package: a\nVersion: 1\nFilename: {path}\nSize: 3\nSHA256: {digest}\n");
            assert_eq!(all(&text)[0].file().is_ok(), good, "{path}");
        }
    }
}
