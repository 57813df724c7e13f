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
use super::{BackOff, HttpClient, Wanted, pieces, shown};
use crate::arriving::Publisher;
use crate::{Error, Progress, Result};

/// A try that brought this much counts as progress: the next failure is the first again.
const PROGRESS: u64 = 32 << 10;
/// From so many missing bytes on, several sources are asked at once.
const TOGETHER: u64 = 4 << 20;
/// Chunks that may wait for the disk.
const QUEUE: usize = 64;

/// Where a file may be fetched from.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) http: HttpClient,
    pub(crate) url: String,
}

/// Fetches from the first source that has the file; large files from all of them at once. One that
/// fails gives way to the next; one that lies is asked no more, and nothing of it is kept.
pub(super) async fn run(
    sources: &[Source],
    what: &Wanted<'_>,
    name: &str,
    publisher: Option<Publisher>,
    progress: &dyn Progress,
) -> Result<()> {
    let mut meter = Meter { name, progress, told: 0 };
    let mut part = Part::lock(what.dest).await?;
    let (dest, size, sha256) = (what.dest.to_owned(), what.size, what.sha256);
    // Another process may have finished it while this one waited for the lock.
    if blocking(move || Ok(is_there(&dest, size, sha256))).await? {
        part.remove();
        if let Some(publisher) = publisher {
            publisher.begin(File::open(what.dest).map_err(Error::io(what.dest))?);
            publisher.have(size);
            publisher.right();
        }
        meter.at(size);
        return Ok(());
    }
    if let Some(publisher) = publisher {
        part.publish(publisher)?;
    }
    let mut part = blocking(move || part.rehash(size)).await?;
    let mut inherited = part.have() > 0;
    let mut choice = Choice::new(sources)?;
    loop {
        let before = part.have();
        meter.at(before);
        let result;
        (part, result) = if choice.together(size - before) {
            pieces::fill(&choice.sources, what, part, &mut meter).await?
        } else {
            fill(choice.source(), what, part, &mut meter).await?
        };
        match result {
            Ok(()) if part.digest() == sha256 => break,
            // The bytes of an earlier run were damaged: once more, from the beginning.
            Ok(()) if inherited => {
                inherited = false;
                part.restart()?;
            }
            Ok(()) => {
                let reason = format!("SHA-256 is {}, expected {sha256}", part.digest());
                let error = Error::mismatch(shown(&choice.source().url), reason);
                choice.drop_liar(error, &mut part)?;
            }
            Err(error) if error.is_passing() => {
                choice.next_or_pause(error, part.have() >= before + PROGRESS).await?;
            }
            // There is no such range: the file there is shorter than what lies here.
            Err(Error::Status { status: 416, .. }) if part.have() > 0 => part.restart()?,
            Err(error) => choice.drop_liar(error, &mut part)?,
        }
    }
    blocking(move || part.sync()).await?.finish(what.dest)
}

/// Which source is asked next.
struct Choice {
    sources: Vec<Source>,
    at: usize,
    /// Whether all may be asked at once.
    together: bool,
    back_off: BackOff,
}

impl Choice {
    fn new(sources: &[Source]) -> Result<Self> {
        let first = sources.first().ok_or_else(|| Error::Setup("there is no server to ask".into()))?;
        let back_off = BackOff::new(first.http.retry);
        Ok(Self { sources: sources.to_vec(), at: 0, together: sources.len() > 1, back_off })
    }

    fn source(&self) -> &Source {
        &self.sources[self.at]
    }

    fn together(&self, missing: u64) -> bool {
        self.together && self.sources.len() > 1 && missing >= TOGETHER
    }

    /// After a failure that may pass: the next source, and a pause when all have had their turn.
    async fn next_or_pause(&mut self, error: Error, progressed: bool) -> Result<()> {
        self.together = false;
        if progressed {
            self.back_off = BackOff::new(self.source().http.retry);
        }
        self.at = (self.at + 1) % self.sources.len();
        if self.at > 0 { Ok(()) } else { self.back_off.pause_or(error).await }
    }

    /// After what no second try mends: nothing of this source is kept. An error when it was the last.
    fn drop_liar(&mut self, error: Error, part: &mut Part) -> Result<()> {
        // Of several at once nobody knows which it was: then one after the other.
        if !std::mem::take(&mut self.together) {
            self.sources.remove(self.at);
        }
        if self.sources.is_empty() {
            if matches!(error, Error::Mismatch { .. }) {
                part.remove();
            }
            return Err(error);
        }
        self.at %= self.sources.len();
        if matches!(error, Error::Mismatch { .. }) { part.restart() } else { Ok(()) }
    }
}

/// Fetches what is missing. The part comes back whether that went well or not; the outer error is
/// for a program that is being shut down.
async fn fill(
    source: &Source,
    what: &Wanted<'_>,
    mut part: Part,
    meter: &mut Meter<'_>,
) -> Result<(Part, Result<()>)> {
    if part.have() == what.size && what.size > 0 {
        return Ok((part, Ok(())));
    }
    let (http, url) = (&source.http, source.url.as_str());
    let response = match http.get(url, part.have(), None).await {
        Ok(response) => response,
        Err(error) => return Ok((part, Err(error))),
    };
    if part.have() > 0 && response.status() != StatusCode::PARTIAL_CONTENT {
        part.restart()?;
    }
    let missing = what.size - part.have();
    if let Some(length) = response.content_length().filter(|length| *length != missing) {
        let reason = format!("the server's file is {} bytes, stated are {}", part.have() + length, what.size);
        return Ok((part, Err(Error::mismatch(shown(url), reason))));
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
    let received = receive(Body::new(url, response, http), url, what.size, from, to_disk, meter).await;
    let (part, written) = writer.await.map_err(stopped)?;
    Ok((part, written.and(received)))
}

/// Passes a body on, up to the stated size and not one byte further. Dropping `to_disk` at its end
/// lets the writer finish.
async fn receive(
    mut body: Body<'_>,
    url: &str,
    size: u64,
    mut at: u64,
    to_disk: mpsc::Sender<Bytes>,
    meter: &mut Meter<'_>,
) -> Result<()> {
    while let Some(chunk) = body.next().await? {
        at += chunk.len() as u64;
        if at > size {
            return Err(Error::mismatch(shown(url), format!("more than the {size} bytes stated")));
        }
        if to_disk.send(chunk).await.is_err() {
            return Ok(()); // The writer has stopped and says why.
        }
        meter.at(at);
    }
    if at < size {
        return Err(Error::Network { url: shown(url), reason: "the connection broke off".into() });
    }
    Ok(())
}

/// Tells a position once, however often a resumed download passes it.
pub(super) struct Meter<'a> {
    name: &'a str,
    progress: &'a dyn Progress,
    told: u64,
}

impl Meter<'_> {
    pub(super) fn at(&mut self, position: u64) {
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

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    spawn_blocking(work).await.map_err(stopped)?
}

#[expect(clippy::needless_pass_by_value, reason = "the shape map_err wants")]
fn stopped(error: tokio::task::JoinError) -> Error {
    Error::Setup(format!("a download was stopped: {error}"))
}
