//! Finds what of a file is in an older one, moved and slightly changed.
//!
//! The idea is that of bsdiff (Colin Percival, "Naive differences of executable code", 2003): from
//! exact matches, grow stretches in which most bytes agree, because recompiled code is old code
//! with other addresses in it. Exact matches are found by a hash of eight bytes instead of by
//! sorting suffixes: less memory, and linear time.

use std::io;

/// Bytes that are hashed, so the shortest match.
const SEED: usize = 8;
/// Candidates tried for one place; files of few different bytes would try all of themselves.
const CANDIDATES: usize = 48;
/// A match this long is not compared with others.
const GOOD: usize = 512;
/// How much longer than continuing as before a match must be to be taken.
const GAIN: usize = 8;

/// A stretch of the new file: `add` bytes that resemble those at `old`, then `insert` new ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Piece {
    /// Where in the old file.
    pub(super) old: u32,
    /// Where in the new file.
    pub(super) new: u32,
    /// Bytes that resemble the old ones.
    pub(super) add: u32,
    /// Bytes after them that do not.
    pub(super) insert: u32,
}

/// Every place of a file by the eight bytes there.
struct Index<'a> {
    old: &'a [u8],
    heads: Vec<u32>,
    /// The place before with the same hash.
    before: Vec<u32>,
    shift: u32,
}

const NONE: u32 = u32::MAX;

impl<'a> Index<'a> {
    fn new(old: &'a [u8]) -> Self {
        let bits = usize::BITS - (old.len() | 0xff).leading_zeros();
        let shift = 64 - bits;
        let mut index = Self { old, heads: vec![NONE; 1 << bits], before: vec![NONE; old.len()], shift };
        for at in 0..(old.len() + 1).saturating_sub(SEED) {
            let hash = index.hash(&old[at..]);
            // Of a run of one byte its first places are enough.
            if at > 0 && old[at - 1] == old[at] && old[at..at + SEED].iter().all(|b| *b == old[at]) {
                continue;
            }
            index.before[at] = index.heads[hash];
            index.heads[hash] = at as u32;
        }
        index
    }

    fn hash(&self, bytes: &[u8]) -> usize {
        let word = u64::from_le_bytes(bytes[..SEED].try_into().unwrap_or_default());
        (word.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> self.shift) as usize
    }

    /// The longest match found for the beginning of `new`: place and length.
    fn find(&self, new: &[u8]) -> (usize, usize) {
        let mut best = (0, 0);
        if new.len() < SEED {
            return best;
        }
        let mut at = self.heads[self.hash(new)];
        for _ in 0..CANDIDATES {
            if at == NONE {
                break;
            }
            let place = at as usize;
            let length = common(&self.old[place..], new);
            if length > best.1 && length >= SEED {
                best = (place, length);
                if length >= GOOD {
                    break;
                }
            }
            at = self.before[place];
        }
        best
    }
}

/// How many bytes two slices have in common at their beginning.
fn common(a: &[u8], b: &[u8]) -> usize {
    let length = a.len().min(b.len());
    let mut at = 0;
    while at + 8 <= length {
        let word = |s: &[u8]| u64::from_le_bytes(s[at..at + 8].try_into().unwrap_or_default());
        let differ = word(a) ^ word(b);
        if differ != 0 {
            return at + (differ.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    at + a[at..length].iter().zip(&b[at..length]).take_while(|(x, y)| x == y).count()
}

/// Describes `new` by pieces of `old`; they cover it in order. Both are below 4 GiB.
///
/// # Errors
/// What `watch` returns, which is asked now and then.
pub(super) fn pieces(
    old: &[u8],
    new: &[u8],
    mut watch: impl FnMut() -> io::Result<()>,
) -> io::Result<Vec<Piece>> {
    let index = Index::new(old);
    let mut pieces = Vec::new();
    // The stretch under way: where it began in both.
    let (mut last_new, mut last_old) = (0_usize, 0_usize);
    let (mut scan, mut length, mut place) = (0_usize, 0_usize, 0_usize);
    let mut asked = 0;
    while scan < new.len() {
        if scan - asked > 1 << 18 {
            watch()?;
            asked = scan;
        }
        // Where the stretch would go on.
        let along = |at: usize| (at + last_old).checked_sub(last_new).and_then(|at| old.get(at));
        let mut score = 0;
        scan += length;
        let mut counted = scan;
        while scan < new.len() {
            let ahead = (scan + last_old).checked_sub(last_new).filter(|at| *at < old.len());
            let straight = ahead.map_or(0, |at| common(&old[at..], &new[scan..]));
            (place, length) = match ahead {
                Some(at) if straight >= 32 => (at, straight),
                _ => index.find(&new[scan..]),
            };
            while counted < scan + length {
                score += usize::from(along(counted) == Some(&new[counted]));
                counted += 1;
            }
            if (length == score && length != 0) || length > score + GAIN {
                break;
            }
            if along(scan) == Some(&new[scan]) {
                score = score.saturating_sub(1);
            }
            scan += 1;
            counted = counted.max(scan);
        }
        if length == score && scan < new.len() {
            continue; // The stretch itself goes on.
        }
        if scan >= new.len() {
            (length, scan) = (0, new.len());
        }
        let mut forward = grow(old[last_old..].iter().zip(&new[last_new..scan]));
        let mut backward = 0;
        if scan < new.len() {
            backward = grow(old[..place].iter().rev().zip(new[last_new..scan].iter().rev()));
        }
        let between = scan - last_new;
        if forward + backward > between {
            // Both reach over the same bytes: cut where most of them agree.
            let overlap = forward + backward - between;
            let (from_old, from_new) = (last_old + forward - overlap, last_new + forward - overlap);
            let (mut gain, mut best, mut cut) = (0_i64, 0_i64, 0);
            for at in 0..overlap {
                gain += i64::from(old[from_old + at] == new[from_new + at]);
                gain -= i64::from(old[place - backward + at] == new[from_new + at]);
                if gain > best {
                    (best, cut) = (gain, at + 1);
                }
            }
            forward = forward - overlap + cut;
            backward -= cut;
        }
        let insert = between - forward - backward;
        if forward + insert > 0 {
            let piece = [last_old, last_new, forward, insert].map(|n| n as u32);
            pieces.push(Piece { old: piece[0], new: piece[1], add: piece[2], insert: piece[3] });
        }
        (last_new, last_old) = (scan - backward, place.saturating_sub(backward));
    }
    Ok(pieces)
}

/// How far to grow: where twice the agreeing bytes exceed the length the most.
fn grow<'a>(pairs: impl Iterator<Item = (&'a u8, &'a u8)>) -> usize {
    let (mut score, mut best, mut length) = (0_i64, 0_i64, 0);
    for (at, (a, b)) in pairs.enumerate() {
        score += if a == b { 1 } else { -1 };
        if score > best {
            (best, length) = (score, at + 1);
        }
    }
    length
}
