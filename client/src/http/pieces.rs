//! One file from several servers at once, in pieces that are written in order.

use std::collections::BTreeMap;

use reqwest::StatusCode;
use tokio::task::JoinSet;

use super::body::Body;
use super::download::{Meter, Source, blocking};
use super::part::Part;
use super::{Wanted, shown};
use crate::{Error, Result};

/// Bytes of a piece.
const PIECE: u64 = 1 << 20;
/// Pieces that may have come before their turn.
const AHEAD: u64 = 16;

/// Fetches what is missing. The part comes back whether that went well or not; a failing server leaves
/// the rest to the others, and all of them failing is an error.
pub(super) async fn fill(
    sources: &[Source],
    what: &Wanted<'_>,
    mut part: Part,
    meter: &mut Meter<'_>,
) -> Result<(Part, Result<()>)> {
    let mut work = Work { from: part.have(), size: what.size, next: 0, again: Vec::new() };
    let (mut fetching, mut waiting) = (JoinSet::new(), BTreeMap::new());
    let mut idle: Vec<usize> = (0..sources.len()).rev().collect();
    let (mut written, mut last_error) = (0, None);
    loop {
        while let Some(source) = idle.pop() {
            let Some(piece) = work.take(written) else {
                idle.push(source);
                break;
            };
            fetching.spawn(fetch(sources[source].clone(), source, piece, work.range(piece)));
        }
        let Some(done) = fetching.join_next().await else { break };
        let (source, piece, bytes) = done.map_err(|e| Error::Setup(e.to_string()))?;
        match bytes {
            Ok(bytes) => {
                idle.push(source);
                waiting.insert(piece, bytes);
            }
            // It is asked for no more pieces.
            Err(error) => {
                last_error = Some(error);
                work.again.push(piece);
            }
        }
        while let Some(bytes) = waiting.remove(&written) {
            let result;
            (part, result) = blocking(move || {
                let result = part.append(&bytes);
                Ok((part, result))
            })
            .await?;
            if result.is_err() {
                return Ok((part, result));
            }
            written += 1;
            meter.at(part.have());
        }
    }
    let missing = part.have() < what.size;
    let result = last_error.filter(|_| missing).map_or(Ok(()), Err);
    Ok((part, result))
}

/// What is left to fetch.
struct Work {
    from: u64,
    size: u64,
    next: u64,
    /// What a server failed to bring.
    again: Vec<u64>,
}

impl Work {
    /// The next piece for a server that has nothing to do.
    fn take(&mut self, written: u64) -> Option<u64> {
        if let Some(piece) = self.again.pop() {
            return Some(piece);
        }
        let piece = self.next;
        if self.range(piece).0 >= self.size || piece >= written + AHEAD {
            return None;
        }
        self.next += 1;
        Some(piece)
    }

    fn range(&self, piece: u64) -> (u64, u64) {
        let from = self.from + piece * PIECE;
        (from, (from + PIECE).min(self.size))
    }
}

async fn fetch(
    source: Source,
    number: usize,
    piece: u64,
    range: (u64, u64),
) -> (usize, u64, Result<Vec<u8>>) {
    (number, piece, bytes(&source, range).await)
}

async fn bytes(source: &Source, (from, to): (u64, u64)) -> Result<Vec<u8>> {
    let (http, url) = (&source.http, source.url.as_str());
    let response = http.get(url, from, Some(to)).await?;
    let wrong = |reason: &str| Err(Error::mismatch(shown(url), reason));
    if response.status() != StatusCode::PARTIAL_CONTENT {
        return wrong("the server sends no ranges");
    }
    let expected = usize::try_from(to - from).unwrap_or(usize::MAX);
    let mut bytes = Vec::with_capacity(expected);
    let mut body = Body::new(url, response, http);
    while let Some(chunk) = body.next().await? {
        if bytes.len() + chunk.len() > expected {
            return wrong("more bytes came than were asked for");
        }
        bytes.extend_from_slice(&chunk);
    }
    if bytes.len() < expected {
        return Err(Error::Network { url: shown(url), reason: "the connection broke off".into() });
    }
    Ok(bytes)
}
