//! In which order files are packed, and which of them share a block of a compressed archive.
//!
//! A block that comes out as it did before need not be compressed again, so the rule looks at
//! nothing far away. Files come in units: what one package owns, or what lies in one directory and
//! belongs to none.
//!
//! - A unit of at least half a block's size has blocks of its own. Those units come first.
//! - The other units stand in a row, in the order given. One of them begins a block when the hash of
//!   its first path is the lowest of all that begin less than a quarter of a block's size before or
//!   after it. So two beginnings are at least that far apart, and whether a unit is one depends on
//!   its neighbours within that distance alone: a unit that changes, comes or goes takes at most the
//!   beginnings next to it along.
//! - What is then larger than a block is divided evenly at files.
//!
//! Within a block machine code comes first, then what compresses well, then what is compressed
//! already: like stands near like, and blocks come out as mostly code or mostly text.

use std::path::PathBuf;

use crate::Sha256Digest;

/// What a file's bytes are like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    /// ELF.
    Code,
    /// Text, tables, everything else.
    Plain,
    /// Compressed already.
    Dense,
}

/// A file to pack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Item {
    /// Relative to the root.
    pub(super) path: PathBuf,
    /// Bytes it takes in the archive, roughly.
    pub(super) size: u64,
    /// What it holds.
    pub(super) class: Class,
}

/// Files that share a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Share {
    /// In the order of the archive.
    pub(super) files: Vec<PathBuf>,
    /// A filter for machine code is worth its while.
    pub(super) code: bool,
}

/// Distributes units, each with at least one file, over blocks of about `block` bytes.
pub(super) fn shares(units: Vec<Vec<Item>>, block: u64) -> Vec<Share> {
    runs(units, block).into_iter().flat_map(|run| divide(run, block)).collect()
}

/// Units and rows of units between two beginnings.
fn runs(units: Vec<Vec<Item>>, block: u64) -> Vec<Vec<Item>> {
    let (large, small): (Vec<_>, Vec<_>) = units.into_iter().partition(|unit| size(unit) >= block / 2);
    let begins = beginnings(&small, block / 4);
    let mut runs = large;
    let mut run = Vec::new();
    for (unit, begins) in small.into_iter().zip(begins) {
        if begins && !run.is_empty() {
            runs.push(std::mem::take(&mut run));
        }
        run.extend(unit);
    }
    if !run.is_empty() {
        runs.push(run);
    }
    runs
}

fn size(items: &[Item]) -> u64 {
    items.iter().map(|item| item.size).sum()
}

/// Which units begin a block.
fn beginnings(units: &[Vec<Item>], reach: u64) -> Vec<bool> {
    let sizes: Vec<_> = units.iter().map(|unit| size(unit)).collect();
    let hashes: Vec<_> = units.iter().map(|unit| hash(unit)).collect();
    let lowest = |at: usize| {
        let mut distance = 0;
        let before = (0..at).rev().take_while(|i| {
            distance += sizes[*i];
            distance < reach
        });
        if before.into_iter().any(|i| hashes[i] <= hashes[at]) {
            return false;
        }
        let mut distance = sizes[at];
        let after = (at + 1..units.len()).take_while(|i| {
            let near = distance < reach;
            distance += sizes[*i];
            near
        });
        after.into_iter().all(|i| hashes[i] > hashes[at])
    };
    (0..units.len()).map(lowest).collect()
}

/// Of a unit's first path, which outlives most changes of the unit.
fn hash(unit: &[Item]) -> Sha256Digest {
    use std::os::unix::ffi::OsStrExt;
    let first = unit.iter().map(|item| item.path.as_os_str()).min();
    Sha256Digest::of(first.unwrap_or_default().as_bytes())
}

/// Puts like beside like and cuts into equal parts.
fn divide(mut items: Vec<Item>, block: u64) -> Vec<Share> {
    items.sort_by(|a, b| (a.class, &a.path).cmp(&(b.class, &b.path)));
    let total = size(&items);
    let goal = total.div_ceil(total.div_ceil(block).max(1));
    let mut parts = vec![Vec::new()];
    let mut filled = 0;
    for item in items {
        // A file goes where the larger half of it belongs.
        if filled > 0 && filled + item.size / 2 > goal {
            parts.push(Vec::new());
            filled = 0;
        }
        filled += item.size;
        if let Some(part) = parts.last_mut() {
            part.push(item);
        }
    }
    parts.into_iter().map(share).collect()
}

fn share(items: Vec<Item>) -> Share {
    let code: u64 = items.iter().filter(|item| item.class == Class::Code).map(|item| item.size).sum();
    // The filter costs text next to nothing and saves code a tenth.
    let code = code * 4 >= size(&items) && code > 0;
    Share { files: items.into_iter().map(|item| item.path).collect(), code }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const BLOCK: u64 = 80_000;

    fn unit(number: usize, sizes: &[(u64, u8)]) -> Vec<Item> {
        let item = |(at, (size, class)): (usize, &(u64, u8))| Item {
            path: format!("usr/lib/{number}/{at}").into(),
            size: *size,
            class: [Class::Code, Class::Plain, Class::Dense][usize::from(*class)],
        };
        sizes.iter().enumerate().map(item).collect()
    }

    /// Units of one to five files, most of them small.
    fn units() -> impl Strategy<Value = Vec<Vec<Item>>> {
        let size = prop_oneof![6 => 512_u64..4_000, 3 => 4_000_u64..20_000, 1 => 20_000_u64..300_000];
        let sizes = prop::collection::vec((size, 0_u8..3), 1..5);
        prop::collection::vec(sizes, 1..200)
            .prop_map(|units| units.iter().enumerate().map(|(number, sizes)| unit(number, sizes)).collect())
    }

    proptest! {
        #[test]
        fn everything_is_packed_once_in_blocks_of_bounded_size(units in units()) {
            let all: Vec<_> = units.iter().flatten().cloned().collect();
            let sizes: std::collections::HashMap<_, _> = all.iter().map(|i| (i.path.clone(), i.size)).collect();
            let shares = shares(units, BLOCK);
            let packed: Vec<_> = shares.iter().flat_map(|share| share.files.clone()).collect();
            prop_assert_eq!(packed.len(), all.len());
            prop_assert_eq!(packed.iter().collect::<BTreeSet<_>>(), sizes.keys().collect());
            for share in &shares {
                let total: u64 = share.files.iter().map(|path| sizes[path]).sum();
                prop_assert!(total <= BLOCK + BLOCK / 2 || share.files.iter().any(|p| sizes[p] > BLOCK / 2));
            }
        }

        #[test]
        fn a_unit_that_changes_comes_or_goes_takes_few_others_along(
            units in units(), at in any::<prop::sample::Index>(), size in 0_u64..100_000,
        ) {
            let before: BTreeSet<_> = runs(units.clone(), BLOCK).into_iter().map(paths).collect();
            let at = at.index(units.len());
            let mut changed = units.clone();
            changed[at][0].size += size;
            let mut fewer = units.clone();
            fewer.remove(at);
            let mut more = units;
            more.insert(at, unit(1000, &[(512 + size, 1)]));
            for after in [changed, fewer, more] {
                let after: BTreeSet<_> = runs(after, BLOCK).into_iter().map(paths).collect();
                prop_assert!(after.difference(&before).count() <= 4);
            }
        }

        #[test]
        fn beginnings_keep_their_distance(units in units()) {
            let reach = BLOCK / 4;
            let mut since = None;
            for (unit, begins) in units.iter().zip(beginnings(&units, reach)) {
                if begins {
                    prop_assert!(since.is_none_or(|since| since >= reach));
                    since = Some(0);
                }
                since = since.map(|since| since + size(unit));
            }
        }
    }

    fn paths(run: Vec<Item>) -> Vec<PathBuf> {
        run.into_iter().map(|item| item.path).collect()
    }

    #[test]
    fn code_stands_before_text_and_asks_for_the_filter() {
        let run = unit(1, &[(9_000, 1), (60_000, 0), (9_000, 2), (50_000, 1), (20_000, 0)]);
        let shares = shares(vec![run], BLOCK);
        let files: Vec<_> = shares.iter().map(|share| share.files.len()).collect();
        assert_eq!((files, shares[0].code, shares[1].code), (vec![2, 3], true, false));
    }

    #[test]
    fn many_tiny_units_are_fast() {
        let units: Vec<_> = (0..100_000).map(|number| unit(number, &[(512, 1)])).collect();
        assert!(shares(units, 8 << 20).len() > 4);
    }
}
