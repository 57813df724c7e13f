//! One file: resumed, bounded, hashed while it comes, written beside the network's work.

use std::fs::File;
use std::path::Path;

use bytes::Bytes;
use millstream_image::Sha256Digest;
use reqwest::StatusCode;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use super::body::Body;
use super::part::Part;
use super::{BackOff, Download, HttpClient, shown};
use crate::{Error, Progress, Result};

/// A try that brought this much counts as progress: the next failure is the first again.
const PROGRESS: u64 = 32 << 10;
/// Chunks that may wait for the disk.
const QUEUE: usize = 64;

pub(super) async fn run(
    http: &HttpClient,
    what: &Download<'_>,
    name: &str,
    progress: &dyn Progress,
) -> Result<()> {
    let mut meter = Meter { name, progress, told: 0 };
    let part = Part::lock(what.dest).await?;
    let (dest, size, sha256) = (what.dest.to_owned(), what.size, what.sha256);
    // Another process may have finished it while this one waited for the lock.
    if blocking(move || Ok(is_there(&dest, size, sha256))).await? {
        part.remove();
        meter.at(size);
        return Ok(());
    }
    let mut part = blocking(move || part.rehash(size)).await?;
    let mut inherited = part.have() > 0;
    let mut back_off = BackOff::new(http.retry);
    loop {
        let before = part.have();
        meter.at(before);
        let result;
        (part, result) = fill(http, what, part, &mut meter).await?;
        match result {
            Ok(()) if part.digest() == sha256 => break,
            // The bytes of an earlier run were damaged: once more, from the beginning.
            Ok(()) if inherited => {
                inherited = false;
                part.restart()?;
            }
            Ok(()) => {
                part.remove();
                let reason = format!("SHA-256 is {}, expected {sha256}", part.digest());
                return Err(Error::mismatch(shown(what.url), reason));
            }
            Err(error) if error.is_passing() => {
                if part.have() >= before + PROGRESS {
                    back_off = BackOff::new(http.retry);
                }
                back_off.pause_or(error).await?;
            }
            // There is no such range: the file there is shorter than what lies here.
            Err(Error::Status { status: 416, .. }) if part.have() > 0 => part.restart()?,
            Err(error) => {
                if matches!(error, Error::Mismatch { .. }) {
                    part.remove();
                }
                return Err(error);
            }
        }
    }
    let dest = what.dest.to_owned();
    blocking(move || part.finish(&dest)).await
}

/// Fetches what is missing. The part comes back whether that went well or not; the outer error is
/// for a program that is being shut down.
async fn fill(
    http: &HttpClient,
    what: &Download<'_>,
    mut part: Part,
    meter: &mut Meter<'_>,
) -> Result<(Part, Result<()>)> {
    if part.have() == what.size && what.size > 0 {
        return Ok((part, Ok(())));
    }
    let response = match http.get(what.url, part.have()).await {
        Ok(response) => response,
        Err(error) => return Ok((part, Err(error))),
    };
    if part.have() > 0 && response.status() != StatusCode::PARTIAL_CONTENT {
        part.restart()?;
    }
    let missing = what.size - part.have();
    if let Some(length) = response.content_length().filter(|length| *length != missing) {
        let reason = format!("the server's file is {} bytes, stated are {}", part.have() + length, what.size);
        return Ok((part, Err(Error::mismatch(shown(what.url), reason))));
    }
    let (to_disk, mut chunks) = mpsc::channel::<Bytes>(QUEUE);
    let from = part.have();
    let writer = spawn_blocking(move || {
        let mut result = Ok(());
        while let Some(chunk) = chunks.blocking_recv() {
            result = part.append(&chunk);
            if result.is_err() {
                break;
            }
        }
        (part, result)
    });
    let received = receive(Body::new(what.url, response, http), what, from, to_disk, meter).await;
    let (part, written) = writer.await.map_err(stopped)?;
    Ok((part, written.and(received)))
}

/// Passes a body on, up to the stated size and not one byte further. Dropping `to_disk` at its end
/// lets the writer finish.
async fn receive(
    mut body: Body<'_>,
    what: &Download<'_>,
    mut at: u64,
    to_disk: mpsc::Sender<Bytes>,
    meter: &mut Meter<'_>,
) -> Result<()> {
    while let Some(chunk) = body.next().await? {
        at += chunk.len() as u64;
        if at > what.size {
            let reason = format!("more than the {} bytes stated", what.size);
            return Err(Error::mismatch(shown(what.url), reason));
        }
        if to_disk.send(chunk).await.is_err() {
            return Ok(()); // The writer has stopped and says why.
        }
        meter.at(at);
    }
    if at < what.size {
        return Err(Error::Network { url: shown(what.url), reason: "the connection broke off".into() });
    }
    Ok(())
}

/// Tells a position once, however often a resumed download passes it.
struct Meter<'a> {
    name: &'a str,
    progress: &'a dyn Progress,
    told: u64,
}

impl Meter<'_> {
    fn at(&mut self, position: u64) {
        if let Some(more) = position.checked_sub(self.told).filter(|more| *more > 0) {
            self.progress.advance(self.name, more);
            self.told = position;
        }
    }
}

fn is_there(dest: &Path, size: u64, sha256: Sha256Digest) -> bool {
    let Ok(file) = File::open(dest) else { return false };
    file.metadata().is_ok_and(|meta| meta.len() == size)
        && Sha256Digest::of_reader(file).is_ok_and(|(found, _)| found == sha256)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    spawn_blocking(work).await.map_err(stopped)?
}

#[expect(clippy::needless_pass_by_value, reason = "the shape map_err wants")]
fn stopped(error: tokio::task::JoinError) -> Error {
    Error::Setup(format!("a download was stopped: {error}"))
}
