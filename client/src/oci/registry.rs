//! Fetching from a registry (OCI Distribution Specification, version 1.1), with a token where
//! one is asked for (Docker's token authentication): anybody's, or that of a login.

use std::collections::BTreeMap;
use std::path::Path;

use millstream_image::oci::{Descriptor, Digest, Document, MAX_SIZE, Manifest, Platform, media_type};
use serde::Deserialize;
use url::Url;

use super::{Image, Reference};
use crate::access::{Credential, is_here};
use crate::http::{Download, HttpClient};
use crate::{Error, Progress, Result};

const ACCEPTED: [&str; 4] =
    [media_type::INDEX, media_type::DOCKER_INDEX, media_type::MANIFEST, media_type::DOCKER_MANIFEST];
/// An index may point at further ones.
const DEPTH: usize = 3;
const MAX_TOKEN: u64 = 1 << 20;

/// Whether a registry answers at a server, if only with "who are you".
pub(crate) async fn answers(http: &HttpClient, server: &Url) -> bool {
    let Ok(url) = server.join("/v2/") else { return false };
    match http.challenge(url.as_str()).await {
        Ok(Some(challenge)) => challenge.starts_with("Bearer") || challenge.starts_with("Basic"),
        // What it is else is asked of trees that answer everything, too.
        Ok(None) => http.document(url.as_str(), MAX_TOKEN).await.is_ok_and(|text| {
            matches!(serde_json::from_slice(&text), Ok(serde_json::Value::Object(fields)) if fields.is_empty())
        }),
        Err(_) => false,
    }
}

/// One image's place in a registry.
#[derive(Debug)]
pub struct Registry<'a> {
    http: HttpClient,
    reference: &'a Reference,
}

/// What a name means now.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// Digest of the manifest.
    pub digest: Digest,
    /// The manifest's bytes.
    pub text: Vec<u8>,
    /// The manifest.
    pub manifest: Manifest,
}

impl<'a> Registry<'a> {
    /// Gets ready to read an image: as whoever has the token or login, else as anybody.
    ///
    /// # Errors
    /// When the registry wants a login, or another.
    pub async fn open(
        plain: &HttpClient,
        reference: &'a Reference,
        own: Option<&Credential>,
    ) -> Result<Self> {
        let ready = |credential: Option<&Credential>| {
            plain.with_credential(&ACCEPTED, credential).map(|http| Self { http, reference })
        };
        if matches!(own, Some(Credential::Bearer(_))) {
            return ready(own);
        }
        let first = format!("{}/manifests/{}", reference.base(), reference.target());
        let challenge = plain.with_credential(&ACCEPTED, None)?.challenge(&first).await?;
        let Some(challenge) = challenge else { return ready(None) };
        if own.is_some() && scheme(&challenge).eq_ignore_ascii_case("basic") {
            return ready(own);
        }
        let asking = plain.with_credential(&[], own)?;
        let token = token(&asking, &first, &challenge, reference.repository()).await?;
        ready(Some(&Credential::Bearer(token)))
    }

    /// The manifest for a platform, verified as far as a digest was given.
    ///
    /// # Errors
    /// Also when there is no image for the platform, or it is no image of a root file system.
    pub async fn resolve(&self, platform: &Platform) -> Result<Resolved> {
        let base = self.reference.base();
        let mut wanted: Option<Descriptor> = None;
        for _ in 0..DEPTH {
            let target =
                wanted.as_ref().map_or_else(|| self.reference.target(), |found| found.digest.to_string());
            let url = format!("{base}/manifests/{target}");
            let text = self.http.document(&url, MAX_SIZE as u64).await.map_err(|error| {
                if error.is_missing() {
                    Error::document(&url, "the registry has no such image; check name and tag")
                } else {
                    error
                }
            })?;
            match (&wanted, self.reference.digest()) {
                (Some(descriptor), _) => descriptor.verify(&text)?,
                (None, Some(digest)) => digest.verify(&url, &text)?,
                (None, None) => {}
            }
            let stated = wanted.as_ref().map(|found| found.media_type.clone());
            match super::parse(stated.as_deref(), &text, &url)? {
                Document::Manifest(manifest) => {
                    super::check(&manifest, &url)?;
                    return Ok(Resolved { digest: Digest::of(&text), text, manifest });
                }
                Document::Index(index) => wanted = Some(super::select(&index, platform, &url)?.clone()),
            }
        }
        Err(Error::document(base, format!("more than {DEPTH} indices lead to the image")))
    }

    /// The image's configuration.
    ///
    /// # Errors
    /// Also when it is not the one that the manifest names.
    pub async fn config(&self, image: &Resolved) -> Result<Vec<u8>> {
        let config = &image.manifest.config;
        let url = format!("{}/blobs/{}", self.reference.base(), config.digest);
        if config.size > MAX_SIZE as u64 {
            let reason = format!("{} bytes are more than the {MAX_SIZE} allowed", config.size);
            return Err(Error::document(url, reason));
        }
        let text = self.http.document(&url, config.size).await?;
        config.verify(&text)?;
        Ok(text)
    }

    /// Configuration and layers; these come into `blobs`, named by SHA-256, where one that is there already
    /// is not fetched again.
    ///
    /// # Errors
    /// Also when something is not what its digest says.
    pub async fn fetch(&self, image: &Resolved, blobs: &Path, progress: &dyn Progress) -> Result<Image> {
        let config = self.config(image).await?;
        let mut layers = Vec::new();
        for layer in &image.manifest.layers {
            let path = blobs.join(layer.digest.0.to_string());
            let url = format!("{}/blobs/{}", self.reference.base(), layer.digest);
            let download = Download { url: &url, dest: &path, size: layer.size, sha256: layer.digest.0 };
            self.http.download(&download, progress).await?;
            layers.push(path);
        }
        Ok(Image { digest: image.digest, config, layers })
    }
}

/// A token, from the server that the challenge names.
async fn token(http: &HttpClient, url: &str, challenge: &str, repository: &str) -> Result<String> {
    #[derive(Deserialize)]
    struct Answer {
        token: Option<String>,
        access_token: Option<String>,
    }
    let refused = |reason: &str| Error::Url {
        url: url.to_owned(),
        reason: format!("the registry wants a login{reason}"),
    };
    let fields =
        bearer(challenge).ok_or_else(|| refused("; type: millstream remote add --login-file FILE"))?;
    let realm = fields.get("realm").map_or("", String::as_str);
    let private = |url: &Url| url.scheme() == "https" || is_here(url);
    if !Url::parse(realm).is_ok_and(|url| private(&url)) {
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

/// How one may log in.
fn scheme(challenge: &str) -> &str {
    challenge.split_whitespace().next().unwrap_or_default()
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
