//! `https://…`, as LXD's "direct" protocol has it: the address answers with headers that say where the
//! image is and what its SHA-256 is.
//!
//! Source: LXD's documentation, "Image handling", "Custom HTTP server".

use std::path::Path;

use millstream_image::{Architecture, Fingerprint};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use url::Url;

use super::{Incoming, files};
use crate::http::HttpClient;
use crate::store::Locked;
use crate::{Error, Progress, Result};

/// The largest image that is fetched this way, in bytes: nobody has stated its size.
const MAX_IMAGE: u64 = 16 << 30;
/// The longest address believed, in bytes.
const MAX_URL: usize = 4096;
/// Names of headers begin so; the first that is there counts.
const FAMILIES: [&str; 2] = ["lxd", "incus"];

/// Where an image is, as a server says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Direct {
    /// Its address.
    pub url: Url,
    /// SHA-256 of what is there.
    pub fingerprint: Fingerprint,
}

impl Direct {
    /// Reads `LXD-Image-Hash` and `LXD-Image-URL`, or `Incus-Image-…`, from pairs of header names and
    /// values of the answer of `base`. The address may be relative to that, and is HTTPS.
    ///
    /// # Errors
    /// When one is missing, stands there twice, or is no hash or address.
    pub fn parse(base: &Url, headers: &[(&str, &[u8])]) -> Result<Self> {
        let wrong = |reason: String| Error::document(base.to_string(), reason);
        let get = |name: String| -> Result<Option<&str>> {
            let mut values = headers.iter().filter(|(found, _)| found.eq_ignore_ascii_case(&name));
            let Some((_, value)) = values.next() else { return Ok(None) };
            if values.next().is_some() {
                return Err(wrong(format!("the header {name} stands there twice")));
            }
            std::str::from_utf8(value).map(Some).map_err(|_| wrong(format!("the header {name} is no text")))
        };
        for family in FAMILIES {
            match (get(format!("{family}-image-hash"))?, get(format!("{family}-image-url"))?) {
                (None, None) => {}
                (Some(hash), Some(url)) => {
                    let fingerprint =
                        hash.trim().parse().map_err(|e| wrong(format!("{family}-image-hash: {e}")))?;
                    let url =
                        address(base, url.trim()).map_err(|e| wrong(format!("{family}-image-url: {e}")))?;
                    return Ok(Self { url, fingerprint });
                }
                _ => {
                    return Err(wrong(format!(
                        "only one of {family}-image-hash and {family}-image-url is there"
                    )));
                }
            }
        }
        Err(wrong(
            "the server sends no LXD-Image-Hash and LXD-Image-URL; to import a file, download it first"
                .into(),
        ))
    }
}

fn address(base: &Url, text: &str) -> Result<Url, String> {
    if text.len() > MAX_URL {
        return Err(format!("it is longer than {MAX_URL} bytes"));
    }
    let url = base.join(text).map_err(|e| e.to_string())?;
    if url.scheme() == "https" { Ok(url) } else { Err("only https is fetched".into()) }
}

/// Brings the image that `url` speaks of to `dir`.
pub(super) async fn fetch(
    http: &HttpClient,
    url: &str,
    dir: Locked,
    progress: &dyn Progress,
) -> Result<Incoming> {
    let parsed = Url::parse(url).ok().filter(|url| url.scheme() == "https");
    let base = parsed.ok_or_else(|| Error::Url {
        url: url.to_owned(),
        reason: "images are imported over https only".into(),
    })?;
    let (base, headers) = http.head(base.as_str(), &request()?).await?;
    let pairs: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
    let direct = Direct::parse(&base, &pairs)?;
    let path = dir.path().join("unified");
    let (found, _) = http.fetch(direct.url.as_str(), &path, MAX_IMAGE, progress).await?;
    if Fingerprint::new(found) != direct.fingerprint {
        let reason = format!("SHA-256 is {found}, the server stated {}", direct.fingerprint);
        return Err(Error::mismatch(direct.url.to_string(), reason));
    }
    let name = settle(&path)?;
    Ok(Incoming { dir, metadata: name.clone(), rootfs: name })
}

fn settle(path: &Path) -> Result<String> {
    files::settle(path, "unified")
}

/// What a server may choose an image by.
fn request() -> Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    let architecture = Architecture::host();
    for family in FAMILIES {
        let pairs = [("architectures", architecture.kernel()), ("version", env!("CARGO_PKG_VERSION"))];
        for (key, value) in pairs {
            let name = HeaderName::try_from(format!("{family}-server-{key}"))
                .map_err(|e| Error::Setup(e.to_string()))?;
            headers.insert(name, HeaderValue::from_str(value).map_err(|e| Error::Setup(e.to_string()))?);
        }
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn parse(headers: &[(&str, &str)]) -> Result<Direct> {
        let base = "https://a.example/dir/x".parse().unwrap();
        let pairs: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
        Direct::parse(&base, &pairs)
    }

    #[test]
    fn both_families_of_headers_are_read() {
        for family in ["LXD", "Incus"] {
            let (hash, url) = (format!("{family}-Image-Hash"), format!("{family}-Image-URL"));
            let found = parse(&[("Server", "x"), (&hash, HASH), (&url, "https://b.example/y")]).unwrap();
            assert_eq!(found.url.as_str(), "https://b.example/y");
            assert_eq!(found.fingerprint.to_string(), HASH);
            assert_eq!(parse(&[(&hash, HASH), (&url, "y")]).unwrap().url.as_str(), "https://a.example/dir/y");
        }
    }

    #[test]
    fn half_double_and_unsafe_headers_are_refused() {
        let (hash, url) = ("LXD-Image-Hash", "LXD-Image-URL");
        for bad in [
            &[][..],
            &[(hash, HASH)],
            &[(url, "https://b.example/")],
            &[(hash, HASH), (url, "http://b.example/")],
            &[(hash, HASH), (url, "file:///etc/passwd")],
            &[(hash, &HASH[1..]), (url, "https://b.example/")],
            &[(hash, HASH), (hash, HASH), (url, "https://b.example/")],
            &[(hash, HASH), ("Incus-Image-URL", "https://b.example/")],
            &[(hash, HASH), (url, &format!("https://b.example/{}", "a".repeat(MAX_URL)))],
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn nothing_but_https_comes_out(url in ".{0,40}") {
            if let Ok(found) = parse(&[("LXD-Image-Hash", HASH), ("LXD-Image-URL", &url)]) {
                proptest::prop_assert_eq!(found.url.scheme(), "https");
            }
        }
    }
}
