//! The delta as bytes; docs/formats.md describes it.

use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::sync::{Arc, Mutex};

use liblzma::read::XzDecoder;
use liblzma::stream::{Check, Filters, LzmaOptions, Stream};
use liblzma::write::XzEncoder;

use super::container::EXTREME;
use super::matching::Piece;
use super::{Limits, bad};
use crate::{Result, Sha256Digest};

const MAGIC: &[u8; 8] = b"MSdelta\0";
const VERSION: u32 = 1;
/// Bytes of the header.
pub(super) const HEADER: usize = 12 + 3 * 40 + SECTIONS * 16 + 4;
/// Control, differences, literals, layout.
pub(super) const SECTIONS: usize = 4;
/// Dictionary of the sections, in bytes: what a reader needs for each.
const DICTIONARY: u32 = 8 << 20;
/// What a section's decoder may use, in bytes.
const MEMORY: u64 = 12 << 20;

/// What a delta says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The uncompressed archive it starts from.
    pub base: Identity,
    /// The uncompressed archive it makes.
    pub result: Identity,
    /// That archive as compressed file; `None` when its bytes cannot be made again.
    pub file: Option<Identity>,
    /// Bytes of each section, compressed and not.
    pub(super) sections: [(u64, u64); SECTIONS],
}

/// SHA-256 and bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// SHA-256.
    pub sha256: Sha256Digest,
    /// Bytes.
    pub size: u64,
}

impl Header {
    pub(super) fn to_bytes(self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        let none = Identity { sha256: Sha256Digest::from_bytes([0; 32]), size: 0 };
        for identity in [self.base, self.result, self.file.unwrap_or(none)] {
            bytes.extend_from_slice(identity.sha256.as_bytes());
            bytes.extend_from_slice(&identity.size.to_le_bytes());
        }
        for (packed, unpacked) in self.sections {
            bytes.extend_from_slice(&packed.to_le_bytes());
            bytes.extend_from_slice(&unpacked.to_le_bytes());
        }
        let crc = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads a delta's header and checks it against `limits`.
    pub fn read(reader: &mut impl Read, limits: &Limits) -> Result<Self> {
        let mut bytes = [0; HEADER];
        reader.read_exact(&mut bytes).map_err(|_| bad("it is cut off in its header"))?;
        if &bytes[..8] != MAGIC {
            return Err(bad("it is no delta"));
        }
        let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap_or_default());
        let version = u64_at(8) as u32;
        if version != VERSION {
            return Err(bad(format!("version {version} is not known; a newer Millstream wrote it")));
        }
        if crc32fast::hash(&bytes[..HEADER - 4]).to_le_bytes() != bytes[HEADER - 4..] {
            return Err(bad("its header is damaged"));
        }
        let identity = |at: usize| Identity {
            sha256: Sha256Digest::from_bytes(bytes[at..at + 32].try_into().unwrap_or_default()),
            size: u64_at(at + 32),
        };
        let file = identity(92);
        let sections = std::array::from_fn(|n| (u64_at(132 + 16 * n), u64_at(140 + 16 * n)));
        let header = Self {
            base: identity(12),
            result: identity(52),
            file: (file.size > 0).then_some(file),
            sections,
        };
        for (what, size, limit) in [
            ("base", header.base.size, limits.archive),
            ("result", header.result.size, limits.archive),
            ("compressed result", file.size, limits.archive),
            ("differences", sections[1].1, header.result.size),
            ("new bytes", sections[2].1, header.result.size),
            ("instructions", sections[0].1, limits.control),
            ("block list", sections[3].1, limits.control),
        ] {
            if size > limit {
                return Err(bad(format!("its {what} of {size} bytes would be more than {limit}")));
            }
        }
        let packed = sections.iter().try_fold(0_u64, |sum, (packed, _)| sum.checked_add(*packed));
        if packed.is_none_or(|packed| packed > limits.delta) {
            return Err(bad(format!("it is larger than {} bytes", limits.delta)));
        }
        Ok(header)
    }
}

/// A section in the making: compressed as it is written.
pub(super) struct SectionWriter {
    encoder: XzEncoder<Vec<u8>>,
    written: u64,
}

impl SectionWriter {
    /// For bytes like any others.
    pub(super) fn new() -> io::Result<Self> {
        Self::with(9, 3)
    }

    /// For differences, mostly zeros: the slow variant of the preset saves an eighth, and what
    /// stands before a byte says nothing about it.
    pub(super) fn of_differences() -> io::Result<Self> {
        Self::with(9 | EXTREME, 0)
    }

    fn with(preset: u32, literal_bits: u32) -> io::Result<Self> {
        let mut options = LzmaOptions::new_preset(preset)?;
        options.dict_size(DICTIONARY).literal_context_bits(literal_bits).position_bits(0);
        let stream = Stream::new_stream_encoder(Filters::new().lzma2(&options), Check::Crc32)?;
        Ok(Self { encoder: XzEncoder::new_stream(Vec::new(), stream), written: 0 })
    }

    /// Bytes after compression so far.
    pub(super) fn packed(&self) -> u64 {
        self.encoder.get_ref().len() as u64
    }

    pub(super) fn finish(self) -> io::Result<(Vec<u8>, (u64, u64))> {
        let packed = self.encoder.finish()?;
        let sizes = (packed.len() as u64, self.written);
        Ok((packed, sizes))
    }
}

impl Write for SectionWriter {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let count = self.encoder.write(data)?;
        self.written += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One section of a delta, decompressed: exactly the bytes the header states.
pub(super) struct SectionReader<R: Read + Seek> {
    decoder: BufReader<XzDecoder<BufReader<Part<R>>>>,
    left: u64,
}

/// A range of a file that several read from.
pub(super) struct Part<R> {
    file: Arc<Mutex<R>>,
    at: u64,
    end: u64,
}

impl<R: Read + Seek> Read for Part<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = buffer.len().min(usize::try_from(self.end - self.at).unwrap_or(usize::MAX));
        if want == 0 {
            return Ok(0);
        }
        let mut file = self.file.lock().map_err(|_| io::Error::other("another reader failed"))?;
        file.seek(SeekFrom::Start(self.at))?;
        let count = file.read(&mut buffer[..want])?;
        self.at += count as u64;
        Ok(count)
    }
}

impl<R: Read + Seek> SectionReader<R> {
    /// The section's reader; `number` as in [`SECTIONS`].
    pub(super) fn open(file: &Arc<Mutex<R>>, header: &Header, number: usize) -> Result<Self> {
        let before: u64 = header.sections[..number].iter().map(|(packed, _)| packed).sum();
        let (packed, unpacked) = header.sections[number];
        let at = HEADER as u64 + before;
        let part = Part { file: Arc::clone(file), at, end: at + packed };
        let stream = Stream::new_stream_decoder(MEMORY, 0).map_err(|e| bad(e.to_string()))?;
        let decoder = XzDecoder::new_stream(BufReader::with_capacity(32 << 10, part), stream);
        Ok(Self { decoder: BufReader::with_capacity(64 << 10, decoder), left: unpacked })
    }

    /// The next bytes, all of them.
    pub(super) fn fill(&mut self, buffer: &mut [u8]) -> Result<()> {
        self.left = self
            .left
            .checked_sub(buffer.len() as u64)
            .ok_or_else(|| bad("it asks for more bytes than it states"))?;
        self.decoder.read_exact(buffer).map_err(|e| bad(e.to_string()))
    }

    pub(super) fn byte(&mut self) -> Result<u8> {
        let mut byte = [0];
        self.fill(&mut byte)?;
        Ok(byte[0])
    }

    pub(super) fn number(&mut self) -> Result<u64> {
        let mut value = 0;
        for shift in (0..63).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(bad("a number in it is too long"))
    }

    pub(super) fn signed(&mut self) -> Result<i64> {
        let value = self.number()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// That nothing is left, neither of what was stated nor of what is there.
    pub(super) fn end(mut self) -> Result<()> {
        let more = self.decoder.fill_buf().map_err(|e| bad(e.to_string()))?;
        if self.left != 0 || !more.is_empty() {
            return Err(bad("it holds more than it needs"));
        }
        let inner = self.decoder.into_inner().into_inner();
        if inner.buffer().is_empty() && inner.get_ref().at == inner.get_ref().end {
            return Ok(());
        }
        Err(bad("a section of it is longer than its data"))
    }
}

/// What to do next, as the control section says.
#[derive(Debug)]
pub(super) enum Step {
    /// Take bytes of the base as they are.
    Copy { base: u64, length: u64 },
    /// Take new bytes.
    Insert { length: u64 },
    /// Take a range of the base, changed.
    Patch { base: u64, base_length: u64, length: u64, foretell: bool, pieces: Vec<Piece> },
}

/// How many pieces a changed file of this length may have: they cost memory.
pub(super) fn most_pieces(length: u64) -> u64 {
    length / 8 + 16
}

/// Writes steps; remembers where the base was left.
#[derive(Default)]
pub(super) struct StepWriter {
    bytes: Vec<u8>,
    base: u64,
}

impl StepWriter {
    /// The bytes written since the last call.
    pub(super) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }

    pub(super) fn write(&mut self, step: &Step) {
        match step {
            Step::Copy { base, length } => {
                self.number(length << 2);
                self.base(*base, *length);
            }
            Step::Insert { length } => self.number(length << 2 | 1),
            Step::Patch { base, base_length, length, foretell, pieces } => {
                self.number(length << 2 | 2 | u64::from(*foretell));
                self.base(*base, *base_length);
                self.number(*base_length);
                self.number(pieces.len() as u64);
                let mut old = 0;
                for piece in pieces {
                    self.signed(i64::from(piece.old) - old);
                    self.number(piece.add.into());
                    self.number(piece.insert.into());
                    old = i64::from(piece.old) + i64::from(piece.add);
                }
            }
        }
    }

    fn base(&mut self, base: u64, length: u64) {
        self.signed(base.wrapping_sub(self.base) as i64);
        self.base = base + length;
    }

    pub(super) fn number(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }

    pub(super) fn signed(&mut self, value: i64) {
        self.number(((value << 1) ^ (value >> 63)) as u64);
    }
}

/// Reads steps and checks that they stay within the base and the result.
pub(super) struct StepReader<R: Read + Seek> {
    control: SectionReader<R>,
    header: Header,
    patch: u64,
    base: u64,
    left: u64,
}

impl<R: Read + Seek> StepReader<R> {
    pub(super) fn new(control: SectionReader<R>, header: Header, limits: &Limits) -> Self {
        Self { control, header, patch: limits.patch, base: 0, left: header.result.size }
    }

    /// The next step; `None` when the result is complete and the section at its end.
    pub(super) fn next(mut self) -> Result<Option<(Step, Self)>> {
        if self.left == 0 {
            return self.control.end().map(|()| None);
        }
        let word = self.control.number()?;
        let (kind, length) = (word & 3, word >> 2);
        if length == 0 || length > self.left {
            return Err(bad("a step of it leaves the result"));
        }
        self.left -= length;
        let step = match kind {
            0 => Step::Copy { base: self.range(None, length)?, length },
            1 => Step::Insert { length },
            _ => {
                let start = self.control.signed()?;
                let base_length = self.control.number()?;
                if length > self.patch || base_length > self.patch {
                    return Err(bad(format!("a changed file in it is larger than {} bytes", self.patch)));
                }
                let base = self.range(Some(start), base_length)?;
                let pieces = self.pieces(base_length, length)?;
                Step::Patch { base, base_length, length, foretell: kind == 3, pieces }
            }
        };
        Ok(Some((step, self)))
    }

    /// A range of the base, stated relative to where the last one ended.
    fn range(&mut self, start: Option<i64>, length: u64) -> Result<u64> {
        let start = start.map_or_else(|| self.control.signed(), Ok)?;
        let outside = || bad("a step of it leaves the base");
        let base = self.base.checked_add_signed(start).ok_or_else(outside)?;
        let end = base.checked_add(length).filter(|end| *end <= self.header.base.size);
        self.base = end.ok_or_else(outside)?;
        Ok(base)
    }

    fn pieces(&mut self, base_length: u64, length: u64) -> Result<Vec<Piece>> {
        let outside = || bad("a piece of a changed file leaves it");
        let count = self.control.number()?;
        if count > most_pieces(length) {
            return Err(bad("a changed file in it has too many pieces"));
        }
        let mut pieces = Vec::new();
        let (mut old, mut new) = (0_u64, 0_u64);
        for _ in 0..count {
            old = old.checked_add_signed(self.control.signed()?).ok_or_else(outside)?;
            let (add, insert) = (self.control.number()?, self.control.number()?);
            let end = old.checked_add(add).filter(|end| *end <= base_length).ok_or_else(outside)?;
            let next = new.checked_add(add).and_then(|n| n.checked_add(insert));
            let next = next.filter(|next| (new + 1..=length).contains(next)).ok_or_else(outside)?;
            // All of them are below the limit of a patch, which is below 4 GiB.
            let [old_start, new_start, add, insert] = [old, new, add, insert].map(|n| n as u32);
            pieces.push(Piece { old: old_start, new: new_start, add, insert });
            (old, new) = (end, next);
        }
        if new == length { Ok(pieces) } else { Err(outside()) }
    }
}
