//! Fetching from a registry (OCI Distribution Specification, version 1.1), with an anonymous token
//! where one is asked for (Docker's token authentication).

use std::collections::BTreeMap;

use millstream_client::{Download, HttpClient};
use millstream_image::oci::{Descriptor, Digest, Document, MAX_SIZE, Manifest, Platform, media_type};
use serde::Deserialize;

use super::Image;
use super::reference::Remote;
use crate::source::Context;
use crate::source::trust::is_private;
use crate::{Error, Result};

const ACCEPTED: [&str; 4] =
    [media_type::INDEX, media_type::DOCKER_INDEX, media_type::MANIFEST, media_type::DOCKER_MANIFEST];
/// An index may point at further ones.
const DEPTH: usize = 3;
const MAX_TOKEN: u64 = 1 << 20;

/// Fetches an image's manifest, configuration and layers; the layers lie in the cache.
pub(super) async fn fetch(context: &Context<'_>, remote: &Remote, platform: &Platform) -> Result<Image> {
    let base = remote.base();
    let first = format!("{base}/manifests/{}", remote.target());
    let plain = context.fetcher.http;
    let token = match plain.with_bearer(&ACCEPTED, None)?.challenge(&first).await? {
        Some(challenge) => Some(token(plain, &first, &challenge, &remote.repository).await?),
        None => None,
    };
    let http = plain.with_bearer(&ACCEPTED, token.as_deref())?;
    let (digest, manifest) = manifest(&http, &base, remote, platform).await?;
    super::check(&manifest)?;
    let url = format!("{base}/blobs/{}", manifest.config.digest);
    let config = document(&http, &url, manifest.config.size).await?;
    manifest.config.verify(&config)?;
    let mut layers = Vec::new();
    for layer in &manifest.layers {
        let path = context.fetcher.cache.join(layer.digest.0.to_string());
        let url = format!("{base}/blobs/{}", layer.digest);
        let download = Download { url: &url, dest: &path, size: layer.size, sha256: layer.digest.0 };
        http.download(&download, context.fetcher.progress).await?;
        layers.push(path);
    }
    Ok(Image { digest, config, layers })
}

async fn manifest(
    http: &HttpClient,
    base: &str,
    remote: &Remote,
    platform: &Platform,
) -> Result<(Digest, Manifest)> {
    let mut wanted: Option<Descriptor> = None;
    for _ in 0..DEPTH {
        let target = wanted.as_ref().map_or_else(|| remote.target(), |found| found.digest.to_string());
        let url = format!("{base}/manifests/{target}");
        let text = http.document(&url, MAX_SIZE as u64).await.map_err(|error| {
            if error.is_missing() {
                Error::Refused(format!("{url}: the registry has no such image; check name and tag"))
            } else {
                error.into()
            }
        })?;
        match &wanted {
            Some(descriptor) => descriptor.verify(&text)?,
            None => {
                if let Some(digest) = remote.digest {
                    digest.verify(&url, &text)?;
                }
            }
        }
        let stated = wanted.as_ref().map(|found| found.media_type.clone());
        match parse(stated.as_deref(), &text)? {
            Document::Manifest(manifest) => return Ok((Digest::of(&text), manifest)),
            Document::Index(index) => wanted = Some(super::select(&index, platform, &url)?.clone()),
        }
    }
    Err(Error::Refused(format!("{base}: more than {DEPTH} indices lead to the image")))
}

/// Reads an index or manifest. Without a stated type it says itself what it is; old ones do not, and
/// are told by what they have.
pub(super) fn parse(stated: Option<&str>, text: &[u8]) -> Result<Document> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Head {
        media_type: Option<String>,
        manifests: Option<serde::de::IgnoredAny>,
    }
    let own = |head: Head| {
        let told = if head.manifests.is_some() { media_type::INDEX } else { media_type::MANIFEST };
        head.media_type.unwrap_or_else(|| told.to_owned())
    };
    let kind = match stated {
        Some(stated) => stated.to_owned(),
        None => serde_json::from_slice(text).map(own).map_err(|error| {
            Error::Refused(format!("the registry's answer is no image manifest: {error}"))
        })?,
    };
    Ok(Document::parse(&kind, text)?)
}

async fn document(http: &HttpClient, url: &str, size: u64) -> Result<Vec<u8>> {
    if size > MAX_SIZE as u64 {
        return Err(Error::Refused(format!("{url}: {size} bytes are more than the {MAX_SIZE} allowed")));
    }
    Ok(http.document(url, size).await?)
}

/// An anonymous token, from the server that the challenge names.
async fn token(http: &HttpClient, url: &str, challenge: &str, repository: &str) -> Result<String> {
    #[derive(Deserialize)]
    struct Answer {
        token: Option<String>,
        access_token: Option<String>,
    }
    let refused = |reason: &str| Error::Refused(format!("{url}: the registry wants a login{reason}"));
    let fields = bearer(challenge).ok_or_else(|| refused("; only images anybody may pull are fetched"))?;
    let realm = fields.get("realm").map_or("", String::as_str);
    if !is_private(realm) {
        return Err(refused(" over an unprotected connection"));
    }
    let scope = format!("repository:{repository}:pull");
    let mut query = format!("scope={}", escape(&scope));
    if let Some(service) = fields.get("service") {
        query = format!("service={}&{query}", escape(service));
    }
    let separator = if realm.contains('?') { '&' } else { '?' };
    let answer = http.document(&format!("{realm}{separator}{query}"), MAX_TOKEN).await?;
    let answer: Answer = serde_json::from_slice(&answer).map_err(|_| refused(", and its token is none"))?;
    answer.token.or(answer.access_token).ok_or_else(|| refused(", and gives no token"))
}

/// The fields of `Bearer realm="…",service="…"` (RFC 9110, section 11.6.1).
fn bearer(challenge: &str) -> Option<BTreeMap<String, String>> {
    let (scheme, rest) = challenge.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let mut fields = BTreeMap::new();
    let mut rest = rest.trim();
    while let Some((name, value)) = rest.split_once('=') {
        let (value, after) = match value.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => value.split_once(',').unwrap_or((value, "")),
        };
        fields.insert(name.trim().trim_start_matches(',').trim().to_ascii_lowercase(), value.to_owned());
        rest = after.trim_start_matches([',', ' ']);
    }
    Some(fields)
}

fn escape(text: &str) -> String {
    let keep = |b: u8| b.is_ascii_alphanumeric() || b"-._~/:".contains(&b);
    text.bytes().map(|b| if keep(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read() {
        let fields = bearer(r#"Bearer realm="https://a.example/token",service="r, x" , scope=s"#).unwrap();
        assert_eq!(fields["realm"], "https://a.example/token");
        assert_eq!((fields["service"].as_str(), fields["scope"].as_str()), ("r, x", "s"));
        assert!(bearer("Basic realm=\"x\"").is_none());
        assert!(bearer("Bearer realm=\"x").is_none());
        assert_eq!(escape("a b&c"), "a%20b%26c");
    }
}
