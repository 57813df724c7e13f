//! A file of which nothing is known beforehand: bounded, but neither resumed nor hashed.

use std::io::Write;
use std::path::Path;

use super::body::Body;
use super::{BackOff, HttpClient, shown};
use crate::{Error, Progress, Result};

/// Fetches a file of at most `cap` bytes into `dest`; it appears complete or not at all.
pub(super) async fn run(
    http: &HttpClient,
    (url, cap): (&str, u64),
    dest: &Path,
    progress: &dyn Progress,
) -> Result<()> {
    let name = url.rsplit('/').next().unwrap_or(url);
    let mut back_off = BackOff::new(http.retry);
    loop {
        match attempt(http, (url, name, cap), dest, progress).await {
            Err(error) if error.is_passing() => back_off.pause_or(error).await?,
            other => return other,
        }
    }
}

async fn attempt(
    http: &HttpClient,
    (url, name, cap): (&str, &str, u64),
    dest: &Path,
    progress: &dyn Progress,
) -> Result<()> {
    let response = http.get(url, 0).await?;
    let length = response.content_length();
    let too_long = || Error::mismatch(shown(url), format!("more than the {cap} bytes allowed"));
    if length.is_some_and(|length| length > cap) {
        return Err(too_long());
    }
    progress.begin(name, length);
    let result = async {
        let dir = dest.parent().unwrap_or(Path::new("."));
        let mut temp = tempfile::NamedTempFile::new_in(dir).map_err(Error::io(dir))?;
        let mut body = Body::new(url, response, http.pace);
        let mut came = 0;
        while let Some(chunk) = body.next().await? {
            came += chunk.len() as u64;
            if came > cap {
                return Err(too_long());
            }
            temp.write_all(&chunk).map_err(Error::io(dest))?;
            progress.advance(name, chunk.len() as u64);
        }
        temp.as_file().sync_all().map_err(Error::io(dest))?;
        temp.persist(dest).map_err(|e| Error::io(dest)(e.error))?;
        Ok(())
    };
    let result = result.await;
    progress.end(name);
    result
}
