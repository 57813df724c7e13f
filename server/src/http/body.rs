//! Bodies: read from disk piece by piece, compressed on the way where wanted.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;

use axum::body::Body;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::{Stream, StreamExt, stream};
use tokio::io::AsyncReadExt;
use tokio_util::bytes::Bytes;
use tokio_util::io::ReaderStream;

/// Bytes read, and held in memory, at a time for each response.
const CHUNK: usize = 128 << 10;
/// A compromise for texts that are compressed for every reader.
const LEVEL: Compression = Compression::new(4);

/// The body of a response. What is read at once goes out in one piece.
pub(super) enum Content {
    /// All of it.
    Read(Vec<u8>),
    /// Still on disk.
    File(File, Range<u64>),
}

impl Content {
    /// Takes a part of a file; small ones are read now, while the caller may block.
    pub(super) fn of(mut file: File, part: Range<u64>) -> io::Result<Self> {
        if part.start > 0 {
            file.seek(SeekFrom::Start(part.start))?;
        }
        let length = part.end - part.start;
        if length > CHUNK as u64 {
            return Ok(Self::File(file, part));
        }
        let mut bytes = vec![0; length as usize];
        file.read_exact(&mut bytes)?;
        Ok(Self::Read(bytes))
    }

    /// The bytes as they are.
    pub(super) fn plain(self) -> Body {
        match self {
            Self::Read(bytes) => Body::from(bytes),
            Self::File(file, part) => Body::from_stream(chunks(file, &part)),
        }
    }

    /// The bytes as a gzip member.
    pub(super) fn gzip(self) -> Body {
        match self {
            Self::Read(bytes) => Body::from_stream(compressed(stream::iter([Ok(Bytes::from(bytes))]))),
            Self::File(file, part) => Body::from_stream(compressed(chunks(file, &part))),
        }
    }
}

/// The file's bytes from where it stands.
fn chunks(file: File, part: &Range<u64>) -> impl Stream<Item = io::Result<Bytes>> + Send + use<> {
    let mut file = tokio::fs::File::from_std(file);
    file.set_max_buf_size(CHUNK);
    ReaderStream::with_capacity(file.take(part.end - part.start), CHUNK)
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
