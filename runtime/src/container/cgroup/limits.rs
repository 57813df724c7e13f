//! A container's limits, written to whichever hierarchy has the controller.

use std::fs;
use std::io;
use std::path::Path;

use super::{Cgroups, Hierarchy};
use crate::container::config::Settings;
use crate::container::config::keys::{Allowance, allowance, cpu_set, is_true, memory, total_memory};

/// A controller's files and what to write there. A file that is not there is passed over if
/// another one of the same limit is.
type Writes = Vec<(&'static str, String)>;

/// A limit: the keys that make it, the controller it needs on v1 and on v2, and what is written.
struct Limit {
    keys: &'static [&'static str],
    v1: (&'static str, Writes),
    v2: (&'static str, Writes),
}

impl Cgroups {
    /// Sets what `settings` say. With `changed`, only limits that rest on these keys are written, back
    /// to none where nothing is set; without, only those that are set. Returns one line for each limit
    /// that is not kept, and why.
    pub fn limit(&self, settings: &Settings, changed: Option<&[&str]>) -> Vec<String> {
        let mut notes = Vec::new();
        for limit in limits(settings, &self.id) {
            let set: Vec<_> = limit.keys.iter().filter(|key| settings.contains_key(**key)).collect();
            let wanted = match changed {
                Some(changed) => limit.keys.iter().any(|key| changed.contains(key)),
                None => !set.is_empty(),
            };
            if let Some(name) = set.first().copied().or(limit.keys.first()).filter(|_| wanted)
                && let Err(reason) = self.write(&limit)
                && !set.is_empty()
            {
                notes.push(format!("{name} is not kept: {reason}"));
            }
        }
        notes
    }

    fn write(&self, limit: &Limit) -> Result<(), String> {
        let (controller, writes) = &limit.v1;
        let has = |hierarchy: &&Hierarchy| hierarchy.controllers.iter().any(|c| c == controller);
        if let Some(hierarchy) = self.host.hierarchies.iter().find(has) {
            return write_all(&self.dir(hierarchy), controller, writes);
        }
        let (controller, writes) = &limit.v2;
        let Some(hierarchy) = self.host.hierarchies.iter().find(|h| h.v2) else {
            return Err("no control group was delegated to you; see millstream check".into());
        };
        let dir = self.dir(hierarchy);
        let controllers = fs::read_to_string(dir.join("cgroup.controllers")).unwrap_or_default();
        if !controllers.split_ascii_whitespace().any(|c| c == *controller) {
            return Err(format!("the controller {controller} is not on this host, or not delegated to you"));
        }
        write_all(&dir, controller, writes)
    }
}

fn write_all(dir: &Path, controller: &str, writes: &Writes) -> Result<(), String> {
    let mut written = 0;
    for (file, value) in writes {
        match fs::write(dir.join(file), value) {
            Ok(()) => written += 1,
            Err(error)
                if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => {}
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                return Err(format!("{file}: {value} is less than what is in use"));
            }
            Err(error) => return Err(format!("{file}: {value}: {error}")),
        }
    }
    if written == 0 && !writes.is_empty() {
        return Err(format!("the controller {controller} cannot do that on this host"));
    }
    Ok(())
}

fn limits(settings: &Settings, id: &str) -> Vec<Limit> {
    let get = |key: &str| settings.get(key).map(String::as_str);
    let priority = |key: &str| get(key).and_then(|value| value.parse::<u64>().ok()).unwrap_or(10);
    vec![
        Limit {
            keys: &["limits.processes"],
            v1: ("pids", vec![("pids.max", get("limits.processes").unwrap_or("max").to_owned())]),
            v2: ("pids", vec![("pids.max", get("limits.processes").unwrap_or("max").to_owned())]),
        },
        cpus(get("limits.cpu"), id),
        cpu_time(get("limits.cpu.allowance").and_then(allowance), priority("limits.cpu.priority")),
        memory_size(settings),
        swap_priority(get("limits.memory.swap.priority").and_then(|value| value.parse().ok())),
        disk(get("limits.disk.priority").map(|_| priority("limits.disk.priority"))),
    ]
}

/// Containers with a number of processors are spread by their ids.
fn cpus(setting: Option<&str>, id: &str) -> Limit {
    let online = fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default();
    let online = cpu_set(&online).unwrap_or_else(|| vec![0]);
    let chosen = match setting.map(|text| (text, text.parse::<usize>())) {
        None => online,
        Some((_, Ok(count))) => {
            let first = id.bytes().fold(0_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
            (0..count.min(online.len())).map(|n| online[(first % online.len() + n) % online.len()]).collect()
        }
        Some((text, Err(_))) => cpu_set(text).unwrap_or(online),
    };
    let list = chosen.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let writes = vec![("cpuset.cpus", list)];
    Limit { keys: &["limits.cpu"], v1: ("cpuset", writes.clone()), v2: ("cpuset", writes) }
}

fn cpu_time(allowance: Option<Allowance>, priority: u64) -> Limit {
    let (percent, quota) = match allowance {
        None => (100, None),
        Some(Allowance::Share(percent)) => (percent, None),
        Some(Allowance::Time { quota, period }) => (100, Some((quota, period))),
    };
    let lower = 10 - priority;
    let shares = (1024 * percent / 100).saturating_sub(lower).max(2);
    let weight = percent.saturating_sub(lower).max(1);
    let period = quota.map_or(100_000, |(_, period)| period);
    let v1 = vec![
        ("cpu.shares", shares.to_string()),
        ("cpu.cfs_period_us", period.to_string()),
        ("cpu.cfs_quota_us", quota.map_or_else(|| "-1".into(), |(quota, _)| quota.to_string())),
    ];
    let most = quota.map_or_else(|| format!("max {period}"), |(quota, period)| format!("{quota} {period}"));
    let v2 = vec![("cpu.weight", weight.to_string()), ("cpu.max", most)];
    Limit { keys: &["limits.cpu.allowance", "limits.cpu.priority"], v1: ("cpu", v1), v2: ("cpu", v2) }
}

fn memory_size(settings: &Settings) -> Limit {
    let bytes = settings.get("limits.memory").and_then(|text| memory(text, total_memory()));
    let soft = settings.get("limits.memory.enforce").is_some_and(|how| how == "soft");
    let hard = bytes.filter(|_| !soft);
    let no_swap = settings.contains_key("limits.memory.swap") && !is_true(settings, "limits.memory.swap");
    let text =
        |bytes: Option<u64>, none: &str| bytes.map_or_else(|| none.to_owned(), |bytes| bytes.to_string());
    let soft = bytes.filter(|_| soft);
    // Memory and swap together may not be less than memory: open that, then close it again.
    let v1 = vec![
        ("memory.memsw.limit_in_bytes", "-1".to_owned()),
        ("memory.limit_in_bytes", text(hard, "-1")),
        ("memory.memsw.limit_in_bytes", text(hard.filter(|_| no_swap), "-1")),
        ("memory.soft_limit_in_bytes", text(soft, "-1")),
    ];
    let v2 = vec![
        ("memory.max", text(hard, "max")),
        ("memory.high", text(soft, "max")),
        ("memory.swap.max", text(no_swap.then_some(0), "max")),
    ];
    let keys = &["limits.memory", "limits.memory.enforce", "limits.memory.swap"];
    Limit { keys, v1: ("memory", v1), v2: ("memory", v2) }
}

/// Cgroup2 has no such thing: there it is refused.
fn swap_priority(priority: Option<u64>) -> Limit {
    let swappiness = priority.map_or(60, |priority| 50 + priority);
    Limit {
        keys: &["limits.memory.swap.priority"],
        v1: ("memory", vec![("memory.swappiness", swappiness.to_string())]),
        v2: ("memory", vec![("memory.swappiness", swappiness.to_string())]),
    }
}

fn disk(priority: Option<u64>) -> Limit {
    let v1 = priority.map_or(500, |priority| (priority * 100).max(10));
    let v2 = priority.map_or(100, |priority| (priority * 100).max(1));
    Limit {
        keys: &["limits.disk.priority"],
        v1: ("blkio", vec![("blkio.weight", v1.to_string()), ("blkio.bfq.weight", v1.to_string())]),
        v2: ("io", vec![("io.weight", v2.to_string()), ("io.bfq.weight", v2.to_string())]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_set_means_no_limit() {
        for limit in limits(&Settings::new(), "c1-abc") {
            let all = limit.v1.1.iter().chain(&limit.v2.1);
            for (file, value) in all.filter(|(file, _)| file.ends_with("max") || file.contains("limit")) {
                assert!(value.starts_with("max") || value == "-1", "{file}: {value}");
            }
        }
    }

    #[test]
    fn settings_become_writes() {
        let set = |pairs: &[(&str, &str)]| -> Settings {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        let find = |settings: &Settings, key: &str| {
            limits(settings, "x").into_iter().find(|limit| limit.keys.contains(&key)).unwrap()
        };
        let cpu = find(
            &set(&[("limits.cpu.allowance", "25ms/100ms"), ("limits.cpu.priority", "8")]),
            "limits.cpu.priority",
        );
        assert_eq!(cpu.v2.1, [("cpu.weight", "98".into()), ("cpu.max", "25000 100000".into())]);
        assert_eq!(cpu.v1.1[0], ("cpu.shares", "1022".into()));
        let memory =
            find(&set(&[("limits.memory", "1MiB"), ("limits.memory.swap", "false")]), "limits.memory");
        assert_eq!(memory.v2.1[0], ("memory.max", "1048576".into()));
        assert_eq!(memory.v2.1[2], ("memory.swap.max", "0".into()));
        assert_eq!(memory.v1.1[2].1, "1048576");
        let soft =
            find(&set(&[("limits.memory", "1MiB"), ("limits.memory.enforce", "soft")]), "limits.memory");
        assert_eq!((soft.v2.1[0].1.as_str(), soft.v2.1[1].1.as_str()), ("max", "1048576"));
    }
}
