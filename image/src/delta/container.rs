//! An xz file from the outside: where its blocks lie and how each was made.
//!
//! Source: "The .xz File Format", version 1.2.1. Only files of one stream are understood; for any
//! other a delta makes the uncompressed archive alone.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use liblzma::stream::{Action, Filters, LzmaOptions, Status, Stream};

const MAGIC: &[u8; 6] = b"\xfd7zXZ\0";
const STREAM_HEADER: usize = 12;
/// A longer index is not read, in bytes.
const MAX_INDEX: u64 = 16 << 20;
const LZMA2: u8 = 0x21;
const X86: u8 = 0x04;
const ARM64: u8 = 0x0a;
/// Marks the slow variant of a preset, as `xz -e` does.
pub(super) const EXTREME: u32 = 1 << 31;
/// In place of a preset: data that would grow is stored as it is.
pub(super) const STORED: u8 = 20;
/// Bytes of a stored chunk.
const CHUNK: usize = 64 << 10;

/// The blocks of a file.
pub(super) struct Container {
    /// Flags of the stream: the kind of check.
    pub(super) flags: [u8; 2],
    pub(super) blocks: Vec<Block>,
}

/// One block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) offset: u64,
    /// Bytes without the padding before its check.
    pub(super) unpadded: u64,
    pub(super) uncompressed: u64,
}

impl Block {
    /// Bytes in the file.
    pub(super) fn size(self) -> u64 {
        self.unpadded.next_multiple_of(4)
    }
}

impl Container {
    /// Reads header, index and footer; `None` for what is not one whole stream.
    pub(super) fn read(file: &File) -> io::Result<Option<Self>> {
        let size = file.metadata()?.len();
        let mut start = [0; STREAM_HEADER];
        let mut end = [0; STREAM_HEADER];
        if size < 2 * STREAM_HEADER as u64 + 8 {
            return Ok(None);
        }
        file.read_exact_at(&mut start, 0)?;
        file.read_exact_at(&mut end, size - STREAM_HEADER as u64)?;
        let flags = [start[6], start[7]];
        let index_size = (u64::from(u32::from_le_bytes(end[4..8].try_into().unwrap_or_default())) + 1) * 4;
        let sound = start[..] == stream_header(flags)
            && end[..] == stream_footer(flags, index_size)
            && index_size <= MAX_INDEX.min(size - 2 * STREAM_HEADER as u64);
        if !sound {
            return Ok(None);
        }
        let at = size - STREAM_HEADER as u64 - index_size;
        let mut index = vec![0; index_size as usize];
        file.read_exact_at(&mut index, at)?;
        Ok(parse_index(&index)
            .filter(|blocks| blocks.last().map_or(STREAM_HEADER as u64, |b| b.offset + b.size()) == at)
            .map(|blocks| Self { flags, blocks }))
    }
}

fn parse_index(index: &[u8]) -> Option<Vec<Block>> {
    let (body, crc) = index.split_at(index.len() - 4);
    let mut rest = body.strip_prefix(&[0])?;
    if crc32fast::hash(body).to_le_bytes() != crc {
        return None;
    }
    let count = number(&mut rest)?;
    let mut blocks = Vec::new();
    let mut offset = STREAM_HEADER as u64;
    for _ in 0..count {
        let (unpadded, uncompressed) = (number(&mut rest)?, number(&mut rest)?);
        if unpadded == 0 || unpadded >= 1 << 60 {
            return None;
        }
        let block = Block { offset, unpadded, uncompressed };
        offset = offset.checked_add(block.size())?;
        blocks.push(block);
    }
    (rest.len() < 4 && rest.iter().all(|b| *b == 0)).then_some(blocks)
}

pub(super) fn stream_header(flags: [u8; 2]) -> Vec<u8> {
    let crc = crc32fast::hash(&flags).to_le_bytes();
    [&MAGIC[..], &flags, &crc].concat()
}

fn stream_footer(flags: [u8; 2], index_size: u64) -> Vec<u8> {
    let backward = ((index_size / 4).wrapping_sub(1) as u32).to_le_bytes();
    let fields = [&backward[..], &flags].concat();
    [&crc32fast::hash(&fields).to_le_bytes()[..], &fields, b"YZ"].concat()
}

/// Index and footer: unpadded and uncompressed bytes of each block.
pub(super) fn trailer(flags: [u8; 2], records: &[(u64, u64)]) -> Vec<u8> {
    let mut index = vec![0];
    push_number(&mut index, records.len() as u64);
    for (unpadded, uncompressed) in records {
        push_number(&mut index, *unpadded);
        push_number(&mut index, *uncompressed);
    }
    index.resize(index.len().next_multiple_of(4), 0);
    let crc = crc32fast::hash(&index);
    index.extend_from_slice(&crc.to_le_bytes());
    let footer = stream_footer(flags, index.len() as u64);
    [index, footer].concat()
}

/// Everything a block's bytes depend on, besides its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Coder {
    /// Preset as of the `xz` tool, ten more for its slow variants, or [`STORED`].
    pub(super) preset: u8,
    /// Id of the filter before LZMA2, or zero.
    pub(super) filter: u8,
    /// Dictionary as LZMA2 encodes its size.
    pub(super) dictionary: u8,
    /// Literal context bits, literal position bits, position bits.
    pub(super) bits: [u8; 3],
}

/// What a block's header looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Form {
    /// Bytes of the header.
    pub(super) size: u64,
    /// Bit 0: the compressed size is stated; bit 1: the uncompressed one.
    pub(super) stated: u8,
}

/// The coder of a block, its preset guessed at 6, and its form; `None` for what we never write.
pub(super) fn examine(start: &[u8], block: Block, check: u64) -> Option<(Coder, Form)> {
    let size = (usize::from(*start.first()?) + 1) * 4;
    let header = start.get(..size)?;
    let flags = header[1];
    let mut rest = &header[2..size - 4];
    for bit in [0x40, 0x80] {
        if flags & bit != 0 {
            number(&mut rest)?;
        }
    }
    let mut filter = 0;
    if flags & 3 == 1 {
        filter = *rest.first().filter(|id| [X86, ARM64].contains(id))?;
        rest = rest.get(1..)?.strip_prefix(&[0])?;
    } else if flags & 3 != 0 {
        return None;
    }
    let dictionary = *rest.strip_prefix(&[LZMA2, 1])?.first()?;
    // The first LZMA2 chunk: stored, or with the coder's properties.
    let bits = match start.get(size..size + 6) {
        Some([control, .., properties]) if *control >= 0xc0 => {
            [properties % 9, properties / 9 % 5, properties / 45]
        }
        _ => [3, 0, 2],
    };
    let data = block.unpadded.checked_sub(size as u64 + check)?;
    let stored = block.uncompressed + 3 * block.uncompressed.div_ceil(CHUNK as u64) + 1;
    let preset = if filter == 0 && data == stored { STORED } else { 6 };
    let form = Form { size: size as u64, stated: flags >> 6 };
    Some((Coder { preset, filter, dictionary, bits }, form))
}

impl Coder {
    /// Bytes of its dictionary.
    pub(super) fn dictionary_size(self) -> Option<u32> {
        let code = u32::from(self.dictionary);
        (code < 40).then(|| (2 | (code & 1)) << (code / 2 + 11))
    }

    /// The dictionary a preset has by itself, as LZMA2 encodes its size.
    pub(super) fn natural_dictionary(preset: u8) -> u8 {
        [12, 16, 18, 20, 20, 22, 22, 24, 26, 28][usize::from(preset % 10)]
    }

    fn filters(self) -> io::Result<Filters> {
        let level = u32::from(self.preset % 10) | if self.preset >= 10 { EXTREME } else { 0 };
        let mut options = LzmaOptions::new_preset(level)?;
        let [lc, lp, pb] = self.bits.map(u32::from);
        let dictionary = self.dictionary_size().ok_or_else(|| io::Error::other("a dictionary too large"))?;
        options.dict_size(dictionary).literal_context_bits(lc).literal_position_bits(lp).position_bits(pb);
        let mut filters = Filters::new();
        match self.filter {
            X86 => filters.x86(),
            ARM64 => filters.arm64(),
            _ => &mut filters,
        };
        filters.lzma2(&options);
        Ok(filters)
    }

    /// Compresses data that `fill` gives in pieces until it gives none; the raw LZMA2 stream. Ends
    /// early when `enough` says so.
    pub(super) fn compress(
        self,
        mut fill: impl FnMut(&mut [u8]) -> io::Result<usize>,
        enough: impl Fn(&[u8]) -> bool,
    ) -> io::Result<Vec<u8>> {
        if self.preset == STORED {
            return store(fill);
        }
        let mut stream = Stream::new_raw_encoder(&self.filters()?)?;
        let mut out = Vec::with_capacity(1 << 20);
        let mut buffer = vec![0; 256 << 10];
        loop {
            let count = fill(&mut buffer)?;
            let action = if count == 0 { Action::Finish } else { Action::Run };
            let mut at = 0;
            loop {
                if out.len() == out.capacity() {
                    out.reserve(1 << 20);
                }
                let before = stream.total_in();
                let status = stream.process_vec(&buffer[at..count], &mut out, action)?;
                at += (stream.total_in() - before) as usize;
                if status == Status::StreamEnd {
                    return Ok(out);
                }
                if count > 0 && at == count && out.len() < out.capacity() {
                    break;
                }
            }
            if enough(&out) {
                return Ok(out);
            }
        }
    }

    /// Header, data, padding and check of a block; also its unpadded size.
    pub(super) fn block(
        self,
        form: Form,
        data: &[u8],
        uncompressed: u64,
        check: &[u8],
    ) -> Option<(Vec<u8>, u64)> {
        let mut header = vec![(form.size / 4 - 1) as u8, form.stated << 6 | u8::from(self.filter != 0)];
        for (bit, value) in [(1, data.len() as u64), (2, uncompressed)] {
            if form.stated & bit != 0 {
                push_number(&mut header, value);
            }
        }
        if self.filter != 0 {
            header.extend_from_slice(&[self.filter, 0]);
        }
        header.extend_from_slice(&[LZMA2, 1, self.dictionary]);
        let room = (form.size as usize).checked_sub(4).filter(|room| *room >= header.len())?;
        header.resize(room, 0);
        let crc = crc32fast::hash(&header);
        header.extend_from_slice(&crc.to_le_bytes());
        let unpadded = (header.len() + data.len() + check.len()) as u64;
        let mut block = header;
        block.extend_from_slice(data);
        block.resize(block.len().next_multiple_of(4), 0);
        block.extend_from_slice(check);
        Some((block, unpadded))
    }
}

/// LZMA2 chunks that hold data as it is.
fn store(mut fill: impl FnMut(&mut [u8]) -> io::Result<usize>) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    let mut buffer = vec![0; CHUNK];
    loop {
        let count = fill(&mut buffer)?;
        if count == 0 {
            out.push(0);
            return Ok(out);
        }
        // The first chunk resets the dictionary.
        out.push(if out.is_empty() { 1 } else { 2 });
        out.extend_from_slice(&((count - 1) as u16).to_be_bytes());
        out.extend_from_slice(&buffer[..count]);
    }
}

/// The check of a block's data, as the stream's flags want it.
pub(super) enum Check {
    None,
    Crc32(crc32fast::Hasher),
    Crc64(u64),
}

impl Check {
    /// `None` for kinds that are not known.
    pub(super) fn new(flags: [u8; 2]) -> Option<Self> {
        match flags {
            [0, 0] => Some(Self::None),
            [0, 1] => Some(Self::Crc32(crc32fast::Hasher::new())),
            [0, 4] => Some(Self::Crc64(!0)),
            _ => None,
        }
    }

    pub(super) fn update(&mut self, data: &[u8]) {
        match self {
            Self::None => {}
            Self::Crc32(state) => state.update(data),
            Self::Crc64(state) => {
                for byte in data {
                    *state = CRC64[((*state ^ u64::from(*byte)) & 0xff) as usize] ^ (*state >> 8);
                }
            }
        }
    }

    /// Bytes of it.
    pub(super) fn size(&self) -> u64 {
        match self {
            Self::None => 0,
            Self::Crc32(_) => 4,
            Self::Crc64(_) => 8,
        }
    }

    pub(super) fn finish(self) -> Vec<u8> {
        match self {
            Self::None => Vec::new(),
            Self::Crc32(state) => state.finalize().to_le_bytes().to_vec(),
            Self::Crc64(state) => (!state).to_le_bytes().to_vec(),
        }
    }
}

/// CRC-64 of ECMA-182, reflected, a byte at a time.
const CRC64: [u64; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u64;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xc96c_5795_d787_0f42 } else { crc >> 1 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

fn push_number(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn number(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..63).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}
