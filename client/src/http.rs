//! Fetching documents and files.

use std::io::SeekFrom;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use millstream_image::Sha256Digest;
use reqwest::header::{CONTENT_RANGE, RANGE};
use reqwest::{Response, StatusCode, redirect};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use sha2::{Digest, Sha256};
use tokio::fs::{self, OpenOptions};
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};
use url::Url;

use crate::{Error, Progress, Result};

/// A read that brings no byte for this long has failed.
const STALL: Duration = Duration::from_secs(30);
const CONNECT: Duration = Duration::from_secs(15);
const TRIES: u32 = 4;

/// Settings of a client.
#[derive(Clone, Debug, Default)]
pub struct HttpOptions {
    /// Files of further certificate authorities, PEM, besides the system's.
    pub ca_files: Vec<PathBuf>,
}

/// Fetches over HTTP and HTTPS. Cheap to clone; clones share connections.
#[derive(Clone, Debug)]
pub struct HttpClient {
    inner: reqwest::Client,
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

impl HttpClient {
    /// A client that trusts the system's certificate authorities (`SSL_CERT_FILE` is honoured)
    /// and the given ones.
    pub fn new(options: &HttpOptions) -> Result<Self> {
        let setup = |e: &dyn std::fmt::Display| Error::Setup(e.to_string());
        let mut roots = rustls::RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        for file in &options.ca_files {
            let named = |e: &dyn std::fmt::Display| Error::Setup(format!("{}: {e}", file.display()));
            for cert in CertificateDer::pem_file_iter(file).map_err(|e| named(&e))? {
                roots.add(cert.map_err(|e| named(&e))?).map_err(|e| named(&e))?;
            }
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| setup(&e))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let inner = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .user_agent(concat!("millstream/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT)
            .read_timeout(STALL)
            .redirect(redirect::Policy::custom(follow))
            .build()
            .map_err(|e| setup(&e))?;
        Ok(Self { inner })
    }

    /// Fetches a document into memory; one larger than `cap` bytes is an error.
    pub async fn document(&self, url: &str, cap: u64) -> Result<Vec<u8>> {
        check_url(url)?;
        retry(|| self.try_document(url, cap)).await
    }

    /// Fetches a file, resuming what an earlier try left, and puts it in place once size and hash
    /// are right.
    pub async fn download(&self, what: &Download<'_>, progress: &dyn Progress) -> Result<()> {
        check_url(what.url)?;
        let name = what.url.rsplit('/').next().unwrap_or(what.url);
        progress.begin(name, Some(what.size));
        let result = retry(|| self.try_download(what, name, progress)).await;
        progress.end(name);
        result
    }

    async fn try_document(&self, url: &str, cap: u64) -> Result<Vec<u8>> {
        let response = self.get(url, 0).await?;
        let mut stream = response.bytes_stream();
        let mut document = Vec::new();
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(|e| network(url, &e))?;
            if (document.len() + chunk.len()) as u64 > cap {
                let reason = format!("more than the {cap} bytes allowed");
                return Err(Error::Mismatch { url: url.into(), reason });
            }
            document.extend_from_slice(&chunk);
        }
        Ok(document)
    }

    async fn try_download(&self, what: &Download<'_>, name: &str, progress: &dyn Progress) -> Result<()> {
        let part = part_of(what.dest);
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&part)
            .await
            .map_err(Error::io(&part))?;
        // What an earlier try left is hashed again, never trusted.
        let (mut state, mut have) = hash_file(&mut file, what.size).await.map_err(Error::io(&part))?;
        if have < what.size || what.size == 0 {
            let response = self.get(what.url, have).await?;
            if have > 0 && response.status() != StatusCode::PARTIAL_CONTENT {
                (state, have) = (Sha256::new(), 0);
            }
            file.seek(SeekFrom::Start(have)).await.map_err(Error::io(&part))?;
            file.set_len(have).await.map_err(Error::io(&part))?;
            progress.advance(name, have);
            let mut stream = response.bytes_stream();
            while let Some(chunk) = stream.next().await {
                let chunk = chunk.map_err(|e| network(what.url, &e))?;
                have += chunk.len() as u64;
                if have > what.size {
                    drop(fs::remove_file(&part).await);
                    let reason = format!("more than the {} bytes stated", what.size);
                    return Err(Error::Mismatch { url: what.url.into(), reason });
                }
                state.update(&chunk);
                file.write_all(&chunk).await.map_err(Error::io(&part))?;
                progress.advance(name, chunk.len() as u64);
            }
            file.sync_all().await.map_err(Error::io(&part))?;
        }
        if have < what.size {
            return Err(Error::Network { url: what.url.into(), reason: "the connection broke off".into() });
        }
        let found = Sha256Digest::from(state);
        if found != what.sha256 {
            drop(fs::remove_file(&part).await);
            let reason = format!("SHA-256 is {found}, expected {}", what.sha256);
            return Err(Error::Mismatch { url: what.url.into(), reason });
        }
        fs::rename(&part, what.dest).await.map_err(Error::io(what.dest))
    }

    async fn get(&self, url: &str, from: u64) -> Result<Response> {
        let mut request = self.inner.get(url);
        if from > 0 {
            request = request.header(RANGE, format!("bytes={from}-"));
        }
        let response = request.send().await.map_err(|e| network(url, &e))?;
        let status = response.status();
        if !status.is_success() {
            return Err(Error::Status { url: shown(url), status: status.as_u16() });
        }
        let partial = status == StatusCode::PARTIAL_CONTENT;
        let range = response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
        if partial && !range.is_some_and(|range| range.starts_with(&format!("bytes {from}-"))) {
            let reason = "the server sent another range than asked".into();
            return Err(Error::Mismatch { url: shown(url), reason });
        }
        Ok(response)
    }
}

/// Where an unfinished download waits.
fn part_of(dest: &Path) -> PathBuf {
    let mut name = dest.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    dest.with_file_name(name)
}

async fn hash_file(file: &mut fs::File, limit: u64) -> std::io::Result<(Sha256, u64)> {
    let mut state = Sha256::new();
    let mut have = 0;
    let mut buffer = vec![0; 256 << 10];
    loop {
        match file.read(&mut buffer).await? {
            0 => return Ok((state, have)),
            count => {
                state.update(&buffer[..count]);
                have += count as u64;
            }
        }
        if have > limit {
            file.set_len(0).await?;
            return Ok((Sha256::new(), 0));
        }
    }
}

async fn retry<T, F: Future<Output = Result<T>>>(mut attempt: impl FnMut() -> F) -> Result<T> {
    let mut pause = Duration::from_millis(300);
    for _ in 1..TRIES {
        match attempt().await {
            Err(error) if error.is_passing() => tokio::time::sleep(pause).await,
            other => return other,
        }
        pause *= 3;
    }
    attempt().await
}

/// HTTPS is never left for HTTP, and nothing but these two is followed.
fn follow(attempt: redirect::Attempt<'_>) -> redirect::Action {
    let downgrade = attempt.previous().last().is_some_and(|url| url.scheme() == "https")
        && attempt.url().scheme() != "https";
    if downgrade || !matches!(attempt.url().scheme(), "http" | "https") {
        return attempt.error("the server redirects to an unsafe address");
    }
    if attempt.previous().len() > 5 { attempt.error("too many redirects") } else { attempt.follow() }
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
fn shown(url: &str) -> String {
    let Ok(mut parsed) = Url::parse(url) else { return url.to_owned() };
    let _ = parsed.set_username("");
    let _ = parsed.set_password(None);
    parsed.to_string()
}

fn network(url: &str, error: &reqwest::Error) -> Error {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    Error::Network { url: shown(url), reason: cause.to_string() }
}
