//! Takes out of a root file system what belongs to the machine that built it.

use crate::Result;
use crate::rootfs::{Attributes, Rootfs};

/// Removes machine ids, host keys, seeds, logs, lists and caches.
pub(crate) fn remove(rootfs: &Rootfs) -> Result<()> {
    // An empty file, not a missing one: systemd then makes an id at first boot and lets units
    // with ConditionFirstBoot alone.
    if rootfs.read("/etc/machine-id")?.is_some() {
        rootfs.write("/etc/machine-id", b"", Attributes::default())?;
    }
    for file in [
        "/var/lib/dbus/machine-id",
        "/var/lib/systemd/random-seed",
        "/var/lib/urandom/random-seed",
        "/usr/sbin/policy-rc.d",
        "/var/lib/dpkg/lock",
        "/var/lib/dpkg/lock-frontend",
        "/var/lib/dpkg/triggers/Lock",
        "/var/lib/apt/extended_states.lock",
        "/var/cache/ldconfig/aux-cache",
        "/var/cache/debconf/config.dat-old",
        "/var/cache/debconf/templates.dat-old",
        "/var/lib/dpkg/status-old",
        "/var/lib/dpkg/diversions-old",
        "/var/lib/dpkg/available-old",
        "/etc/passwd-",
        "/etc/group-",
        "/etc/shadow-",
        "/etc/gshadow-",
    ] {
        rootfs.remove(file)?;
    }
    for directory in ["/tmp", "/var/tmp", "/run", "/dev", "/proc", "/sys"] {
        rootfs.empty(directory)?;
    }
    // apt's own directories stay.
    rootfs.remove_matching("/var/lib/apt/lists", |name| !matches!(name, "partial" | "auxfiles"))?;
    rootfs.remove_matching("/var/cache/apt", |name| name != "archives")?;
    rootfs.remove_matching("/var/cache/apt/archives", |name| name != "partial")?;
    for directory in ["/var/lib/apt/lists/partial", "/var/cache/apt/archives/partial"] {
        rootfs.empty(directory)?;
    }
    rootfs.remove_matching("/etc/ssh", |name| name.starts_with("ssh_host_"))?;
    rootfs.remove_matching("/var/log", |name| {
        name.strip_suffix(".log").is_some() || matches!(name, "faillog" | "lastlog")
    })?;
    rootfs.empty("/var/log/apt")
}
