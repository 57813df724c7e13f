//! Which ids of the host a container's users have.

use std::fs;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Ids a container has: enough for every user a distribution makes, and for `nobody`.
pub const COUNT: u32 = 65536;

/// Where ranges begin when `/etc/subuid` grants root none, and how many there may be.
const FIRST: u32 = 1_000_000;
const SLOTS: u32 = 30_000;

/// A range of host ids; the container's ids 0 to `count` - 1 are mapped onto it, users and groups
/// alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMap {
    /// The host's id of the container's root.
    pub base: u32,
    /// How many ids.
    pub count: u32,
}

impl IdMap {
    /// As `uid_map` and `gid_map` in `/proc` want it.
    pub fn proc_text(self) -> String {
        format!("0 {} {}\n", self.base, self.count)
    }

    fn overlaps(self, other: Self) -> bool {
        let end = |map: Self| u64::from(map.base) + u64::from(map.count);
        u64::from(self.base) < end(other) && u64::from(other.base) < end(self)
    }
}

/// Picks a range that no container in `used` has: first from those `/etc/subuid` grants root, then
/// from high ids that nobody was granted.
pub fn allocate(used: &[IdMap]) -> Result<IdMap> {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    allocate_from(&read("/etc/subuid"), &read("/etc/subgid"), used)
}

fn allocate_from(subuid: &str, subgid: &str, used: &[IdMap]) -> Result<IdMap> {
    let (uids, gids) = (parse(subuid), parse(subgid));
    let granted =
        uids.iter().filter(|(owner, uid)| is_root(owner) && gids.contains(&((*owner).clone(), *uid)));
    let granted: Vec<_> = granted.map(|(_, range)| *range).collect();
    let others: Vec<_> =
        uids.iter().chain(&gids).filter(|(owner, _)| !is_root(owner)).map(|(_, range)| *range).collect();
    let free = |slot: &IdMap| !used.iter().any(|other| slot.overlaps(*other));
    let of_root = granted.iter().flat_map(|range| slots(range.base, range.count / COUNT));
    let of_nobody = slots(FIRST, SLOTS).filter(|slot| !others.iter().any(|other| slot.overlaps(*other)));
    of_root.chain(of_nobody).find(free).ok_or(Error::NoIds)
}

fn slots(base: u32, number: u32) -> impl Iterator<Item = IdMap> {
    (0..number).map_while(move |slot| {
        let base = slot.checked_mul(COUNT)?.checked_add(base)?;
        // The last id, all bits set, means "no id" to the kernel.
        base.checked_add(COUNT)?;
        Some(IdMap { base, count: COUNT })
    })
}

fn is_root(owner: &str) -> bool {
    owner == "root" || owner == "0"
}

/// `owner:first:count` a line; lines of another form are nobody's.
fn parse(text: &str) -> Vec<(String, IdMap)> {
    let line = |line: &str| {
        let mut parts = line.split(':');
        let owner = parts.next()?.to_owned();
        let base = parts.next()?.trim().parse().ok()?;
        let count = parts.next()?.trim().parse().ok()?;
        Some((owner, IdMap { base, count }))
    };
    text.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn roots_own_ranges_come_first() {
        let text = "alice:1000000:65536\nroot:200000:131072\n";
        let mut used = Vec::new();
        for expected in [200_000, 265_536, 1_065_536] {
            let map = allocate_from(text, text, &used).unwrap();
            assert_eq!(map.base, expected, "alice's range is hers");
            used.push(map);
        }
    }

    #[test]
    fn both_files_must_grant() {
        let map = allocate_from("root:200000:65536\n", "", &[]).unwrap();
        assert_eq!(map.base, FIRST);
    }

    #[test]
    fn ranges_run_out() {
        let everybody = format!("x:0:{}\n", u32::MAX);
        assert!(matches!(allocate_from(&everybody, "", &[]), Err(Error::NoIds)));
    }

    proptest! {
        #[test]
        fn never_overlaps(text in "((root|bob|0):[0-9]{1,10}:[0-9]{1,10}\n){0,4}", many in 1..20) {
            let mut used: Vec<IdMap> = Vec::new();
            for _ in 0..many {
                let Ok(map) = allocate_from(&text, &text, &used) else { break };
                prop_assert!(used.iter().all(|other| !map.overlaps(*other)));
                prop_assert!(map.base.checked_add(map.count).is_some());
                used.push(map);
            }
        }
    }
}
