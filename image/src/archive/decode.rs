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
        Compression::Xz => Box::new(XzReader::new(reader, limits)?),
    })
}

/// Reads one or more xz streams with padding between them.
///
/// liblzma's threaded decoder does the work. A block whose header states its sizes goes to a thread
/// of its own as its bytes arrive. Room is made for what a header claims, so claims count against the limit of
/// memory before: a block for which not enough is left waits for those before it, and one that would
/// never fit, or states no sizes, is decompressed as its bytes pass.
struct XzReader<R> {
    inner: R,
    stream: Option<Stream>,
    memory: u64,
    threads: u32,
}

impl<R: BufRead> XzReader<R> {
    fn new(inner: R, limits: &Limits) -> Result<Self> {
        let (memory, threads) = (limits.memory, limits.threads.clamp(1, 64) as u32);
        let stream = Some(new_stream(memory, threads).map_err(|e| archive_error(e.to_string()))?);
        Ok(Self { inner, stream, memory, threads })
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
                self.stream = Some(new_stream(self.memory, self.threads)?);
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

fn new_stream(memory: u64, threads: u32) -> io::Result<Stream> {
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

    use super::super::xz::{Watch, XzOptions, XzWriter};
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

    /// A stream of three blocks of 100,000 bytes each that state their sizes.
    fn blocks() -> Vec<u8> {
        let options = XzOptions { level: 0, bcj: None, threads: 1, block_size: 1 << 20 };
        let mut writer = XzWriter::new(Vec::new(), options, Watch::default(), None);
        for block in 0..3_u8 {
            writer.write_all(&noise(block)).unwrap();
            writer.end_block(false).unwrap();
        }
        writer.finish().unwrap().0
    }

    fn noise(seed: u8) -> Vec<u8> {
        (0..100_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8 ^ seed).collect()
    }

    fn with(threads: usize, memory: u64, data: impl Read + Send) -> io::Result<Vec<u8>> {
        let limits = Limits { memory, threads, ..Limits::default() };
        let mut out = Vec::new();
        decoder(data, &limits).map_err(io::Error::other)?.read_to_end(&mut out)?;
        Ok(out)
    }

    /// Bytes as they come from a network: few at a time.
    struct Trickle<'a>(&'a [u8]);

    impl Read for Trickle<'_> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            let count = self.0.len().min(out.len()).min(7);
            out[..count].copy_from_slice(&self.0[..count]);
            self.0 = &self.0[count..];
            Ok(count)
        }
    }

    #[test]
    fn blocks_come_in_order_from_any_number_of_threads() {
        let whole = blocks();
        let expected = [noise(0), noise(1), noise(2)].concat();
        for threads in [0, 1, 2, 5] {
            assert!(with(threads, 64 << 20, &whole[..]).unwrap() == expected);
            assert!(with(threads, 64 << 20, Trickle(&whole)).unwrap() == expected);
            assert!(
                with(threads, 64 << 20, &[&whole[..], &[0; 4], &whole].concat()[..]).unwrap().len()
                    == 600_000
            );
        }
    }

    /// Where the first block begins: twelve bytes of stream header.
    const BLOCK: usize = 12;

    /// Changes a block header and makes its checksum right again.
    fn change_header(stream: &mut [u8], change: impl Fn(&mut [u8])) {
        let size = (usize::from(stream[BLOCK]) + 1) * 4;
        let (fields, sum) = stream[BLOCK..BLOCK + size].split_at_mut(size - 4);
        change(fields);
        sum.copy_from_slice(&crc32fast::hash(fields).to_le_bytes());
    }

    #[test]
    fn lies_about_sizes_are_refused_and_cost_no_memory() {
        for threads in [1, 4] {
            // Two bytes each of which hold seven bits: the sizes begin behind size and flags.
            for at in [2, 5] {
                for bits in [1, 0x40] {
                    let mut stream = blocks();
                    change_header(&mut stream, |fields| fields[at] ^= bits);
                    assert!(with(threads, 64 << 20, &stream[..]).is_err(), "{threads} {at} {bits}");
                }
            }
            // A block that claims to hold 2^62 bytes.
            let mut stream = blocks();
            let size = (usize::from(stream[BLOCK]) + 1) * 4;
            let header = &stream[BLOCK..BLOCK + size];
            assert_eq!(header[1], 0xc0, "both sizes are stated");
            let varint = |at: usize| header[at..].iter().position(|b| b & 0x80 == 0).unwrap() + 1;
            let filters = &header[2 + varint(2) + varint(2 + varint(2))..size - 4];
            let packed = &header[2..2 + varint(2)];
            let claim = [&[0xff; 8][..], &[0x3f]].concat();
            let mut lie = [&[0, 0xc0], packed, &claim, filters].concat();
            lie.resize(lie.len().next_multiple_of(4), 0);
            lie[0] = (lie.len() / 4) as u8;
            let sum = crc32fast::hash(&lie).to_le_bytes();
            stream.splice(BLOCK..BLOCK + size, [&lie[..], &sum].concat());
            assert!(with(threads, 64 << 20, &stream[..]).is_err(), "2^62 bytes claimed");
            // Less memory than the dictionary takes.
            assert!(with(threads, 100_000, &blocks()[..]).is_err());
        }
    }

    #[test]
    fn every_cut_and_every_changed_byte_at_the_ends_is_noticed() {
        let whole = blocks();
        let ends = (0..200).chain(whole.len() - 200..whole.len());
        for at in ends {
            assert!(with(2, 64 << 20, &whole[..at]).is_err() || at < 6, "cut at {at}");
            let mut broken = whole.clone();
            broken[at] ^= 0x11;
            let read = with(2, 64 << 20, &broken[..]);
            assert!(at < 6 || read.is_err(), "changed at {at}");
        }
    }
}
