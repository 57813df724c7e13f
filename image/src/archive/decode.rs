//! Strict decompression: several members are read to the true end, garbage and truncation are
//! errors, and memory is bounded.

use std::io::{self, BufRead, BufReader, Read};

use liblzma::stream::{Action, MtStreamBuilder, Status, Stream};

use super::{Compression, Limits, archive_error};
use crate::Result;

const BUFFER: usize = 256 << 10;

/// Largest zstd window accepted: 2²⁷ bytes, what `zstd --long` makes and reads by default.
const ZSTD_WINDOW_LOG: u32 = 27;

/// Decompresses whatever `reader` holds, told by its first bytes.
pub fn decoder<'a, R: Read + Send + 'a>(reader: R, limits: &Limits) -> Result<Box<dyn Read + Send + 'a>> {
    let mut reader = BufReader::with_capacity(BUFFER, reader);
    let start = reader.fill_buf().map_err(|e| archive_error(e.to_string()))?;
    Ok(match Compression::detect(start) {
        Compression::None => Box::new(reader),
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(reader)),
        Compression::Zstd => {
            let mut zstd = zstd::Decoder::with_buffer(reader).map_err(|e| archive_error(e.to_string()))?;
            zstd.window_log_max(ZSTD_WINDOW_LOG).map_err(|e| archive_error(e.to_string()))?;
            Box::new(zstd)
        }
        Compression::Xz => Box::new(XzReader::new(reader, limits.memory)?),
    })
}

/// Reads one or more xz streams with padding between them; blocks that state their sizes are
/// decompressed in parallel.
struct XzReader<R> {
    inner: R,
    stream: Option<Stream>,
    memory: u64,
}

impl<R: BufRead> XzReader<R> {
    fn new(inner: R, memory: u64) -> Result<Self> {
        let stream = Some(new_stream(memory).map_err(|e| archive_error(e.to_string()))?);
        Ok(Self { inner, stream, memory })
    }

    /// Between streams: padding in multiples of four zero bytes, then another stream or the end.
    fn next_stream(&mut self) -> io::Result<bool> {
        let mut zeros = 0;
        loop {
            let buffer = self.inner.fill_buf()?;
            let count = buffer.iter().take_while(|byte| **byte == 0).count();
            let (ended, stopped) = (buffer.is_empty(), count < buffer.len());
            self.inner.consume(count);
            zeros += count;
            if (ended || stopped) && zeros % 4 != 0 {
                return Err(invalid("xz padding is not a multiple of four bytes"));
            }
            if ended {
                return Ok(false);
            }
            if stopped {
                self.stream = Some(new_stream(self.memory)?);
                return Ok(true);
            }
        }
    }
}

impl<R: BufRead> Read for XzReader<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        // The threaded decoder may once in a while neither take nor give bytes; only many such
        // rounds mean it is stuck.
        let mut idle = 0;
        while !out.is_empty() {
            let Some(stream) = &mut self.stream else { return Ok(0) };
            let input = self.inner.fill_buf()?;
            let at_end = input.is_empty();
            let (before_in, before_out) = (stream.total_in(), stream.total_out());
            let action = if at_end { Action::Finish } else { Action::Run };
            let status = stream.process(input, out, action)?;
            let taken = (stream.total_in() - before_in) as usize;
            let given = (stream.total_out() - before_out) as usize;
            self.inner.consume(taken);
            if status == Status::StreamEnd {
                self.stream = None;
                self.next_stream()?;
            }
            if given > 0 {
                return Ok(given);
            }
            idle = if taken == 0 && self.stream.is_some() { idle + 1 } else { 0 };
            if idle > 1000 || (at_end && status == Status::MemNeeded) {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "xz data is cut off"));
            }
        }
        Ok(0)
    }
}

fn new_stream(memory: u64) -> io::Result<Stream> {
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get().min(8)) as u32;
    let mut builder = MtStreamBuilder::new();
    builder.threads(threads).memlimit_threading(memory).memlimit_stop(memory);
    Ok(builder.decoder()?)
}

fn invalid(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn decode(data: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        decoder(data, &Limits::default())
            .map_err(|e| io::Error::other(e.to_string()))?
            .read_to_end(&mut out)?;
        Ok(out)
    }

    fn xz(data: &[u8]) -> Vec<u8> {
        let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 0);
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn several_members_with_padding_are_one() {
        let skippable = [0x50, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 9, 9];
        let zstd = |data: &[u8]| zstd::encode_all(data, 1).unwrap();
        assert_eq!(decode(&[xz(b"one"), vec![0; 8], xz(b"two"), vec![0; 4]].concat()).unwrap(), b"onetwo");
        assert_eq!(decode(&[gzip(b"one"), gzip(b"two")].concat()).unwrap(), b"onetwo");
        assert_eq!(decode(&[&skippable, &zstd(b"one")[..], &zstd(b"two")].concat()).unwrap(), b"onetwo");
    }

    #[test]
    fn garbage_and_truncation_are_refused() {
        let data = vec![7; 100_000];
        for whole in [xz(&data), gzip(&data), zstd::encode_all(&data[..], 1).unwrap()] {
            assert_eq!(decode(&whole).unwrap(), data);
            assert!(decode(&[&whole[..], b"garbage"].concat()).is_err());
            for cut in [1, 4, 9, whole.len() / 2] {
                assert!(decode(&whole[..whole.len() - cut]).is_err(), "cut by {cut}");
            }
        }
        assert!(decode(&[xz(b"one"), vec![0; 3]].concat()).is_err(), "odd padding");
        let mut broken = xz(&data);
        let middle = broken.len() / 2;
        broken[middle] ^= 1;
        assert!(decode(&broken).is_err());
    }
}
