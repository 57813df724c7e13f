//! Fetching documents and files over HTTP and HTTPS.
//!
//! Every body has a bound in bytes and in time: documents a cap, files their stated size, both a
//! least pace ([`Pace`]), so that neither an endless nor a slow server holds its reader.

mod body;
mod certificate;
mod download;
mod exchange;
mod part;
mod pieces;
mod post;
mod rate;
mod retry;
mod unstated;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use millstream_image::Sha256Digest;
use reqwest::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_RANGE, CONTENT_TYPE, HeaderMap,
    HeaderValue, LOCATION, RANGE, WWW_AUTHENTICATE,
};
use reqwest::{Response, StatusCode, redirect};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use url::Url;

pub(crate) use self::body::Body;
use self::certificate::Pinned;
pub(crate) use self::certificate::offered as offered_certificate;
pub(crate) use self::download::Source;
pub use self::exchange::{Question, Reply};
use self::rate::Rate;
pub use self::retry::{BackOff, Retry};
use crate::access::{Access, Credential, Proxy};
use crate::arriving::Publisher;
use crate::{Error, Progress, Result};

const CONNECT: Duration = Duration::from_secs(15);
const REDIRECTS: usize = 5;

/// The least pace a server must keep: `bytes` within `window` of waiting. Time spent here, on
/// hashing and writing, does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// How long is waited.
    pub window: Duration,
    /// What must have come by then.
    pub bytes: u64,
}

impl Default for Pace {
    /// 4 KiB in 30 seconds.
    fn default() -> Self {
        Self { window: Duration::from_secs(30), bytes: 4 << 10 }
    }
}

/// Settings of a client.
#[derive(Clone, Debug, Default)]
pub struct HttpOptions {
    /// Files of further certificate authorities, PEM, besides the system's.
    pub ca_files: Vec<PathBuf>,
    /// Further certificate authorities as PEM text.
    pub ca_pem: Vec<String>,
    /// The least pace of a server.
    pub pace: Pace,
    /// How often a failing server is asked again.
    pub retry: Retry,
    /// Proxy, client certificate and token.
    pub access: Access,
    /// The most bytes a second that all downloads together take.
    pub rate: Option<u64>,
}

/// Fetches over HTTP and HTTPS. Cheap to clone; clones share connections.
#[derive(Clone, Debug)]
pub struct HttpClient {
    inner: reqwest::Client,
    pace: Pace,
    retry: Retry,
    rate: Option<Arc<Rate>>,
    headers: HeaderMap,
}

/// A file to fetch.
#[derive(Clone, Debug)]
pub struct Download<'a> {
    /// Where from.
    pub url: &'a str,
    /// Where to; appears complete and checked, or not at all.
    pub dest: &'a Path,
    /// Its bytes; not one more is read.
    pub size: u64,
    /// Its SHA-256.
    pub sha256: Sha256Digest,
}

/// As [`Download`], from wherever it is had.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'a> {
    pub(crate) dest: &'a Path,
    pub(crate) size: u64,
    pub(crate) sha256: Sha256Digest,
}

/// Fetches a file from the first of several sources that has it, or from all of them at once; see
/// [`HttpClient::download`]. Whoever reads from `publisher`'s other end reads it while it comes.
pub(crate) async fn download(
    sources: &[Source],
    what: &Wanted<'_>,
    publisher: Option<Publisher>,
    progress: &dyn Progress,
) -> Result<()> {
    sources.iter().try_for_each(|source| check_url(&source.url))?;
    let name = sources.first().map_or("", |first| first.url.rsplit('/').next().unwrap_or(&first.url));
    progress.begin(name, Some(what.size));
    let result = download::run(sources, what, name, publisher, progress).await;
    progress.end(name);
    result
}

/// A client for libraries that bring a protocol of their own: the system's authorities, no redirects, at
/// most so long to connect and without another byte.
///
/// # Errors
/// [`Error::Setup`].
pub fn plain(connect: Duration, silence: Duration) -> Result<reqwest::Client> {
    let setup = |e: &dyn std::fmt::Display| Error::Setup(e.to_string());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| setup(&e))?
        .with_root_certificates(roots(&HttpOptions::default())?)
        .with_no_client_auth();
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .connect_timeout(connect)
        .read_timeout(silence)
        .redirect(redirect::Policy::none())
        .build()
        .map_err(|e| setup(&e))
}

impl HttpClient {
    /// A client that trusts the system's certificate authorities (`SSL_CERT_FILE` is honoured)
    /// and the given ones.
    pub fn new(options: &HttpOptions) -> Result<Self> {
        let pinned = options.access.server_certificate.map(|wanted| Arc::new(Pinned::new(Some(wanted))));
        Self::verifying(options, pinned)
    }

    /// The same; `verifier` takes the place of all authorities.
    fn verifying(options: &HttpOptions, verifier: Option<Arc<Pinned>>) -> Result<Self> {
        let setup = |e: &dyn std::fmt::Display| Error::Setup(e.to_string());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| setup(&e))?;
        let tls = match verifier {
            Some(verifier) => tls.dangerous().with_custom_certificate_verifier(verifier),
            None => tls.with_root_certificates(roots(options)?),
        };
        let tls = match options.access.certificate()? {
            Some((chain, key)) => tls.with_client_auth_cert(chain, key).map_err(|e| setup(&e))?,
            None => tls.with_no_client_auth(),
        };
        let builder = match options.access.proxy()? {
            Proxy::Environment => reqwest::Client::builder(),
            Proxy::Direct => reqwest::Client::builder().no_proxy(),
            Proxy::This(proxy) => reqwest::Client::builder().proxy(*proxy),
        };
        let inner = builder
            .tls_backend_preconfigured(tls)
            .user_agent(concat!("millstream/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT)
            .redirect(redirect::Policy::custom(follow))
            .build()
            .map_err(|e| setup(&e))?;
        let rate = options.rate.map(|rate| Arc::new(Rate::new(rate)));
        Ok(Self { inner, pace: options.pace, retry: options.retry, rate, headers: HeaderMap::new() })
    }

    /// The same client, which accepts these media types and shows a token or login. That goes to the
    /// host that is asked, not to one it redirects to.
    pub fn with_credential(&self, accept: &[&str], credential: Option<&Credential>) -> Result<Self> {
        let value = |text: &str| HeaderValue::from_str(text).map_err(|e| Error::Setup(e.to_string()));
        let mut headers = HeaderMap::new();
        if !accept.is_empty() {
            headers.insert(ACCEPT, value(&accept.join(", "))?);
        }
        if let Some(credential) = credential {
            let mut shown = value(&credential.header())?;
            shown.set_sensitive(true);
            headers.insert(AUTHORIZATION, shown);
        }
        Ok(Self { headers, ..self.clone() })
    }

    /// How a server wants to be asked for `url`: its `WWW-Authenticate` header when it answers 401,
    /// `None` when it gives any other answer.
    pub async fn challenge(&self, url: &str) -> Result<Option<String>> {
        check_url(url)?;
        let request = self.inner.get(url).headers(self.headers.clone()).send();
        let answer = tokio::time::timeout(self.pace.window, request).await;
        let response = answer.map_err(|_| silent(url, self.pace))?.map_err(|e| network(url, &e))?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(None);
        }
        let header = response.headers().get(WWW_AUTHENTICATE).and_then(|value| value.to_str().ok());
        Ok(Some(header.unwrap_or_default().to_owned()))
    }

    /// Asks for the headers of `url` alone, with further headers in the question. Tells also at which
    /// address, after redirections, they were.
    pub(crate) async fn head(&self, url: &str, headers: &HeaderMap) -> Result<(Url, HeaderMap)> {
        check_url(url)?;
        let request = self.inner.head(url).headers(headers.clone()).send();
        let answer = tokio::time::timeout(self.pace.window, request).await;
        let response = answer.map_err(|_| silent(url, self.pace))?.map_err(|e| network(url, &e))?;
        if !response.status().is_success() {
            return Err(Error::Status { url: shown(url), status: response.status().as_u16() });
        }
        Ok((response.url().clone(), response.headers().clone()))
    }

    /// Fetches a document into memory; one larger than `cap` bytes is an error.
    pub async fn document(&self, url: &str, cap: u64) -> Result<Vec<u8>> {
        check_url(url)?;
        let mut back_off = BackOff::new(self.retry);
        loop {
            match self.try_document(url, cap).await {
                Err(error) if error.is_passing() => back_off.pause_or(error).await?,
                other => return other,
            }
        }
    }

    /// Fetches a file and puts it in place once size and hash are right.
    ///
    /// Bytes gather in `DEST.part`, hashed as they come, and survive a failure: the next call
    /// hashes them again and asks only for the rest. Two processes may fetch the same file; the
    /// second waits for the first.
    pub async fn download(&self, what: &Download<'_>, progress: &dyn Progress) -> Result<()> {
        let source = Source { http: self.clone(), url: what.url.to_owned() };
        let wanted = Wanted { dest: what.dest, size: what.size, sha256: what.sha256 };
        download(&[source], &wanted, None, progress).await
    }

    /// Fetches a file of unknown size into `dest`, at most `cap` bytes of it, and tells its hash and
    /// size. The caller judges the hash; until then `dest` is not to be believed.
    pub async fn fetch(
        &self,
        url: &str,
        dest: &Path,
        cap: u64,
        progress: &dyn Progress,
    ) -> Result<(Sha256Digest, u64)> {
        self.fetch_for(url, dest, cap, None, progress).await
    }

    /// The same, for who reads the file meanwhile from the publisher's other end. The caller tells that
    /// its end is the right one.
    pub(crate) async fn fetch_for(
        &self,
        url: &str,
        dest: &Path,
        cap: u64,
        publisher: Option<&Publisher>,
        progress: &dyn Progress,
    ) -> Result<(Sha256Digest, u64)> {
        check_url(url)?;
        unstated::run(self, url, (dest, publisher), cap, progress).await
    }

    /// Asks for what is read while it comes: the type that the server states, and the body.
    pub(crate) async fn open<'a>(&self, url: &'a str) -> Result<(String, Body<'a>)> {
        check_url(url)?;
        let response = self.get(url, 0, None).await?;
        let kind = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let kind = kind.unwrap_or_default().to_owned();
        Ok((kind, Body::new(url, response, self)))
    }

    /// How failures are met.
    pub(crate) fn retry(&self) -> Retry {
        self.retry
    }

    async fn try_document(&self, url: &str, cap: u64) -> Result<Vec<u8>> {
        let response = self.get(url, 0, None).await?;
        let too_long = || Error::mismatch(shown(url), format!("more than the {cap} bytes allowed"));
        if response.content_length().is_some_and(|length| length > cap) {
            return Err(too_long());
        }
        let mut body = Body::new(url, response, self);
        let mut document = Vec::new();
        while let Some(chunk) = body.next().await? {
            if (document.len() + chunk.len()) as u64 > cap {
                return Err(too_long());
            }
            document.extend_from_slice(&chunk);
        }
        Ok(document)
    }

    /// Asks for a URL from byte `from` on, up to but without byte `to`, and checks that the answer's
    /// head fits the question. Who asks for the beginning without an end may get no range.
    async fn get(&self, url: &str, from: u64, to: Option<u64>) -> Result<Response> {
        // A transformed body would have neither the stated size nor ranges that add up.
        let mut request =
            self.inner.get(url).headers(self.headers.clone()).header(ACCEPT_ENCODING, "identity");
        if from > 0 || to.is_some() {
            let last = to.map(|to| (to - 1).to_string()).unwrap_or_default();
            request = request.header(RANGE, format!("bytes={from}-{last}"));
        }
        let answer = tokio::time::timeout(self.pace.window, request.send()).await;
        let response = answer.map_err(|_| silent(url, self.pace))?.map_err(|e| network(url, &e))?;
        let status = response.status();
        // What is no address of HTTP never reaches [`follow`].
        if let Some(to) = response.headers().get(LOCATION).filter(|_| status.is_redirection()) {
            let to = String::from_utf8_lossy(to.as_bytes()).escape_debug().to_string();
            let reason = format!("the server redirects to an unsafe address, {to}");
            return Err(Error::Url { url: shown(url), reason });
        }
        if !status.is_success() {
            return Err(Error::Status { url: shown(url), status: status.as_u16() });
        }
        let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
        if let Some(encoding) = header(CONTENT_ENCODING).filter(|e| !e.eq_ignore_ascii_case("identity")) {
            return Err(Error::mismatch(
                shown(url),
                format!("the server sent it {encoding}-encoded, unasked"),
            ));
        }
        let range = header(CONTENT_RANGE);
        if status == StatusCode::PARTIAL_CONTENT
            && !range.is_some_and(|range| range.starts_with(&format!("bytes {from}-")))
        {
            return Err(Error::mismatch(shown(url), "the server sent another range than asked"));
        }
        Ok(response)
    }
}

fn roots(options: &HttpOptions) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    for file in &options.ca_files {
        let pem = std::fs::read(file).map_err(Error::io(file))?;
        add_pem(&mut roots, &pem, &file.display().to_string())?;
    }
    for pem in &options.ca_pem {
        add_pem(&mut roots, pem.as_bytes(), "certificate authority")?;
    }
    Ok(roots)
}

fn add_pem(roots: &mut RootCertStore, pem: &[u8], source: &str) -> Result<()> {
    let bad = |e: &dyn std::fmt::Display| Error::Setup(format!("{source}: {e}"));
    let mut count = 0;
    for cert in CertificateDer::pem_slice_iter(pem) {
        roots.add(cert.map_err(|e| bad(&e))?).map_err(|e| bad(&e))?;
        count += 1;
    }
    if count == 0 { Err(bad(&"no PEM certificate in it")) } else { Ok(()) }
}

/// Checks that text holds certificates of authorities in PEM.
pub(crate) fn check_ca(pem: &str, source: &str) -> Result<()> {
    add_pem(&mut RootCertStore::empty(), pem.as_bytes(), source)
}

/// HTTPS is never left for HTTP, and nothing but these two is followed.
fn follow(attempt: redirect::Attempt<'_>) -> redirect::Action {
    let downgrade = attempt.previous().last().is_some_and(|url| url.scheme() == "https")
        && attempt.url().scheme() != "https";
    if downgrade || !matches!(attempt.url().scheme(), "http" | "https") {
        return attempt.error("the server redirects to an unsafe address");
    }
    if attempt.previous().len() > REDIRECTS { attempt.error("too many redirects") } else { attempt.follow() }
}

fn check_url(url: &str) -> Result<()> {
    let bad = |reason: String| Error::Url { url: shown(url), reason };
    let parsed = Url::parse(url).map_err(|e| bad(e.to_string()))?;
    match parsed.scheme() {
        "http" | "https" => Ok(()),
        other => Err(bad(format!("{other}: is not fetched; use http or https"))),
    }
}

/// A URL without user name and password.
pub(crate) fn shown(url: &str) -> String {
    let Ok(mut parsed) = Url::parse(url) else { return url.to_owned() };
    let _ = parsed.set_username("");
    let _ = parsed.set_password(None);
    parsed.to_string()
}

fn network(url: &str, error: &reqwest::Error) -> Error {
    let mut cause: &(dyn std::error::Error + 'static) = error;
    loop {
        if let Some(reason) = certificate::refusal(cause) {
            return Error::Certificate { url: shown(url), reason };
        }
        match cause.source() {
            Some(inner) => cause = inner,
            None => return Error::Network { url: shown(url), reason: cause.to_string() },
        }
    }
}

fn silent(url: &str, pace: Pace) -> Error {
    let reason = format!("fewer than {} bytes came within {} s", pace.bytes, pace.window.as_secs_f32());
    Error::Network { url: shown(url), reason }
}
