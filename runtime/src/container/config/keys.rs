//! The keys a container's configuration may have, and what their values may be. Names and meanings
//! follow LXD's.

use std::fs;

use super::super::ids::is_raw;
use super::{Settings, kernel, oci};
use crate::container::{clocks, label, tending};
use crate::{Error, Result};

/// A key, what it takes, and whether a value is that.
struct Key {
    name: &'static str,
    takes: &'static str,
    allows: fn(&str) -> bool,
}

const KEYS: &[Key] = &[
    Key { name: "boot.autostart", takes: "true or false", allows: is_bool },
    Key { name: "boot.autostart.delay", takes: "seconds to wait after it has started", allows: is_number },
    Key { name: "boot.autostart.priority", takes: "a number; higher starts earlier", allows: is_number },
    Key { name: "cloud-init.network-config", takes: "cloud-init's network-config", allows: is_any },
    Key { name: "cloud-init.user-data", takes: "cloud-init's user-data", allows: is_any },
    Key { name: "cloud-init.vendor-data", takes: "cloud-init's vendor-data", allows: is_any },
    Key { name: "hooks.post-start", takes: HOOK, allows: is_hook },
    Key { name: "hooks.post-stop", takes: HOOK, allows: is_hook },
    Key { name: "hooks.pre-start", takes: HOOK, allows: is_hook },
    Key {
        name: "hooks.timeout",
        // Less than a stop waits for the end.
        takes: "seconds from 1 to 25",
        allows: |value| value.parse::<u32>().is_ok_and(|seconds| (1..=25).contains(&seconds)),
    },
    Key { name: "limits.cpu", takes: "a number of processors, or a set as in 0-1,3", allows: is_cpus },
    Key {
        name: "limits.cpu.allowance",
        takes: "a share as in 50%, or time as in 25ms/100ms",
        allows: is_allowance,
    },
    Key { name: "limits.cpu.priority", takes: "0 to 10", allows: is_priority },
    Key { name: "limits.disk.priority", takes: "0 to 10", allows: is_priority },
    Key { name: "limits.memory", takes: "a size as in 512MiB, or a share as in 50%", allows: is_memory },
    Key {
        name: "limits.memory.enforce",
        takes: "hard or soft",
        allows: |value| matches!(value, "hard" | "soft"),
    },
    Key { name: "limits.memory.swap", takes: "true or false", allows: is_bool },
    Key { name: "limits.memory.swap.priority", takes: "0 to 10", allows: is_priority },
    Key {
        name: "limits.processes",
        takes: "a number from 1",
        allows: |value| value.parse::<u32>().is_ok_and(|n| n > 0),
    },
    Key { name: clocks::OWN, takes: "true or false", allows: is_bool },
    Key {
        name: "raw.idmap",
        takes: "lines as in: both 1000 1000, or uid 50-60 500-510 (the host's ids, the container's)",
        allows: is_raw,
    },
    Key {
        name: "security.apparmor.profile",
        takes: "the name of a loaded profile, or unconfined",
        allows: |value| label::is_label(value),
    },
    Key {
        name: "security.idmap.base",
        takes: "the host's id of the container's root, from 65536",
        allows: |value| value.parse::<u32>().is_ok_and(|base| base >= 65536),
    },
    Key { name: "security.idmap.isolated", takes: "true or false", allows: is_bool },
    Key {
        name: "security.idmap.size",
        takes: "a number of ids from 1000 to 16777216",
        allows: |value| value.parse::<u32>().is_ok_and(|size| (1000..=1 << 24).contains(&size)),
    },
    Key { name: "security.nesting", takes: "true or false", allows: is_bool },
    Key { name: "security.privileged", takes: "true or false", allows: is_bool },
    Key {
        name: "security.selinux.context",
        takes: "a security context of the host's policy",
        allows: |value| label::is_label(value),
    },
    Key {
        name: "snapshots.expiry",
        takes: "a time as in 2H, 7d, 4w or 1m 12H (M minutes, H hours, d days, w weeks, m months, y years)",
        allows: |value| tending::lifetime(value).is_some(),
    },
    Key {
        name: "snapshots.pattern",
        takes: "a name, with %d where a number goes",
        allows: |value| tending::is_pattern(value),
    },
    Key {
        name: "snapshots.schedule",
        takes: "MINUTE HOUR DAY MONTH WEEKDAY in UTC, or one of @hourly, @daily, @weekly, @monthly",
        allows: |value| tending::schedule(value).is_ok(),
    },
    Key { name: "snapshots.schedule.stopped", takes: "true or false", allows: is_bool },
];

const HOOK: &str = "a command line of the host's /bin/sh, of at most 4096 bytes";

/// What other programs have, and what there is instead.
const ELSEWHERE: &[(&str, &str)] = &[("lxc.", OTHERS), ("raw.", OTHERS)];
const OTHERS: &str = "settings of other runtimes are not read; there are devices for lxc.mount and lxc.net, hooks.* \
    for lxc.hook, limits.* for lxc.cgroup, environment.* for lxc.environment, raw.idmap and security.privileged \
    for lxc.idmap";

/// Whose last part is free, and that has any value.
const FREE: [&str; 2] = ["environment.", "user."];
/// Bytes of a value.
const LARGEST: usize = 64 << 10;

/// Accepts what may be set; the error says what would be.
pub fn check(key: &str, value: &str) -> Result<()> {
    let refused = |reason: String| Err(Error::Setting { key: shown(key), reason });
    if value.len() > LARGEST || value.contains('\0') {
        return refused(format!("a value has at most {LARGEST} bytes, and no zero byte"));
    }
    if let Some(name) = FREE.iter().find_map(|prefix| key.strip_prefix(prefix)) {
        let good =
            !name.is_empty() && name.len() <= 200 && !name.contains(|c: char| c == '=' || c.is_control());
        return if good { Ok(()) } else { refused("what follows the first dot is no name".into()) };
    }
    if let Some(judged) = judge_kernel(key, value) {
        return judged.or_else(refused);
    }
    let Some(known) = KEYS.iter().find(|known| known.name == key) else {
        if let Some((_, instead)) = ELSEWHERE.iter().find(|(prefix, _)| key.starts_with(prefix)) {
            return refused((*instead).to_owned());
        }
        let names: Vec<_> = KEYS.iter().map(|known| known.name).collect();
        return refused(format!(
            "there is no such key; there are {}, raw.oci, limits.kernel.*, linux.sysctl.*, environment.* and user.*",
            names.join(", ")
        ));
    };
    if (known.allows)(value) { Ok(()) } else { refused(format!("{value:?} is not {}", known.takes)) }
}

/// Keys whose last part or value is the kernel's or the runtime specification's; none: it is another.
fn judge_kernel(key: &str, value: &str) -> Option<Result<(), String>> {
    if let Some(name) = key.strip_prefix(kernel::LIMITS) {
        return Some(kernel::Limit::parse(name, value).map(drop));
    }
    if let Some(name) = key.strip_prefix(kernel::SYSCTL) {
        return Some(kernel::check_sysctl(name));
    }
    (key == "raw.oci").then(|| oci::Oci::parse(value).map(drop))
}

fn shown(key: &str) -> String {
    key.chars().take(80).flat_map(char::escape_debug).collect()
}

/// What a setting that is true or false says; false when it is not set.
pub fn is_true(settings: &Settings, key: &str) -> bool {
    settings.get(key).is_some_and(|value| matches!(value.as_str(), "true" | "1" | "yes" | "on"))
}

/// Whether it is one of the words for true and false.
pub fn is_bool(value: &str) -> bool {
    matches!(value, "true" | "1" | "yes" | "on" | "false" | "0" | "no" | "off")
}

fn is_any(_: &str) -> bool {
    true
}

fn is_hook(value: &str) -> bool {
    !value.trim().is_empty() && value.len() <= 4096
}

fn is_number(value: &str) -> bool {
    value.parse::<u32>().is_ok()
}

fn is_priority(value: &str) -> bool {
    value.parse::<u32>().is_ok_and(|number| number <= 10)
}

fn is_cpus(value: &str) -> bool {
    value.parse::<u32>().map_or_else(|_| cpu_set(value).is_some(), |count| (1..=8192).contains(&count))
}

fn is_allowance(value: &str) -> bool {
    allowance(value).is_some()
}

fn is_memory(value: &str) -> bool {
    memory(value, 1 << 40).is_some()
}

/// The processors in `0-1,3`, sorted; `None` for anything else, or the empty set.
pub fn cpu_set(text: &str) -> Option<Vec<u32>> {
    let mut cpus = Vec::new();
    for part in text.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        if first > last || last >= 8192 {
            return None;
        }
        cpus.extend(first..=last);
    }
    cpus.sort_unstable();
    cpus.dedup();
    Some(cpus)
}

/// How much processor time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allowance {
    /// Compared with others when all want some, in percent.
    Share(u64),
    /// At most so many microseconds in each period of so many.
    Time { quota: u64, period: u64 },
}

/// `50%` or `25ms/100ms`.
pub fn allowance(text: &str) -> Option<Allowance> {
    if let Some(percent) = text.strip_suffix('%') {
        return percent.parse().ok().filter(|n| (1..=100).contains(n)).map(Allowance::Share);
    }
    let (quota, period) = text.split_once('/')?;
    let milliseconds = |text: &str| text.trim().strip_suffix("ms")?.parse::<u64>().ok();
    let (quota, period) = (milliseconds(quota)?, milliseconds(period)?);
    // What the kernel takes.
    let good = quota > 0 && (1..=1000).contains(&period) && quota <= 1_000_000;
    good.then_some(Allowance::Time { quota: quota * 1000, period: period * 1000 })
}

/// Bytes: `512MiB`, `1GB`, `1048576`, or a share of `total`.
pub fn memory(text: &str, total: u64) -> Option<u64> {
    let text = text.trim();
    if let Some(percent) = text.strip_suffix('%') {
        let percent: u64 = percent.parse().ok().filter(|n| (1..=100).contains(n))?;
        return Some(total / 100 * percent);
    }
    millstream_image::size::parse(text).filter(|bytes| *bytes > 0 && *bytes < 1 << 62)
}

/// Bytes of memory this host has.
pub fn total_memory() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn values_are_what_the_keys_take() {
        for (key, good, bad) in [
            ("boot.autostart", "true", "maybe"),
            ("boot.autostart.delay", "5", "-5"),
            ("limits.cpu", "2", "0"),
            ("limits.cpu", "0-1,3", "3-1"),
            ("limits.cpu.allowance", "50%", "0%"),
            ("limits.cpu.allowance", "25ms/100ms", "25/100"),
            ("limits.cpu.priority", "10", "11"),
            ("limits.memory", "512MiB", "512 apples"),
            ("limits.memory", "50%", "101%"),
            ("limits.memory", "99999999", "99999999999TiB"),
            ("limits.memory.enforce", "soft", "mild"),
            ("limits.processes", "100", "0"),
            ("security.apparmor.profile", "unconfined", "two words"),
            ("security.selinux.context", "system_u:system_r:container_t:s0:c1,c2", ""),
            ("snapshots.expiry", "1m 2H", "7 days"),
            ("snapshots.pattern", "nightly-%d", "%d%d"),
            ("snapshots.schedule", "30 3 * * *", "every day"),
            ("snapshots.schedule.stopped", "true", "maybe"),
            ("user.any thing", "\n", "\0"),
            ("hooks.pre-start", "true", " "),
            ("hooks.timeout", "25", "26"),
            ("limits.kernel.nofile", "1024:4096", "many"),
            ("linux.sysctl.net.ipv4.ip_forward", "1", "\0"),
            ("linux.time.own", "true", "maybe"),
            ("raw.idmap", "both 1000 1000", "both 1000"),
            ("raw.oci", "{}", "[]"),
            ("security.idmap.base", "65536", "1000"),
            ("security.idmap.size", "65536", "1"),
            ("security.privileged", "false", "maybe"),
            ("environment.PATH", "/bin", "\0"),
            ("cloud-init.user-data", "#cloud-config\n{}\n", "\0"),
        ] {
            check(key, good).unwrap_or_else(|e| panic!("{e}"));
            assert!(check(key, bad).is_err(), "{key}={bad}");
        }
        for key in [
            "limits.kernel.x",
            "linux.sysctl.vm.swappiness",
            "limits.mem",
            "",
            "user.",
            "environment.A=B",
            "raw.lxc",
            "limits",
        ] {
            assert!(check(key, "1").is_err(), "{key}");
        }
        assert!(check("raw.lxc", "x").unwrap_err().to_string().contains("lxc.mount"));
        assert!(check("limits.mem", "1").unwrap_err().to_string().contains("limits.memory.swap"));
    }

    #[test]
    fn values_mean_what_they_say() {
        assert_eq!(cpu_set("0-1,3,1"), Some(vec![0, 1, 3]));
        assert_eq!(allowance("50%"), Some(Allowance::Share(50)));
        assert_eq!(allowance("25ms/100ms"), Some(Allowance::Time { quota: 25_000, period: 100_000 }));
        assert_eq!(memory("1GiB", 0), Some(1 << 30));
        assert_eq!(memory("1 MB", 0), Some(1_000_000));
        assert_eq!(memory("50%", 1000), Some(500));
        assert!(total_memory() > 1 << 20);
    }

    proptest! {
        #[test]
        fn any_text_is_judged(key in "\\PC{0,40}", value in "\\PC{0,40}") {
            let _ = check(&key, &value);
            for name in KEYS.iter().map(|key| key.name) {
                let _ = check(name, &value);
            }
        }
    }
}
