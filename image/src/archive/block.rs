//! One block of an `.xz` stream (format: "The .xz File Format", version 1.2.1).

use std::io;

use liblzma::stream::{Action, Check, Filters, LzmaOptions, MtStreamBuilder, Status};

use super::xz::Bcj;

const FOOTER: usize = 12;

/// Magic bytes, flags that name CRC-64 as the blocks' check, and their CRC-32: alike for all streams
/// we write.
pub(super) const STREAM_HEADER: [u8; 12] = [0xfd, b'7', b'z', b'X', b'Z', 0, 0, 4, 0xe6, 0xd6, 0xb4, 0x46];

/// How a block is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Coder {
    pub(super) level: u32,
    pub(super) bcj: Option<Bcj>,
}

/// Sizes of a block, as the stream's index records them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// Bytes of header, data and check.
    pub(super) unpadded: u64,
    /// Bytes of what it holds.
    pub(super) uncompressed: u64,
}

/// A compressed block: header, data, padding, check. One without data stands for an empty stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) data: Vec<u8>,
    pub(super) record: Record,
}

impl Block {
    /// Compresses; the header states both sizes.
    pub(super) fn compress(data: &[u8], coder: Coder) -> io::Result<Self> {
        let mut filters = Filters::new();
        match coder.bcj {
            Some(Bcj::X86) => filters.x86(),
            Some(Bcj::Arm64) => filters.arm64(),
            None => &mut filters,
        };
        filters.lzma2(&LzmaOptions::new_preset(coder.level)?);
        // liblzma's threaded encoder is the one that states sizes in block headers.
        let mut builder = MtStreamBuilder::new();
        builder.threads(1).block_size(data.len().max(1) as u64).check(Check::Crc64).filters(filters);
        let mut stream = builder.encoder()?;
        let mut out = Vec::with_capacity(data.len() / 3 + (64 << 10));
        loop {
            let at = stream.total_in() as usize;
            if out.len() == out.capacity() {
                out.reserve(1 << 20);
            }
            if stream.process_vec(&data[at..], &mut out, Action::Finish)? == Status::StreamEnd {
                break;
            }
        }
        Self::lift(&out, data.len() as u64)
            .ok_or_else(|| io::Error::other("liblzma wrote an unexpected stream"))
    }

    /// Takes the block out of a stream that holds one.
    fn lift(stream: &[u8], uncompressed: u64) -> Option<Self> {
        let footer = stream.len().checked_sub(FOOTER)?;
        let backward = u32::from_le_bytes(stream[footer + 4..footer + 8].try_into().ok()?);
        let index = footer.checked_sub((backward as usize + 1) * 4)?;
        let data = stream.strip_prefix(&STREAM_HEADER)?.get(..index - STREAM_HEADER.len())?.to_vec();
        let mut fields = &stream[index + 1..footer];
        if data.is_empty() {
            return Some(Self { data, record: Record { unpadded: 0, uncompressed: 0 } });
        }
        let (records, unpadded, size) =
            (read_varint(&mut fields)?, read_varint(&mut fields)?, read_varint(&mut fields)?);
        (records == 1 && size == uncompressed)
            .then_some(Self { data, record: Record { unpadded, uncompressed } })
    }
}

/// Index and footer of a stream with these blocks.
pub(super) fn stream_end(records: &[Record]) -> Vec<u8> {
    let mut end = vec![0];
    varint(&mut end, records.len() as u64);
    for record in records {
        varint(&mut end, record.unpadded);
        varint(&mut end, record.uncompressed);
    }
    end.resize(end.len().next_multiple_of(4), 0);
    end.extend_from_slice(&crc32fast::hash(&end).to_le_bytes());
    let mut footer = ((end.len() / 4 - 1) as u32).to_le_bytes().to_vec();
    footer.extend_from_slice(&STREAM_HEADER[6..8]);
    end.extend_from_slice(&crc32fast::hash(&footer).to_le_bytes());
    end.extend_from_slice(&footer);
    end.extend_from_slice(b"YZ");
    end
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn read_varint(bytes: &mut &[u8]) -> Option<u64> {
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
