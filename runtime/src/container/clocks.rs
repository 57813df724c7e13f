//! Clocks of a container's own (`linux.time.own`): a time namespace, in which the monotonic clocks and with them
//! the uptime begin with the container. The time of day is everybody's.

use std::fmt::Write as _;
use std::fs::{self, File};

use nix::sched::{CloneFlags, setns, unshare};
use nix::time::{ClockId, clock_gettime};

use super::config::Settings;
use super::config::keys::is_true;

/// Whether a container has them.
pub(in crate::container) const OWN: &str = "linux.time.own";

/// Makes the namespace, if it is wanted, and enters it. `/proc` shows this process still, which has not become
/// root inside: it may write what is its own there.
pub(super) fn begin(settings: &Settings) -> Result<(), String> {
    if !is_true(settings, OWN) {
        return Ok(());
    }
    let failed = |what: &str, error: &dyn std::fmt::Display| format!("{OWN}: {what}: {error}");
    let flag = CloneFlags::from_bits_retain(libc::CLONE_NEWTIME);
    unshare(flag)
        .map_err(|e| failed("this kernel has no time namespaces (CONFIG_TIME_NS, since Linux 5.6)", &e))?;
    let mut offsets = String::new();
    for (name, clock) in [("monotonic", ClockId::CLOCK_MONOTONIC), ("boottime", ClockId::CLOCK_BOOTTIME)] {
        let now = clock_gettime(clock).map_err(|e| failed(name, &e))?;
        let _ = writeln!(offsets, "{name} -{} 0", now.tv_sec());
    }
    fs::write("/proc/self/timens_offsets", offsets).map_err(|e| failed("its clocks", &e))?;
    // Before Linux 6.2 only children are in it by themselves.
    let own = File::open("/proc/self/ns/time_for_children").map_err(|e| failed("entering it", &e))?;
    setns(own, flag).map_err(|e| failed("entering it", &e))
}
