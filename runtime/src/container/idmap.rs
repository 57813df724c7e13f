//! Which ids of the host a container's users have.

use std::fs;

use serde::{Deserialize, Serialize};

use super::config::Settings;
use super::ids::Ids;
use super::name::ContainerName;
use super::record::Config;
use super::runtime::Runtime;
use crate::{Error, Result};

/// Ids a container has: enough for every user a distribution makes, and for `nobody`.
pub const COUNT: u32 = 65536;

/// Where ranges begin when `/etc/subuid` grants root none, and how many there may be.
const FIRST: u32 = 1_000_000;
const SLOTS: u32 = 30_000;
/// The least a container needs: up to `nobody`, 65534.
const LEAST: u32 = 65_535;

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
    fn common(self, other: Self) -> Self {
        let base = self.base.max(other.base);
        let end = |map: Self| map.base.saturating_add(map.count);
        Self { base, count: end(self).min(end(other)).saturating_sub(base) }
    }

    fn without_first(self) -> Self {
        Self { base: self.base.saturating_add(1), count: self.count.saturating_sub(1) }
    }

    fn overlaps(self, other: Self) -> bool {
        let end = |map: Self| u64::from(map.base) + u64::from(map.count);
        u64::from(self.base) < end(other) && u64::from(other.base) < end(self)
    }
}

/// The range that all containers made here share, where this process has only some of the host's
/// ids: in the namespace of an ordinary user, or inside a container. `None` where all ids are.
///
/// # Errors
/// [`Error::NoIds`] when there are too few.
pub fn only_range() -> Result<Option<IdMap>> {
    let read = |path| fs::read_to_string(path).map_err(Error::io(path));
    only_range_of(&read("/proc/self/uid_map")?, &read("/proc/self/gid_map")?)
}

fn only_range_of(uid_map: &str, gid_map: &str) -> Result<Option<IdMap>> {
    let (uids, gids) = (extents(uid_map), extents(gid_map));
    if [&uids, &gids].into_iter().all(|extents| extents.iter().any(|all| all.count == u32::MAX)) {
        return Ok(None);
    }
    let pairs = uids.iter().flat_map(|uid| gids.iter().map(|gid| uid.common(*gid)));
    // Id 0 is whoever makes containers here.
    let without_root = pairs.map(|range| if range.base == 0 { range.without_first() } else { range });
    let widest = without_root.max_by_key(|range| range.count).filter(|range| range.count >= LEAST);
    let range = widest.ok_or(Error::NoIds)?;
    Ok(Some(IdMap { count: range.count.min(COUNT), ..range }))
}

/// What `uid_map` and `gid_map` in `/proc` say is there: first inside, first outside, how many.
fn extents(text: &str) -> Vec<IdMap> {
    let line = |line: &str| {
        let mut numbers = line.split_ascii_whitespace().map(|word| word.parse().ok());
        let (base, _, count) = (numbers.next()??, numbers.next()??, numbers.next()??);
        Some(IdMap { base, count })
    };
    text.lines().filter_map(line).collect()
}

/// Picks a range that no container in `used` has: first from those `/etc/subuid` grants root, then
/// from high ids that nobody was granted.
pub fn allocate(used: &[IdMap], count: u32) -> Result<IdMap> {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    allocate_from(&read("/etc/subuid"), &read("/etc/subgid"), used, count)
}

/// How many ids settings want for a new container.
pub fn wanted(settings: &Settings) -> u32 {
    let size = settings.get("security.idmap.size").and_then(|size| size.parse().ok());
    size.map_or(COUNT, |size: u32| size.max(COUNT))
}

fn allocate_from(subuid: &str, subgid: &str, used: &[IdMap], count: u32) -> Result<IdMap> {
    let (uids, gids) = (parse(subuid), parse(subgid));
    let granted =
        uids.iter().filter(|(owner, uid)| is_root(owner) && gids.contains(&((*owner).clone(), *uid)));
    let granted: Vec<_> = granted.map(|(_, range)| *range).collect();
    let others: Vec<_> =
        uids.iter().chain(&gids).filter(|(owner, _)| !is_root(owner)).map(|(_, range)| *range).collect();
    let free = |slot: &IdMap| !used.iter().any(|other| slot.overlaps(*other));
    let of_root = granted.iter().flat_map(|range| slots(range.base, range.count / COUNT, count));
    let of_nobody =
        slots(FIRST, SLOTS, count).filter(|slot| !others.iter().any(|other| slot.overlaps(*other)));
    of_root.chain(of_nobody).find(free).ok_or(Error::NoIds)
}

impl Runtime {
    /// The ids it runs with. What was chosen by hand must be no other container's.
    pub(super) fn ids(&self, name: &ContainerName, config: &Config, settings: &Settings) -> Result<Ids> {
        let failed = |reason| Error::Start { name: name.to_string(), reason, console: Vec::new() };
        let ids = Ids::of(config.idmap, settings).map_err(failed)?;
        if settings.contains_key("security.idmap.base") {
            for (other, taken) in self.idmaps_of_others(name)? {
                if ids.meets(taken) {
                    return Err(failed(format!("security.idmap.base: these ids are those of {other}")));
                }
            }
        }
        Ok(ids)
    }

    /// All ids in use.
    pub(super) fn idmaps(&self) -> Result<Vec<IdMap>> {
        let mut all = Vec::new();
        for name in self.names()? {
            all.extend(self.idmaps_in_use(&name)?);
        }
        Ok(all)
    }

    /// The ids of containers but one, with their names.
    fn idmaps_of_others(&self, name: &ContainerName) -> Result<Vec<(ContainerName, IdMap)>> {
        let mut all = Vec::new();
        for other in self.names()?.into_iter().filter(|other| other != name) {
            all.extend(self.idmaps_in_use(&other)?.into_iter().map(|map| (other.clone(), map)));
        }
        Ok(all)
    }

    /// Those a container's files have, and those that were chosen for it.
    fn idmaps_in_use(&self, name: &ContainerName) -> Result<Vec<IdMap>> {
        let config = Config::read(&self.dir().join(name.as_str()))?;
        let chosen = self.expand(&config)?;
        let base = chosen.get("security.idmap.base").and_then(|base| base.parse().ok());
        let chosen = base.map(|base| IdMap { base, ..config.idmap });
        Ok([config.idmap].into_iter().chain(chosen).collect())
    }
}

/// Ranges of `count` ids that begin at every slot and end within the last.
fn slots(base: u32, number: u32, count: u32) -> impl Iterator<Item = IdMap> {
    let further = count.div_ceil(COUNT).saturating_sub(1);
    (0..number.saturating_sub(further)).map_while(move |slot| {
        let base = slot.checked_mul(COUNT)?.checked_add(base)?;
        // The last id, all bits set, means "no id" to the kernel.
        base.checked_add(count)?;
        Some(IdMap { base, count })
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
            let map = allocate_from(text, text, &used, COUNT).unwrap();
            assert_eq!(map.base, expected, "alice's range is hers");
            used.push(map);
        }
        let wide = allocate_from(text, text, &[], 131_072).unwrap();
        assert_eq!((wide.base, wide.count), (200_000, 131_072));
        assert_eq!(allocate_from(text, text, &used[..1], 65537).unwrap().base, 1_065_536);
    }

    #[test]
    fn both_files_must_grant() {
        let map = allocate_from("root:200000:65536\n", "", &[], COUNT).unwrap();
        assert_eq!(map.base, FIRST);
    }

    #[test]
    fn where_ids_are_few_all_share_them() {
        assert_eq!(only_range_of("0 0 4294967295\n", "0 0 4294967295\n").unwrap(), None);
        let user = "         0       1000          1\n         1     100000      65536\n";
        let range = |base, count| Some(IdMap { base, count });
        assert_eq!(only_range_of(user, user).unwrap(), range(1, 65536));
        let container = "0 1000000 65536\n";
        assert_eq!(only_range_of(container, container).unwrap(), range(1, 65535));
        let wide = "0 1000 1\n1 100000 1000000\n";
        assert_eq!(only_range_of(wide, wide).unwrap(), range(1, 65536));
        assert_eq!(only_range_of(wide, user).unwrap(), range(1, 65536), "what both have");
        for few in ["0 1000 1\n", "", "0 0 65535\n"] {
            assert!(matches!(only_range_of(few, wide), Err(Error::NoIds)), "{few}");
        }
    }

    #[test]
    fn ranges_run_out() {
        let everybody = format!("x:0:{}\n", u32::MAX);
        assert!(matches!(allocate_from(&everybody, "", &[], COUNT), Err(Error::NoIds)));
    }

    proptest! {
        #[test]
        fn never_overlaps(text in "((root|bob|0):[0-9]{1,10}:[0-9]{1,10}\n){0,4}", many in 1..20_u32) {
            let mut used: Vec<IdMap> = Vec::new();
            for _ in 0..many {
                let Ok(map) = allocate_from(&text, &text, &used, COUNT + many) else { break };
                prop_assert!(used.iter().all(|other| !map.overlaps(*other)));
                prop_assert!(map.base.checked_add(map.count).is_some());
                used.push(map);
            }
        }
    }
}
