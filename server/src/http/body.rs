//! Bodies: read from disk piece by piece, compressed on the way where wanted.

use std::fs::File;
use std::io::{self, ErrorKind, IoSliceMut, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use axum::body::Body;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::{Stream, StreamExt, stream};
use rustix::io::{Errno, ReadWriteFlags, preadv2, retry_on_intr};
use tokio_util::bytes::Bytes;

use super::site::Wait;

/// Most bytes read, and held in memory, at a time for each response.
const MOST: u64 = 128 << 10;
/// The same for a client that takes long for them.
const LEAST: u64 = 16 << 10;
/// What is long.
const SLOW: Duration = Duration::from_millis(50);
/// A compromise for texts that are compressed for every reader.
const LEVEL: Compression = Compression::new(4);

/// The body of a response. What is read at once goes out in one piece.
pub(super) enum Content {
    /// All of it.
    Read(Bytes),
    /// Still on disk.
    File(File, Range<u64>),
}

impl Content {
    /// Takes a part of a file; small ones are read now.
    pub(super) fn of(file: File, part: Range<u64>, wait: Wait) -> io::Result<Self> {
        if part.end - part.start > MOST {
            return Ok(Self::File(file, part));
        }
        read(&file, &part, wait).map(Self::Read)
    }

    /// The bytes as they are.
    pub(super) fn plain(self) -> Body {
        match self {
            Self::Read(bytes) => Body::from(bytes),
            Self::File(file, part) => Body::from_stream(chunks(file, part)),
        }
    }
}

/// A part of a file in memory.
///
/// # Errors
/// [`ErrorKind::WouldBlock`] when one may not wait; [`ErrorKind::UnexpectedEof`] when the file is shorter.
pub(super) fn read(file: &File, part: &Range<u64>, wait: Wait) -> io::Result<Bytes> {
    let mut bytes = vec![0; (part.end - part.start) as usize];
    match wait {
        Wait::Allowed => file.read_exact_at(&mut bytes, part.start)?,
        Wait::Never => read_cached(file, &mut bytes, part.start)?,
    }
    Ok(bytes.into())
}

/// Reads what is in the kernel's memory; the rest, if there is any, is for somebody who may wait.
fn read_cached(file: &File, bytes: &mut [u8], at: u64) -> io::Result<()> {
    let wanted = bytes.len();
    let mut pieces = [IoSliceMut::new(bytes)];
    match retry_on_intr(|| preadv2(file, &mut pieces, at, ReadWriteFlags::NOWAIT)) {
        Ok(count) if count == wanted => Ok(()),
        // Not every file system can tell.
        Ok(_) | Err(Errno::AGAIN | Errno::OPNOTSUPP) => Err(ErrorKind::WouldBlock.into()),
        Err(errno) => Err(errno.into()),
    }
}

/// What is yet to be sent of a file.
struct Rest {
    file: File,
    part: Range<u64>,
    /// Bytes of the next piece.
    next: u64,
    /// When the piece before was handed over.
    handed: Instant,
}

/// The bytes of a part of a file. A client that takes its time gets small pieces, so that many of them
/// cost little memory.
fn chunks(file: File, part: Range<u64>) -> impl Stream<Item = io::Result<Bytes>> + Send + use<> {
    let rest = Rest { file, part, next: LEAST, handed: Instant::now() };
    stream::try_unfold(rest, |mut rest| async move {
        if rest.part.is_empty() {
            return Ok(None);
        }
        let slow = rest.handed.elapsed() > SLOW;
        rest.next = if slow { LEAST } else { MOST.min(rest.next * 2) };
        let piece = rest.part.start..rest.part.end.min(rest.part.start + rest.next);
        rest.part.start = piece.end;
        let bytes = match read(&rest.file, &piece, Wait::Never) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let reading = tokio::task::spawn_blocking(move || {
                    let bytes = read(&rest.file, &piece, Wait::Allowed);
                    (rest, bytes)
                });
                let bytes;
                (rest, bytes) = reading.await.map_err(io::Error::other)?;
                bytes?
            }
            bytes => bytes?,
        };
        rest.handed = Instant::now();
        Ok(Some((bytes, rest)))
    })
}

/// The bytes as a gzip member, made while they are sent.
pub(super) fn zip_on_the_way(file: File, size: u64) -> Body {
    Body::from_stream(compressed(chunks(file, 0..size)))
}

/// The bytes as a gzip member.
pub(super) fn zip(plain: &[u8]) -> io::Result<Bytes> {
    let mut encoder = GzEncoder::new(Vec::new(), LEVEL);
    encoder.write_all(plain)?;
    encoder.finish().map(Bytes::from)
}

fn compressed(
    plain: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
) -> impl Stream<Item = io::Result<Bytes>> + Send {
    let encoder = GzEncoder::new(Vec::new(), LEVEL);
    let state = (Box::pin(plain), Some(encoder));
    let pieces = stream::try_unfold(state, |(mut plain, encoder)| async move {
        let Some(mut encoder) = encoder else { return Ok(None) };
        let Some(piece) = plain.next().await else {
            return Ok(Some((Bytes::from(encoder.finish()?), (plain, None))));
        };
        encoder.write_all(&piece?)?;
        let done = std::mem::take(encoder.get_mut());
        Ok(Some((Bytes::from(done), (plain, Some(encoder)))))
    });
    // The encoder gathers; an empty piece says nothing.
    pieces.filter(|piece: &io::Result<Bytes>| {
        let keep = !piece.as_ref().is_ok_and(Bytes::is_empty);
        async move { keep }
    })
}
