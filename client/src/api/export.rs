//! `/1.0/images/FINGERPRINT/export`: a unified image as one file, a split one as `multipart/form-data`,
//! metadata first.
//!
//! The answer has no ranges, so a transfer that breaks off begins anew.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use bytes::Bytes;
use futures_util::stream::{Stream, try_unfold};
use millstream_image::{Fingerprint, Sha256Digest};
use multer::{Field, Multipart};
use sha2::{Digest, Sha256};
use tokio::task::spawn_blocking;

use crate::arriving::{Published, Publisher};
use crate::fetch::{Gathered, Job, check_metadata};
use crate::http::{BackOff, Body, HttpClient};
use crate::import::check::{self, SQUASHFS};
use crate::import::files::settle;
use crate::tree::Tree;
use crate::{Error, Result};

/// What lines of a multipart answer may take besides its files, in bytes.
const ENVELOPE: u64 = 64 << 10;

/// Brings an image's files to `dir`, proved by its fingerprint and bound to its architecture. Whoever
/// unpacks a split image meanwhile reads its root file system.
pub(crate) async fn gather(job: Job<'_>, dir: &Path, publisher: Option<Publisher>) -> Result<Gathered> {
    let Tree::Http { client, base, .. } = job.tree else {
        return Err(Error::Url { url: job.tree.base(), reason: "a directory answers no calls".into() });
    };
    let url = format!("{base}{}", job.image.rootfs.path);
    let name = job.image.fingerprint.short();
    job.progress.begin(&name, Some(job.image.size()));
    let receiving = Receiving { job, name: &name, url: &url, dir, told: 0 };
    let received = receiving.run(client, publisher.as_ref()).await;
    job.progress.end(&name);
    let parts = received?;
    if let Some(publisher) = publisher {
        publisher.right();
    }
    let (dir, arch) = (dir.to_owned(), job.image.product.architecture());
    let check = move || match parts {
        Parts::Unified => {
            let name = settle(&dir.join(UNIFIED), UNIFIED)?;
            let path = dir.join(&name);
            let described = check::image(&path, &path)?;
            if described.architecture != arch {
                let reason = format!("it is for {}, stated is {arch}", described.architecture);
                return Err(Error::mismatch(url, reason));
            }
            Ok((described.properties, (name.clone(), name)))
        }
        Parts::Split => {
            let metadata = settle(&dir.join(METADATA), METADATA)?;
            let rootfs = settle(&dir.join(ROOTFS), ROOTFS)?;
            Ok((check_metadata(&url, &dir.join(&metadata), arch)?, (metadata, rootfs)))
        }
    };
    let (properties, names) = spawn_blocking(check).await.map_err(|e| Error::Setup(e.to_string()))??;
    Ok(Gathered { properties, uncompressed: None, names })
}

const UNIFIED: &str = "unified";
const METADATA: &str = "metadata";
const ROOTFS: &str = "rootfs";

/// What came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Parts {
    Unified,
    Split,
}

struct Receiving<'a> {
    job: Job<'a>,
    name: &'a str,
    url: &'a str,
    dir: &'a Path,
    /// Bytes that were told as progress.
    told: u64,
}

impl Receiving<'_> {
    /// Receives until it is complete and right.
    async fn run(mut self, http: &HttpClient, publisher: Option<&Publisher>) -> Result<Parts> {
        let mut back_off = BackOff::new(http.retry());
        loop {
            match self.attempt(http, publisher).await {
                Err(error) if error.is_passing() => back_off.pause_or(error).await?,
                other => return other,
            }
        }
    }

    async fn attempt(&mut self, http: &HttpClient, publisher: Option<&Publisher>) -> Result<Parts> {
        let (kind, body) = http.open(self.url).await?;
        let size = self.job.image.size();
        let mut hash = Hash { state: Sha256::new(), count: 0, size };
        let parts = if kind.trim_start().to_ascii_lowercase().starts_with("multipart/") {
            let boundary = multer::parse_boundary(&kind).map_err(|e| self.wrong(&e))?;
            let body = chunks(body, self.url.to_owned(), size.saturating_add(ENVELOPE));
            self.split(Multipart::new(body, boundary), publisher, &mut hash).await?;
            Parts::Split
        } else {
            self.unified(body, &mut hash).await?;
            Parts::Unified
        };
        let found = Fingerprint::new(Sha256Digest::from_bytes(hash.state.finalize().into()));
        if found == self.job.image.fingerprint {
            return Ok(parts);
        }
        let expected = self.job.image.fingerprint;
        Err(Error::mismatch(self.url, format!("the image's fingerprint is {found}, stated is {expected}")))
    }

    async fn unified(&mut self, mut body: Body<'_>, hash: &mut Hash) -> Result<()> {
        let path = self.dir.join(UNIFIED);
        let mut out = File::create(&path).map_err(Error::io(&path))?;
        while let Some(chunk) = body.next().await? {
            self.came(hash, &chunk)?;
            out.write_all(&chunk).map_err(Error::io(&path))?;
        }
        if hash.count < hash.size {
            return Err(Error::Network {
                url: self.url.to_owned(),
                reason: "the connection broke off".into(),
            });
        }
        Ok(())
    }

    async fn split(
        &mut self,
        mut parts: Multipart<'_>,
        publisher: Option<&Publisher>,
        hash: &mut Hash,
    ) -> Result<()> {
        for expected in [METADATA, ROOTFS] {
            let field = parts.next_field().await.map_err(|e| self.failed(e))?;
            let mut field =
                field.ok_or_else(|| self.wrong(&format!("the answer has no part \"{expected}\"")))?;
            if field.name() != Some(expected) {
                let found = field.name().unwrap_or_default().escape_debug();
                let reason = format!("its parts are not those of a container's image: \"{found}\" is one");
                return Err(self.wrong(&reason));
            }
            self.part(&mut field, expected, publisher.filter(|_| expected == ROOTFS), hash).await?;
        }
        match parts.next_field().await.map_err(|e| self.failed(e))? {
            None => Ok(()),
            Some(_) => Err(self.wrong("the answer has more parts than metadata and rootfs")),
        }
    }

    async fn part(
        &mut self,
        field: &mut Field<'_>,
        name: &str,
        publisher: Option<&Publisher>,
        hash: &mut Hash,
    ) -> Result<()> {
        let path = self.dir.join(name);
        let file = File::options().create(true).truncate(true).read(true).write(true).open(&path);
        let mut file = Some(file.map_err(Error::io(&path))?);
        let mut out = None;
        while let Some(chunk) = field.chunk().await.map_err(|e| self.failed(e))? {
            self.came(hash, &chunk)?;
            if let Some(file) = file.take() {
                // Nobody unpacks squashfs while it comes.
                let publisher = publisher.filter(|_| !chunk.starts_with(SQUASHFS));
                out = Some(Published::new(file, publisher).map_err(Error::io(&path))?);
            }
            if let Some(out) = &mut out {
                out.write_all(&chunk).map_err(Error::io(&path))?;
            }
        }
        Ok(())
    }

    fn came(&mut self, hash: &mut Hash, chunk: &[u8]) -> Result<()> {
        hash.count += chunk.len() as u64;
        if hash.count > hash.size {
            return Err(self.wrong(&format!("more than the {} bytes stated", hash.size)));
        }
        hash.state.update(chunk);
        // What comes again after a failure is told once.
        if let Some(more) = hash.count.checked_sub(self.told).filter(|more| *more > 0) {
            self.job.progress.advance(self.name, more);
            self.told = hash.count;
        }
        Ok(())
    }

    fn wrong(&self, reason: &(impl ToString + ?Sized)) -> Error {
        Error::mismatch(self.url, reason.to_string())
    }

    /// What the body's reader said, or that the body ended early, or that it is no multipart.
    fn failed(&self, error: multer::Error) -> Error {
        match error {
            multer::Error::StreamReadFailed(cause) => match cause.downcast::<Error>() {
                Ok(own) => *own,
                Err(other) => self.wrong(&other),
            },
            multer::Error::IncompleteStream
            | multer::Error::IncompleteFieldData { .. }
            | multer::Error::IncompleteHeaders => {
                Error::Network { url: self.url.to_owned(), reason: "the connection broke off".into() }
            }
            other => self.wrong(&other),
        }
    }
}

/// Both files' digest and bytes so far.
struct Hash {
    state: Sha256,
    count: u64,
    size: u64,
}

/// A body as a stream that ends with an error at `cap` bytes.
fn chunks(body: Body<'_>, url: String, cap: u64) -> impl Stream<Item = Result<Bytes>> + Send + '_ {
    try_unfold((body, url, cap), |(mut body, url, left)| async move {
        let Some(chunk) = body.next().await? else { return Ok(None) };
        let Some(left) = left.checked_sub(chunk.len() as u64) else {
            return Err(Error::mismatch(url, "more bytes came than the image has"));
        };
        Ok(Some((chunk, (body, url, left))))
    })
}
