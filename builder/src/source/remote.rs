//! Documents and files of a mirror, believed as far as checksums and signatures go.

use std::fs;
use std::path::{Path, PathBuf};

use millstream_image::{Sha256Digest, manifest};

use super::layouts::Signed;
use super::trust::Trust;
use super::{Context, sums};
use crate::staging::Staging;
use crate::{Error, Result, minisign, output};

/// The largest listing, list of checksums or pointer that is read.
const MAX_DOCUMENT: u64 = 16 << 20;
/// The largest signature.
const MAX_SIGNATURE: u64 = 1 << 20;
/// The largest archive.
const MAX_ARCHIVE: u64 = 16 << 30;

/// What a fetched file is, and where it lies in the cache.
pub(super) struct Fetched {
    pub(super) path: PathBuf,
    pub(super) source: manifest::Source,
}

/// Fetches from a mirror and checks what comes.
pub(super) struct Remote<'a> {
    pub(super) context: &'a Context<'a>,
    pub(super) trust: &'a Trust,
}

impl Remote<'_> {
    /// A list of checksums, its signature checked when there are keys; `None` when it is not there.
    pub(super) async fn sums(&self, url: &str, signed: Signed) -> Result<Option<String>> {
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
        if matches!(signed, Signed::SumsMinisign(_)) && minisign::is_signature(&data) {
            self.trust.minisign(&signature, text.as_bytes(), &data)?;
            return Ok(Some(text));
        }
        self.trust.detached_bytes(&signature, text.as_bytes(), &data)?;
        Ok(Some(text))
    }

    /// A file whose checksum and signature are right.
    pub(super) async fn checked(
        &self,
        url: &str,
        expected: Option<&sums::Checksum>,
        signed: Signed,
    ) -> Result<Fetched> {
        let fetched = fetch(self.context, url, expected).await?;
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
    pub(super) async fn document(&self, url: &str) -> Result<Option<String>> {
        match self.context.fetcher.http.document(url, MAX_DOCUMENT).await {
            Ok(document) => Ok(Some(String::from_utf8_lossy(&document).into_owned())),
            Err(error) if error.is_missing() => Ok(None),
            Err(error) => Err(error.into()),
        }
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
