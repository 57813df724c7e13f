//! One changed file: the bytes in which it differs from what is foretold, and back.

use super::matching::Piece;
use super::predict::{Elf, Foresight, HEADERS};
use crate::Result;

/// Whether foretelling addresses may help with these files.
pub(super) fn foretellable(old: &[u8], new: &[u8]) -> bool {
    new.len() > HEADERS && Elf::parse(old).is_some() && Elf::parse(new).is_some()
}

/// The two parts of a piece's stretch: before the new file's headers are complete nothing is
/// foretold. Old place, new place, length, whether to foretell.
fn parts(piece: Piece, foretell: bool) -> [(u32, u32, u32, bool); 2] {
    let plain = if foretell { piece.add.min((HEADERS as u32).saturating_sub(piece.new)) } else { piece.add };
    [
        (piece.old, piece.new, plain, false),
        (piece.old + plain, piece.new + plain, piece.add - plain, foretell),
    ]
}

/// The differences of `new` to what its pieces say.
pub(super) fn differences(old: &[u8], new: &[u8], pieces: &[Piece], foretell: bool) -> Vec<u8> {
    let foresight = foretell.then(|| foresight(old, new, pieces)).flatten();
    let mut differences = Vec::new();
    for (from, to, length, foretold) in pieces.iter().flat_map(|piece| parts(*piece, foretell)) {
        let start = differences.len();
        differences.extend_from_slice(&old[from as usize..(from + length) as usize]);
        let bytes = &mut differences[start..];
        if let (true, Some(foresight)) = (foretold, &foresight) {
            foresight.apply(bytes, from, to);
        }
        for (byte, new) in bytes.iter_mut().zip(&new[to as usize..]) {
            *byte = new.wrapping_sub(*byte);
        }
    }
    differences
}

/// The new file, from differences and new bytes as `fill` and `insert` give them.
pub(super) fn apply(
    old: &[u8],
    pieces: &[Piece],
    foretell: bool,
    mut fill: impl FnMut(&mut [u8]) -> Result<()>,
    mut insert: impl FnMut(&mut [u8]) -> Result<()>,
) -> Result<Vec<u8>> {
    const CHUNK: usize = 64 << 10;
    let mut new = Vec::new();
    let mut seen = None;
    let mut difference = vec![0; CHUNK];
    for piece in pieces {
        for (from, to, length, foretold) in parts(*piece, foretell) {
            let start = new.len();
            new.extend_from_slice(&old[from as usize..(from + length) as usize]);
            if foretold && length > 0 {
                let foresight = seen.get_or_insert_with(|| foresight(old, &new[..HEADERS], pieces));
                if let Some(foresight) = foresight {
                    foresight.apply(&mut new[start..], from, to);
                }
            }
            for part in new[start..].chunks_mut(CHUNK) {
                let difference = &mut difference[..part.len()];
                fill(difference)?;
                for (byte, difference) in part.iter_mut().zip(difference) {
                    *byte = byte.wrapping_add(*difference);
                }
            }
        }
        let mut left = piece.insert as usize;
        while left > 0 {
            let (start, count) = (new.len(), left.min(CHUNK));
            new.resize(start + count, 0);
            insert(&mut new[start..])?;
            left -= count;
        }
    }
    Ok(new)
}

fn foresight(old: &[u8], new: &[u8], pieces: &[Piece]) -> Option<Foresight> {
    Some(Foresight::new(Elf::parse(old)?, Elf::parse(new)?, pieces))
}
