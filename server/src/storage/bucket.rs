//! A bucket of any S3-compatible store.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, TryStreamExt};
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::client::{ClientOptions, HttpClient, HttpConnector};
use object_store::path::Path as Key;
use object_store::signer::Signer;
use object_store::{
    Error as StoreError, GetOptions, GetRange, MultipartUpload, ObjectStore, ObjectStoreExt, PutMode,
    PutOptions, PutPayload, RetryConfig, UpdateVersion, WriteMultipart,
};
use tokio::io::AsyncReadExt;
use tokio_util::bytes::Bytes;
use url::Url;

use super::{Answer, Condition, Credentials, Pieces, Storage, Stored, Tag};
use crate::{Error, Result};

/// Larger files are sent in parts of this size; a store takes no more than 10,000 of them.
const PART: usize = 8 << 20;
/// Parts of one file under way at once; each is held in memory.
const AT_ONCE: usize = 4;
/// Without an answer, or another byte of it.
const SILENCE: Duration = Duration::from_secs(20);
const CONNECT: Duration = Duration::from_secs(5);
/// A request is tried again for so long at one door.
const RETRY: Duration = Duration::from_secs(8);

/// The bucket, by each of the store's doors.
pub struct Bucket {
    name: String,
    prefix: String,
    doors: Vec<AmazonS3>,
    /// The door that answered last.
    present: AtomicUsize,
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

impl Bucket {
    /// # Errors
    /// [`Error::Storage`] when the credentials cannot be used.
    pub fn new(name: &str, prefix: &str, credentials: &Credentials) -> Result<Self> {
        let own = [None];
        let named: Vec<_> = credentials.endpoints.iter().map(|url| Some(url.as_str())).collect();
        let endpoints = if named.is_empty() { &own[..] } else { &named };
        // Where there is another door, one that does not answer is not waited for.
        let retries = if endpoints.len() > 1 { 1 } else { 5 };
        let doors = endpoints.iter().map(|endpoint| door(name, *endpoint, credentials, retries));
        let doors = doors.collect::<Result<_>>()?;
        Ok(Self { name: name.into(), prefix: prefix.into(), doors, present: AtomicUsize::new(0) })
    }

    fn key(&self, key: &str) -> Key {
        Key::from(format!("{}{key}", self.prefix))
    }

    /// Asks one door after the other until one answers, whatever the answer is.
    async fn ask<T>(
        &self,
        key: &str,
        question: impl Fn(AmazonS3) -> BoxFuture<'static, object_store::Result<T>> + Send + Sync,
    ) -> Result<T, Failed> {
        let first = self.present.load(Ordering::Relaxed);
        let mut last = None;
        for at in (0..self.doors.len()).map(|n| (first + n) % self.doors.len()) {
            match question(self.doors[at].clone()).await {
                Err(error @ StoreError::Generic { .. }) => last = Some(error),
                answer => {
                    self.present.store(at, Ordering::Relaxed);
                    return answer.map_err(|error| self.failed(key, error));
                }
            }
        }
        let none = || StoreError::NotSupported { source: "the store has no door".into() };
        Err(self.failed(key, last.unwrap_or_else(none)))
    }

    fn failed(&self, key: &str, error: StoreError) -> Failed {
        Failed { address: format!("{}{key}", self.base()), error }
    }

    fn base(&self) -> String {
        format!("s3://{}/{}", self.name, self.prefix)
    }
}

/// What the store said, of what.
struct Failed {
    address: String,
    error: StoreError,
}

impl From<Failed> for Error {
    fn from(Failed { address, error }: Failed) -> Self {
        let hint = match &error {
            StoreError::Unauthenticated { .. } | StoreError::PermissionDenied { .. } => {
                "; check the access key and what it may do"
            }
            StoreError::Generic { .. } => "; check the endpoint and that the store runs",
            _ => "",
        };
        let mut chain = vec![error.to_string()];
        let mut cause = std::error::Error::source(&error);
        while let Some(inner) = cause {
            let text = inner.to_string();
            if !chain.iter().any(|outer| outer.contains(&text)) {
                chain.push(text);
            }
            cause = inner.source();
        }
        Self::storage(address, format!("{}{hint}", chain.join(": ")))
    }
}

fn door(
    name: &str,
    endpoint: Option<&str>,
    credentials: &Credentials,
    max_retries: usize,
) -> Result<AmazonS3> {
    let retry = RetryConfig { max_retries, retry_timeout: RETRY, ..RetryConfig::default() };
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(name)
        .with_region(credentials.region.as_deref().unwrap_or("us-east-1"))
        .with_virtual_hosted_style_request(credentials.virtual_hosts)
        .with_retry(retry)
        .with_http_connector(Connector);
    if let Some(endpoint) = endpoint {
        let url: Option<Url> = endpoint.parse().ok();
        let url = url.filter(|url| ["http", "https"].contains(&url.scheme()) && url.host().is_some());
        let url =
            url.ok_or_else(|| Error::storage(endpoint, "the endpoint is no address like https://HOST"))?;
        builder =
            builder.with_endpoint(endpoint.trim_end_matches('/')).with_allow_http(url.scheme() == "http");
    }
    if let (Some(id), Some(secret)) = (&credentials.access_key_id, &credentials.secret_access_key) {
        builder = builder.with_access_key_id(id).with_secret_access_key(secret);
    }
    if let Some(token) = &credentials.session_token {
        builder = builder.with_token(token);
    }
    builder.build().map_err(|error| Error::storage(format!("s3://{name}"), error.to_string()))
}

/// Connections with the TLS of the rest of the program.
#[derive(Debug)]
struct Connector;

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        let client = millstream_client::http::plain(CONNECT, SILENCE);
        let client = client.map_err(|e| StoreError::Generic { store: "S3", source: Box::new(e) })?;
        Ok(HttpClient::new(client))
    }
}

impl Storage for Bucket {
    fn name(&self) -> String {
        self.base().trim_end_matches('/').to_owned()
    }

    fn read<'a>(&'a self, key: &'a str, limit: u64) -> Answer<'a, Option<(Bytes, Tag)>> {
        async move {
            let object = self.key(key);
            let got = self.ask(key, |door| whole(door, object.clone(), limit).boxed()).await;
            match got {
                Err(Failed { error: StoreError::NotFound { .. }, .. }) => Ok(None),
                got => Ok(Some(got?)),
            }
        }
        .boxed()
    }

    fn stream<'a>(&'a self, key: &'a str, part: Range<u64>) -> Answer<'a, Pieces> {
        async move {
            let object = self.key(key);
            let got = self
                .ask(key, |door| {
                    let (object, range) = (object.clone(), Some(GetRange::Bounded(part.clone())));
                    let options = GetOptions { range, ..GetOptions::default() };
                    async move { door.get_opts(&object, options).await }.boxed()
                })
                .await?;
            let address = format!("{}{key}", self.base());
            let named = move |error| Error::from(Failed { address: address.clone(), error });
            Ok(got.into_stream().map_err(named).boxed())
        }
        .boxed()
    }

    fn write<'a>(&'a self, key: &'a str, bytes: Bytes, condition: Condition) -> Answer<'a, bool> {
        async move {
            let object = self.key(key);
            let mode = match condition {
                Condition::Always => PutMode::Overwrite,
                Condition::New => PutMode::Create,
                Condition::Same(Tag(tag)) => {
                    PutMode::Update(UpdateVersion { e_tag: Some(tag), version: None })
                }
            };
            let put = self
                .ask(key, |door| {
                    let options = PutOptions { mode: mode.clone(), ..PutOptions::default() };
                    let (object, payload) = (object.clone(), PutPayload::from_bytes(bytes.clone()));
                    async move { door.put_opts(&object, payload, options).await }.boxed()
                })
                .await;
            match put {
                Err(Failed {
                    error: StoreError::Precondition { .. } | StoreError::AlreadyExists { .. },
                    ..
                }) => Ok(false),
                // What is to be replaced is gone.
                Err(Failed { error: StoreError::NotFound { .. }, .. }) if mode != PutMode::Overwrite => {
                    Ok(false)
                }
                put => put.map(|_| true).map_err(Error::from),
            }
        }
        .boxed()
    }

    fn send<'a>(&'a self, key: &'a str, file: &'a Path) -> Answer<'a, ()> {
        async move {
            let size = tokio::fs::metadata(file).await.map_err(Error::io(file))?.len();
            if size <= PART as u64 {
                let bytes = tokio::fs::read(file).await.map_err(Error::io(file))?;
                self.write(key, bytes.into(), Condition::Always).await?;
                return Ok(());
            }
            let object = self.key(key);
            self.ask(key, |door| in_parts(door, object.clone(), file.to_path_buf()).boxed()).await?;
            Ok(())
        }
        .boxed()
    }

    fn list<'a>(&'a self, prefix: &'a str) -> Answer<'a, Vec<Stored>> {
        async move {
            let below = self.key(prefix);
            let found =
                self.ask(prefix, |door| door.list(Some(&below)).try_collect::<Vec<_>>().boxed()).await?;
            let stored = found.into_iter().filter_map(|meta| {
                let key = meta.location.as_ref().strip_prefix(&self.prefix)?.to_owned();
                Some(Stored { key, size: meta.size, modified: meta.last_modified.into() })
            });
            Ok(stored.collect())
        }
        .boxed()
    }

    fn delete<'a>(&'a self, key: &'a str) -> Answer<'a, ()> {
        async move {
            let object = self.key(key);
            let delete = |door: AmazonS3| {
                let object = object.clone();
                async move { door.delete(&object).await }.boxed()
            };
            match self.ask(key, delete).await {
                Err(Failed { error: StoreError::NotFound { .. }, .. }) => Ok(()),
                done => done.map_err(Error::from),
            }
        }
        .boxed()
    }

    fn link<'a>(&'a self, key: &'a str, valid: Duration) -> Answer<'a, Option<Url>> {
        async move {
            let object = self.key(key);
            let door = &self.doors[self.present.load(Ordering::Relaxed)];
            let url = door.signed_url(reqwest::Method::GET, &object, valid).await;
            Ok(Some(url.map_err(|error| self.failed(key, error))?))
        }
        .boxed()
    }
}

async fn whole(door: AmazonS3, key: Key, limit: u64) -> object_store::Result<(Bytes, Tag)> {
    let got = door.get(&key).await?;
    let tag = Tag(got.meta.e_tag.clone().unwrap_or_default());
    let mut pieces = got.into_stream();
    let mut bytes = Vec::new();
    while let Some(piece) = pieces.try_next().await? {
        bytes.extend_from_slice(&piece);
        if bytes.len() as u64 > limit {
            let source = format!("more than {limit} bytes").into();
            return Err(StoreError::NotSupported { source });
        }
    }
    Ok((bytes.into(), tag))
}

/// Sends a large file; nothing of it stays in the store when that fails, unless nobody can say so.
async fn in_parts(door: AmazonS3, key: Key, file: PathBuf) -> object_store::Result<()> {
    let read = |error| StoreError::NotSupported { source: Box::new(error) };
    let mut input = tokio::fs::File::open(&file).await.map_err(read)?;
    let upload: Box<dyn MultipartUpload> = door.put_multipart(&key).await?;
    let mut upload = WriteMultipart::new_with_chunk_size(upload, PART);
    let mut buffer = vec![0; 1 << 20];
    loop {
        let sent = match input.read(&mut buffer).await {
            Ok(0) => break,
            Ok(count) => upload.wait_for_capacity(AT_ONCE).await.map(|()| upload.write(&buffer[..count])),
            Err(error) => Err(read(error)),
        };
        if let Err(error) = sent {
            let _ = upload.abort().await;
            return Err(error);
        }
    }
    upload.finish().await.map(drop)
}
