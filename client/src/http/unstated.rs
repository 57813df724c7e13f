//! A file whose size nobody states beforehand: bounded by a cap and hashed while it comes.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use millstream_image::Sha256Digest;
use millstream_image::digest::HashingWriter;

use super::body::Body;
use super::{BackOff, HttpClient, shown};
use crate::arriving::{Published, Publisher};
use crate::{Error, Progress, Result};

pub(super) async fn run(
    http: &HttpClient,
    url: &str,
    (dest, publisher): (&Path, Option<&Publisher>),
    cap: u64,
    progress: &dyn Progress,
) -> Result<(Sha256Digest, u64)> {
    let mut back_off = BackOff::new(http.retry);
    loop {
        match attempt(http, url, (dest, publisher), cap, progress).await {
            Err(error) if error.is_passing() => back_off.pause_or(error).await?,
            other => return other,
        }
    }
}

async fn attempt(
    http: &HttpClient,
    url: &str,
    (dest, publisher): (&Path, Option<&Publisher>),
    cap: u64,
    progress: &dyn Progress,
) -> Result<(Sha256Digest, u64)> {
    let response = http.get(url, 0, None).await?;
    let stated = response.content_length();
    let too_long = || Error::mismatch(shown(url), format!("more than the {cap} bytes allowed"));
    if stated.is_some_and(|length| length > cap) {
        return Err(too_long());
    }
    let name = url.rsplit('/').next().unwrap_or(url);
    progress.begin(name, stated);
    let file = File::options().read(true).write(true).create(true).truncate(true).open(dest);
    let file = file.map_err(Error::io(dest))?;
    let published = file.try_clone().and_then(|file| Published::new(file, publisher));
    let mut out = HashingWriter::new(published.map_err(Error::io(dest))?);
    let mut body = Body::new(url, response, http);
    while let Some(chunk) = body.next().await? {
        if out.count() + chunk.len() as u64 > cap {
            return Err(too_long());
        }
        out.write_all(&chunk).map_err(Error::io(dest))?;
        progress.advance(name, chunk.len() as u64);
    }
    progress.end(name);
    let (_, sha256, size) = out.finish();
    if stated.is_some_and(|length| length != size) {
        return Err(Error::Network { url: shown(url), reason: "the connection broke off".into() });
    }
    file.sync_all().map_err(Error::io(dest))?;
    Ok((sha256, size))
}
