//! Which ids of the host a container's users and groups have in one run.
//!
//! On disk a container's files always have the ids of its [`IdMap`]. Settings may give it others while
//! it runs (`security.privileged`, `security.idmap.base`, `raw.idmap`); mounts then translate, so that
//! files stay whose they are when settings change.

use std::fs;

use serde::{Deserialize, Serialize};

use super::config::Settings;
use super::config::keys::is_true;
use super::idmap::IdMap;

/// A run of ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extent {
    /// The container's first.
    pub inside: u32,
    /// The host's, as this process sees it.
    pub host: u32,
    /// How many.
    pub count: u32,
}

/// Those of users, and those of groups.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ids {
    uids: Vec<Extent>,
    gids: Vec<Extent>,
}

/// A line of `raw.idmap`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Raw {
    users: bool,
    groups: bool,
    /// `host` as the machine knows it.
    extent: Extent,
}

/// The kernel takes a page of text; each line of `raw.idmap` adds up to two of its lines.
const MOST_LINES: usize = 40;

impl From<IdMap> for Ids {
    fn from(map: IdMap) -> Self {
        let all = vec![Extent { inside: 0, host: map.base, count: map.count }];
        Self { uids: all.clone(), gids: all }
    }
}

impl Ids {
    /// Those of a container that keeps its files with the ids of `disk`. The error names the setting.
    pub fn of(disk: IdMap, settings: &Settings) -> Result<Self, String> {
        let maps = || Ok((map_of("self", "uid_map")?, map_of("self", "gid_map")?));
        let (uids, gids) = maps().map_err(|error: std::io::Error| format!("ids: {error}"))?;
        Self::seen_from(disk, settings, &uids, &gids)
    }

    fn seen_from(
        disk: IdMap,
        settings: &Settings,
        uids_here: &[Extent],
        gids_here: &[Extent],
    ) -> Result<Self, String> {
        let number = |key: &str| settings.get(key).and_then(|text| text.parse::<u32>().ok());
        let size = number("security.idmap.size").unwrap_or(disk.count);
        if size > disk.count {
            return Err(format!(
                "security.idmap.size: it was made with {} ids; more are given when a container is created",
                disk.count
            ));
        }
        let whole = [uids_here, gids_here].iter().all(|here| translate(here, 0, u32::MAX) == Some(0));
        let (privileged, base) = (is_true(settings, "security.privileged"), number("security.idmap.base"));
        if !whole && (privileged || base.is_some()) {
            let key = if privileged { "security.privileged" } else { "security.idmap.base" };
            return Err(format!("{key} needs root of the host; raw.idmap gives a container your own id"));
        }
        if !whole && is_true(settings, "security.idmap.isolated") {
            return Err("security.idmap.isolated needs root of the host: an ordinary user's containers share the user's ids".into());
        }
        let host = if privileged { 0 } else { base.unwrap_or(disk.base) };
        if host.checked_add(size).is_none() {
            return Err("security.idmap.base: there are not so many ids above it".into());
        }
        let all = vec![Extent { inside: 0, host, count: size }];
        let mut ids = Self { uids: all.clone(), gids: all };
        for raw in settings.get("raw.idmap").and_then(|text| parse(text)).unwrap_or_default() {
            if raw.extent.inside.checked_add(raw.extent.count).is_none_or(|end| end > size) {
                return Err(format!("raw.idmap: the container's ids are those below {size}"));
            }
            for (wanted, here, extents) in
                [(raw.users, uids_here, &mut ids.uids), (raw.groups, gids_here, &mut ids.gids)]
            {
                if wanted {
                    let host =
                        translate(here, raw.extent.host, raw.extent.count).ok_or_else(|| not_ours(here))?;
                    give(extents, Extent { host, ..raw.extent });
                }
            }
        }
        Ok(ids)
    }

    /// Those of a process.
    pub fn of_process(pid: i32) -> std::io::Result<Self> {
        let pid = pid.to_string();
        Ok(Self { uids: map_of(&pid, "uid_map")?, gids: map_of(&pid, "gid_map")? })
    }

    /// What `uid_map` and `gid_map` in `/proc` want.
    pub fn proc_texts(&self) -> [String; 2] {
        [&self.uids, &self.gids].map(|extents| lines(extents.iter().map(|e| (e.inside, e.host, e.count))))
    }

    /// The same for a mount that shows these ids where files have those of `disk`.
    pub fn over(&self, disk: IdMap) -> [String; 2] {
        [&self.uids, &self.gids].map(|extents| {
            let kept = extents.iter().filter(|e| e.inside < disk.count);
            lines(kept.map(|e| (disk.base + e.inside, e.host, e.count.min(disk.count - e.inside))))
        })
    }

    /// As [`Ids::over`], for a mount in which the host's root makes files of its own besides; and the
    /// user and group which these have on disk.
    pub fn over_with_root(&self, disk: IdMap) -> ([String; 2], [u32; 2]) {
        let sides = [&self.uids, &self.gids];
        let root = sides.map(|extents| extents.iter().find(|e| e.host == 0 && e.inside < disk.count));
        let mut maps = self.over(disk);
        for (map, _) in maps.iter_mut().zip(root).filter(|(_, root)| root.is_none()) {
            map.push_str("0 0 1\n");
        }
        (maps, root.map(|root| root.map_or(0, |e| disk.base + e.inside)))
    }

    /// Whether this process's root is somebody in the container.
    pub fn include_root(&self) -> bool {
        self.uids.iter().chain(&self.gids).any(|e| e.host == 0)
    }

    /// A user's id on the host.
    pub fn uid(&self, inside: u32) -> Option<u32> {
        to_host(&self.uids, inside)
    }

    /// A group's.
    pub fn gid(&self, inside: u32) -> Option<u32> {
        to_host(&self.gids, inside)
    }

    /// Whether any of these ids is one of `other`.
    pub fn meets(&self, other: IdMap) -> bool {
        let end = |first: u32, count: u32| u64::from(first) + u64::from(count);
        self.uids.iter().chain(&self.gids).any(|e| {
            u64::from(e.host) < end(other.base, other.count) && u64::from(other.base) < end(e.host, e.count)
        })
    }
}

/// Whether it is a list of lines that make sense, for `raw.idmap`.
pub fn is_raw(text: &str) -> bool {
    parse(text).is_some_and(|lines| !lines.is_empty())
}

/// Lines such as `both 1000 1000` or `uid 50-60 500-510`: ids of the host, then of the container.
fn parse(text: &str) -> Option<Vec<Raw>> {
    let lines: Option<Vec<_>> =
        text.lines().map(str::trim).filter(|line| !line.is_empty()).map(parse_line).collect();
    lines.filter(|lines| lines.len() <= MOST_LINES)
}

fn parse_line(line: &str) -> Option<Raw> {
    let words: Vec<_> = line.split_ascii_whitespace().collect();
    let [kind, host, inside] = words[..] else { return None };
    let (users, groups) = match kind {
        "both" => (true, true),
        "uid" => (true, false),
        "gid" => (false, true),
        _ => return None,
    };
    let range = |text: &str| {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (first, last) = (first.parse::<u32>().ok()?, last.parse::<u32>().ok()?);
        // The last id, all bits set, is none.
        (first <= last && last < u32::MAX).then(|| (first, last - first + 1))
    };
    let ((host, count), (inside, same)) = (range(host)?, range(inside)?);
    (count == same).then_some(Raw { users, groups, extent: Extent { inside, host, count } })
}

/// Gives the container these ids; they replace what it had there, and nobody else has the host's.
fn give(extents: &mut Vec<Extent>, new: Extent) {
    cut(extents, |e| e.inside, new.inside, new.count);
    cut(extents, |e| e.host, new.host, new.count);
    extents.push(new);
    extents.sort_by_key(|e| e.inside);
}

/// Takes the ids from `first` on out, `side` saying on which.
fn cut(extents: &mut Vec<Extent>, side: fn(&Extent) -> u32, first: u32, count: u32) {
    let last = first + count;
    let pieces = |e: Extent| {
        let (begin, end) = (side(&e), side(&e) + e.count);
        let before = Extent { count: first.clamp(begin, end) - begin, ..e };
        let skip = last.clamp(begin, end) - begin;
        let after = Extent { inside: e.inside + skip, host: e.host + skip, count: e.count - skip };
        let apart = first < end && begin < last;
        if apart { vec![before, after] } else { vec![e] }
    };
    *extents = extents.drain(..).flat_map(pieces).filter(|e| e.count > 0).collect();
}

fn to_host(extents: &[Extent], inside: u32) -> Option<u32> {
    let found = extents.iter().find(|e| (e.inside..e.inside + e.count).contains(&inside))?;
    Some(found.host + (inside - found.inside))
}

/// What this process calls ids of the machine; `None` when it has not all of them.
fn translate(here: &[Extent], host: u32, count: u32) -> Option<u32> {
    let end = |first: u32, count: u32| u64::from(first) + u64::from(count);
    let found = here.iter().find(|e| e.host <= host && end(host, count) <= end(e.host, e.count))?;
    Some(found.inside + (host - found.host))
}

fn not_ours(here: &[Extent]) -> String {
    let range = |e: &Extent| match e.count {
        1 => e.host.to_string(),
        _ => format!("{}-{}", e.host, u64::from(e.host) + u64::from(e.count) - 1),
    };
    let all: Vec<_> = here.iter().map(range).collect();
    format!("raw.idmap: only ids that are yours can be given to a container: {}", all.join(", "))
}

fn lines(extents: impl Iterator<Item = (u32, u32, u32)>) -> String {
    let all: Vec<_> = extents.map(|(a, b, c)| format!("{a} {b} {c}\n")).collect();
    all.concat()
}

fn map_of(process: &str, file: &str) -> std::io::Result<Vec<Extent>> {
    let text = fs::read_to_string(format!("/proc/{process}/{file}"))?;
    let line = |line: &str| {
        let mut numbers = line.split_ascii_whitespace().map(|word| word.parse().ok());
        let (inside, host, count) = (numbers.next()??, numbers.next()??, numbers.next()??);
        Some(Extent { inside, host, count })
    };
    Ok(text.lines().filter_map(line).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DISK: IdMap = IdMap { base: 1_000_000, count: 65536 };
    const ALL: [Extent; 1] = [Extent { inside: 0, host: 0, count: u32::MAX }];
    const USER: [Extent; 2] =
        [Extent { inside: 0, host: 1000, count: 1 }, Extent { inside: 1, host: 100_000, count: 65536 }];

    fn ids(disk: IdMap, pairs: &[(&str, &str)], here: &[Extent]) -> Result<Ids, String> {
        let settings = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Ids::seen_from(disk, &settings, here, here)
    }

    #[test]
    fn settings_choose_ids_and_files_keep_theirs() {
        let same = ids(DISK, &[], &ALL).unwrap();
        assert_eq!(same, Ids::from(DISK));
        assert_eq!(same.over(DISK)[0], "1000000 1000000 65536\n");
        let privileged = ids(DISK, &[("security.privileged", "true")], &ALL).unwrap();
        assert_eq!(privileged.proc_texts()[1], "0 0 65536\n");
        assert_eq!(privileged.over(DISK)[0], "1000000 0 65536\n");
        let moved =
            ids(DISK, &[("security.idmap.base", "500000"), ("security.idmap.size", "70")], &ALL).unwrap();
        assert_eq!(moved.proc_texts()[0], "0 500000 70\n");
        assert!(moved.meets(IdMap { base: 500_069, count: 1 }));
        assert!(!moved.meets(IdMap { base: 500_070, count: 1 }));
        let raw = ids(DISK, &[("raw.idmap", "both 1000 1000\nuid 50-51 500-501\n")], &ALL).unwrap();
        assert_eq!(raw.uid(1000), Some(1000));
        assert_eq!((raw.uid(501), raw.gid(501)), (Some(51), Some(1_000_501)));
        assert_eq!(raw.over(DISK)[1], "1000000 1000000 1000\n1001000 1000 1\n1001001 1001001 64535\n");
    }

    #[test]
    fn an_ordinary_user_gives_away_own_ids_only() {
        let disk = IdMap { base: 1, count: 65536 };
        let own = ids(disk, &[("raw.idmap", "both 1000 0")], &USER).unwrap();
        assert_eq!(own.proc_texts()[0], "0 0 1\n1 2 65535\n");
        for (key, value) in
            [("raw.idmap", "uid 0 0"), ("raw.idmap", "gid 1001 5"), ("raw.idmap", "uid 999-1000 1-2")]
        {
            let reason = ids(disk, &[(key, value)], &USER).unwrap_err();
            assert!(reason.contains("1000, 100000-165535"), "{reason}");
        }
        for (key, value) in [
            ("security.privileged", "true"),
            ("security.idmap.isolated", "true"),
            ("security.idmap.base", "70000"),
        ] {
            let reason = ids(disk, &[(key, value)], &USER);
            assert!(reason.unwrap_err().contains(key));
        }
    }

    #[test]
    fn lines_are_what_they_should_be() {
        for good in ["both 1 2", " gid 1-2 3-4 \n\n uid 0 0"] {
            assert!(is_raw(good), "{good}");
        }
        for bad in
            ["", "1 2", "both 1", "both 1 2 3", "uid 1-2 3", "uid 2-1 3-2", "uid -1 1", "uid 4294967295 1"]
        {
            assert!(!is_raw(bad), "{bad}");
        }
        assert!(ids(DISK, &[("raw.idmap", "both 1 65536")], &ALL).is_err(), "an id it has not");
        assert!(ids(DISK, &[("security.idmap.size", "65537")], &ALL).is_err());
    }

    proptest! {
        #[test]
        fn maps_stay_one_to_one(
            raw in proptest::collection::vec((0..70_000_u32, 1..2000_u32, 0..60_000_u32, any::<bool>()), 0..20),
        ) {
            let line = |(host, count, inside, near): &(u32, u32, u32, bool)| {
                let host = host + if *near { 980_000 } else { 0 };
                format!("both {host}-{} {inside}-{}\n", host + count - 1, inside + count - 1)
            };
            let text: String = raw.iter().map(line).collect();
            let ids = ids(DISK, &[("raw.idmap", text.as_str())], &ALL).unwrap();
            for side in [(|e| e.inside) as fn(&Extent) -> u32, |e| e.host] {
                let mut all: Vec<_> = ids.uids.iter().map(|e| (side(e), e.count)).collect();
                all.sort_unstable();
                prop_assert!(all.windows(2).all(|pair| pair[0].0 + pair[0].1 <= pair[1].0));
            }
            if let Some((host, count, inside, near)) = raw.last() {
                let host = host + if *near { 980_000 } else { 0 };
                prop_assert_eq!(ids.uid(inside + count - 1), Some(host + count - 1));
            }
        }

        #[test]
        fn any_text_is_judged(text in "\\PC{0,60}") {
            let _ = is_raw(&text);
        }
    }
}
