//! Foretells what a linker wrote when code moved.
//!
//! A recompiled library is mostly the old one with its parts moved; what differs are the addresses
//! in it. Maker and reader of a delta both know which stretch of the old file went where, so an
//! address in the old file can be turned into the one it must have become. Nothing depends on
//! being right: the delta states the difference to what is foretold here, byte by byte. That it is
//! foretold alike on both sides is part of the format (docs/formats.md), version 1.
//!
//! Source of the file format: System V ABI, "Object Files"; of the instructions: Intel's manual,
//! volume 2, chapter 2.

use super::matching::Piece;

/// Bytes of a new file that are never foretold, since its own headers stand there.
pub(super) const HEADERS: usize = 4096;
const MAX_SEGMENTS: usize = 64;
const X86_64: u16 = 62;

/// A loaded segment.
#[derive(Clone, Copy)]
struct Segment {
    offset: u64,
    address: u64,
    in_file: u64,
    in_memory: u64,
    code: bool,
}

/// The loaded segments of an ELF file.
pub(super) struct Elf {
    segments: Vec<Segment>,
    x86_64: bool,
    top: u64,
}

impl Elf {
    /// Reads the headers at the beginning of a 64-bit little-endian file; `None` for other files.
    pub(super) fn parse(start: &[u8]) -> Option<Self> {
        let start = &start[..start.len().min(HEADERS)];
        let u16_at = |at: usize| Some(u16::from_le_bytes(start.get(at..at + 2)?.try_into().ok()?));
        let u32_at = |at: usize| Some(u32::from_le_bytes(start.get(at..at + 4)?.try_into().ok()?));
        let u64_at = |at: usize| Some(u64::from_le_bytes(start.get(at..at + 8)?.try_into().ok()?));
        if start.get(..6)? != b"\x7fELF\x02\x01" {
            return None;
        }
        let table = usize::try_from(u64_at(32)?).ok().filter(|at| *at < HEADERS)?;
        let (entry, count) = (usize::from(u16_at(54)?), usize::from(u16_at(56)?));
        if entry < 56 || count > MAX_SEGMENTS {
            return None;
        }
        let mut segments = Vec::new();
        for number in 0..count {
            let at = table + number * entry;
            if u32_at(at)? != 1 {
                continue;
            }
            let segment = Segment {
                code: u32_at(at + 4)? & 1 != 0,
                offset: u64_at(at + 8)?,
                address: u64_at(at + 16)?,
                in_file: u64_at(at + 32)?,
                in_memory: u64_at(at + 40)?,
            };
            // Sums below cannot overflow then.
            if [segment.offset, segment.address, segment.in_file, segment.in_memory]
                .iter()
                .any(|n| n >> 48 != 0)
                || segment.in_memory < segment.in_file
            {
                return None;
            }
            segments.push(segment);
        }
        let top = segments.iter().map(|s| s.address + s.in_memory).max()?;
        Some(Self { segments, x86_64: u16_at(18)? == X86_64, top })
    }

    fn at_offset(&self, offset: u64) -> Option<&Segment> {
        self.segments.iter().find(|s| (s.offset..s.offset + s.in_file).contains(&offset))
    }

    fn at_address(&self, address: u64) -> Option<(usize, &Segment)> {
        let mut all = self.segments.iter().enumerate();
        all.find(|(_, s)| (s.address..s.address + s.in_memory).contains(&address))
    }

    fn address(&self, offset: u64) -> Option<u64> {
        self.at_offset(offset).map(|s| offset - s.offset + s.address)
    }
}

/// Turns places of an old file into places of the new one.
pub(super) struct Foresight {
    old: Elf,
    new: Elf,
    /// Where stretches begin in the old file, and how far each moved.
    moves: Vec<(u32, i64)>,
}

impl Foresight {
    /// From all pieces of a file and the headers of both.
    pub(super) fn new(old: Elf, new: Elf, pieces: &[Piece]) -> Self {
        let mut moves: Vec<_> = pieces
            .iter()
            .filter(|piece| piece.add > 0)
            .map(|piece| (piece.old, i64::from(piece.new) - i64::from(piece.old)))
            .collect();
        moves.sort_unstable();
        moves.dedup_by_key(|(old, _)| *old);
        Self { old, new, moves }
    }

    /// What the bytes at `old` will be when they stand at `new`: `bytes` holds the old ones.
    pub(super) fn apply(&self, bytes: &mut [u8], old: u32, new: u32) {
        let mut at = 0;
        while at < bytes.len() {
            let place = u64::from(old) + at as u64;
            let rest = (bytes.len() - at) as u64;
            let (end, kind) = if let Some(segment) = self.old.at_offset(place) {
                let rest = rest.min(segment.offset + segment.in_file - place);
                (rest, if segment.code && self.old.x86_64 { Kind::Code } else { Kind::Data })
            } else {
                let starts = self.old.segments.iter().map(|s| s.offset).filter(|start| *start > place);
                (starts.min().map_or(rest, |start| rest.min(start - place)), Kind::Other)
            };
            let part = &mut bytes[at..at + end as usize];
            let shift = at as u32;
            match kind {
                Kind::Code => self.code(part, old + shift, new + shift),
                Kind::Data => self.data(part, old + shift, new + shift, true),
                Kind::Other => self.data(part, old + shift, new + shift, false),
            }
            at += end as usize;
        }
    }

    /// Calls, jumps and operands relative to the instruction.
    fn code(&self, bytes: &mut [u8], old: u32, new: u32) {
        let (Some(from), Some(to)) = (self.old.address(old.into()), self.new.address(new.into())) else {
            return;
        };
        let mut at = 0;
        while at + 6 <= bytes.len() {
            let (field, to_code) = match bytes[at] {
                0xe8 | 0xe9 => (at + 1, true),
                0x0f if bytes[at + 1] & 0xf0 == 0x80 => (at + 2, true),
                byte if byte & 0xc7 == 0x05 => (at + 1, false),
                _ => {
                    at += 1;
                    continue;
                }
            };
            let next = field as u64 + 4;
            let moved = relative(bytes, field).and_then(|distance| {
                let target = (from + next).checked_add_signed(distance.into())?;
                let target = self.moved(target, to_code)?;
                i32::try_from(target as i64 - (to + next) as i64).ok()
            });
            match moved {
                Some(moved) => {
                    bytes[field..field + 4].copy_from_slice(&moved.to_le_bytes());
                    at = field + 4;
                }
                None => at += 1,
            }
        }
    }

    /// Words that are addresses, and half words that are distances from where they stand.
    fn data(&self, bytes: &mut [u8], old: u32, new: u32, loaded: bool) {
        let from = self.old.address(old.into());
        let to = self.new.address(new.into());
        let mut at = (old.next_multiple_of(4) - old) as usize;
        while at + 4 <= bytes.len() {
            if (old as usize + at).is_multiple_of(8)
                && let Some(word) = bytes.get(at..at + 8)
            {
                let word = u64::from_le_bytes(word.try_into().unwrap_or_default());
                if word >= HEADERS as u64
                    && word < self.old.top
                    && let Some(moved) = self.moved(word, false)
                {
                    bytes[at..at + 8].copy_from_slice(&moved.to_le_bytes());
                    at += 8;
                    continue;
                }
            }
            if let (true, Some(from), Some(to)) = (loaded, from, to)
                && let Some(distance) = relative(bytes, at).filter(|distance| *distance < -64)
                && let Some(target) = (from + at as u64).checked_add_signed(distance.into())
                && let Some(target) = self.moved(target, true)
                && let Ok(moved) = i32::try_from(target as i64 - (to + at as u64) as i64)
            {
                bytes[at..at + 4].copy_from_slice(&moved.to_le_bytes());
            }
            at += 4;
        }
    }

    /// The new address of what was at an old one; `None` where nothing is known to be.
    fn moved(&self, address: u64, to_code: bool) -> Option<u64> {
        let (number, segment) = self.old.at_address(address)?;
        if to_code && !segment.code {
            return None;
        }
        let within = address - segment.address;
        if within >= segment.in_file {
            // Beyond the file: variables that begin as zero, after the segment's end.
            let new = self.new.segments.get(number)?;
            return (new.address + new.in_file).checked_add(within - segment.in_file);
        }
        let offset = segment.offset + within;
        let after = self.moves.partition_point(|(old, _)| u64::from(*old) <= offset);
        let (_, shift) = self.moves[..after].last()?;
        self.new.address(offset.checked_add_signed(*shift)?)
    }
}

enum Kind {
    Code,
    Data,
    Other,
}

fn relative(bytes: &[u8], at: usize) -> Option<i32> {
    Some(i32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::super::{matching, patch};
    use super::*;

    /// A file of one segment of code: noise that calls into its second half, whose first half then
    /// grows by `grown` bytes in the middle.
    fn program(grown: usize) -> Vec<u8> {
        const HALF: usize = 20_000;
        let mut code: Vec<u8> =
            (0..2 * HALF as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8 | 0x40).collect();
        code.splice(HALF..HALF, std::iter::repeat_n(0xcc, grown));
        for call in (100..HALF - 100).step_by(40) {
            let target = HALF + grown + call;
            code[call] = 0xe8;
            code[call + 1..call + 5].copy_from_slice(&((target - call - 5) as i32).to_le_bytes());
        }
        let mut file = vec![0; HEADERS];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        file[18] = 62;
        file[32] = 64;
        file[54] = 56;
        file[56] = 1;
        let size = (HEADERS + code.len()) as u64;
        file[64..72].copy_from_slice(&[1, 0, 0, 0, 5, 0, 0, 0]);
        for at in [96, 104] {
            file[at..at + 8].copy_from_slice(&size.to_le_bytes());
        }
        file.extend(code);
        file
    }

    #[test]
    fn calls_over_inserted_code_are_foretold_exactly() {
        let (old, new) = (program(0), program(64));
        let pieces = matching::pieces(&old, &new, || Ok(())).unwrap();
        let wrong = |foretell| {
            let differences = patch::differences(&old, &new, &pieces, foretell);
            // The headers, which state another size, are not foretold.
            differences.iter().skip(HEADERS).filter(|byte| **byte != 0).count()
        };
        assert!(wrong(false) > 400, "{}", wrong(false));
        assert_eq!(wrong(true), 0);
    }

    #[test]
    fn headers_that_lie_are_no_headers() {
        let good = program(0);
        assert!(Elf::parse(&good).is_some());
        for (at, value) in
            [(32, u64::MAX), (54, u64::MAX), (72, u64::MAX), (80, u64::MAX), (96, u64::MAX), (104, 0)]
        {
            let mut bad = good.clone();
            bad[at..at + 8].copy_from_slice(&value.to_le_bytes());
            assert!(Elf::parse(&bad).is_none(), "{at}");
        }
        assert!((0..64).all(|length| Elf::parse(&good[..length]).is_none()));
    }
}
