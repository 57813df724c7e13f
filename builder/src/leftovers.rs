//! Takes out of a root file system what belongs to the machine that built it, to the hour it was
//! built, or to one machine alone.
//!
//! What stays on purpose: `/etc/hostname` and `/etc/hosts`, which the generators fill;
//! `/etc/resolv.conf`, which is the image's unless the build had to lend it; dnf's history, as it
//! says what was asked for; `.pyc` files, since Python embeds hashes rather than times while
//! `SOURCE_DATE_EPOCH` is set.

use crate::Result;
use crate::rootfs::{Attributes, Rootfs};
use crate::rpmdb;

use What::{Contents, Named, This};

/// What of a path goes.
#[derive(Clone, Copy)]
enum What {
    /// The file or directory itself.
    This,
    /// What is in the directory, which stays.
    Contents,
    /// What is in the directory and has such a name.
    Named(fn(&str) -> bool),
}

/// Path, what of it goes, and why.
const LEFTOVERS: &[(&str, What, &str)] = &[
    // One machine's alone.
    ("/var/lib/dbus/machine-id", This, "identifies one machine"),
    ("/etc/ssh", Named(|name| name.starts_with("ssh_host_")), "keys of one machine"),
    ("/etc/pacman.d/gnupg/private-keys-v1.d", Contents, "the key pacman signs its keyring with"),
    ("/etc/pacman.d/gnupg/openpgp-revocs.d", Contents, "belongs to that key"),
    (
        "/etc/pacman.d/gnupg",
        Named(|name| name.starts_with("S.") || name == "random_seed"),
        "gpg's sockets and seed",
    ),
    ("/var/lib/systemd/random-seed", This, "randomness must not be shared"),
    ("/var/lib/urandom/random-seed", This, "randomness must not be shared"),
    ("/var/lib/random-seed", This, "randomness must not be shared"),
    ("/var/lib/misc/random-seed", This, "randomness must not be shared"),
    ("/var/lib/seedrng", Contents, "randomness must not be shared"),
    ("/etc/seedrng", Contents, "randomness must not be shared"),
    ("/var/lib/systemd/credential.secret", This, "a secret of one machine"),
    ("/var/lib/NetworkManager/secret_key", This, "a secret of one machine"),
    ("/var/lib/zypp/AnonymousUniqueId", This, "identifies one machine"),
    ("/var/lib/dhcp", Named(|name| name.contains(".lease")), "addresses of one machine"),
    ("/var/lib/dhclient", Contents, "addresses of one machine"),
    // The build's own.
    ("/usr/sbin/policy-rc.d", This, "keeps services from starting during a build"),
    ("/tmp", Contents, "temporary"),
    ("/var/tmp", Contents, "temporary"),
    ("/run", Contents, "a file system of its own in an instance"),
    ("/dev", Contents, "a file system of its own in an instance"),
    ("/proc", Contents, "a file system of its own in an instance"),
    ("/sys", Contents, "a file system of its own in an instance"),
    ("/root/.bash_history", This, "what was typed"),
    ("/root/.cache", This, "cache"),
    ("/root/.wget-hsts", This, "has times"),
    // Locks, backups and databases with times in them.
    (
        "/etc",
        Named(|name| matches!(name, "passwd-" | "group-" | "shadow-" | "gshadow-" | "subuid-" | "subgid-")),
        "backups",
    ),
    (
        "/var/lib/dpkg",
        Named(|name| {
            matches!(
                name,
                "lock"
                    | "lock-frontend"
                    | "status-old"
                    | "diversions-old"
                    | "available-old"
                    | "statoverride-old"
            )
        }),
        "locks and backups",
    ),
    ("/var/lib/dpkg/triggers/Lock", This, "lock"),
    ("/var/lib/apt/extended_states.lock", This, "lock"),
    ("/var/cache/debconf", Named(|name| name.ends_with("-old")), "backups"),
    ("/var/lib/rpm", Named(is_rpm_lock), "locks and caches of the database"),
    ("/usr/lib/sysimage/rpm", Named(is_rpm_lock), "locks and caches of the database"),
    ("/var/lib/pacman/db.lck", This, "lock"),
    ("/lib/apk/db/lock", This, "lock"),
    ("/usr/lib/apk/db/lock", This, "lock"),
    ("/var/cache/ldconfig/aux-cache", This, "has times and inodes"),
    ("/var/cache/man", Contents, "index with times"),
    ("/var/cache/fontconfig", Contents, "index with times"),
    ("/var/lib/systemd/timesync/clock", This, "has the time"),
    // Logs.
    ("/var/log", Named(|name| is_log(name) || matches!(name, "faillog" | "lastlog")), "logs"),
    ("/var/log/apt", Contents, "logs"),
    ("/var/log/journal", Contents, "logs"),
    ("/var/log/portage", Contents, "logs"),
    ("/var/log/zypp", Contents, "logs"),
    // Lists and packages the managers fetched; apt's own directories stay.
    ("/var/lib/apt/lists", Named(|name| !matches!(name, "partial" | "auxfiles")), "lists"),
    ("/var/lib/apt/lists/partial", Contents, "lists"),
    ("/var/cache/apt", Named(|name| name != "archives"), "cache"),
    ("/var/cache/apt/archives", Named(|name| name != "partial"), "packages"),
    ("/var/cache/apt/archives/partial", Contents, "packages"),
    ("/var/cache/apk", Contents, "lists and packages"),
    ("/var/cache/dnf", Contents, "lists and packages"),
    ("/var/cache/libdnf5", Contents, "lists and packages"),
    ("/var/cache/yum", Contents, "lists and packages"),
    ("/var/cache/zypp", Contents, "lists and packages"),
    ("/var/cache/pacman/pkg", Contents, "packages"),
    ("/var/lib/pacman/sync", Contents, "lists"),
    ("/var/cache/xbps", Contents, "packages"),
    ("/var/db/xbps", Named(|name| name.starts_with("http")), "lists"),
    ("/var/opkg-lists", Contents, "lists"),
    ("/var/lib/opkg/lists", Contents, "lists"),
    ("/usr/lib/opkg/lists", Contents, "lists"),
    ("/var/cache/distfiles", Contents, "sources"),
    ("/var/cache/binpkgs", Contents, "packages"),
    ("/var/cache/edb", Named(|name| name == "dep" || name == "mtimedb"), "cache with times"),
    ("/var/cache/packages", Contents, "slackpkg's packages"),
    ("/var/lib/entropy/client/packages", Contents, "equo's packages"),
    ("/var/cache/anise", Contents, "packages"),
    ("/var/cache/luet", Contents, "packages"),
];

fn is_rpm_lock(name: &str) -> bool {
    name == ".rpm.lock" || name.starts_with("__db.") || name == "rpmdb.sqlite-shm"
}

/// `x.log`, also rotated: `x.log.1`, `x.log.2.gz`.
fn is_log(name: &str) -> bool {
    let Some((_, rest)) = name.rsplit_once(".log") else { return false };
    rest.is_empty()
        || rest.strip_prefix('.').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// Removes machine ids, host keys, seeds, logs, lists and caches.
pub(crate) fn remove(rootfs: &Rootfs) -> Result<()> {
    // An empty file, not a missing one: systemd then makes an id at first boot and lets units
    // with ConditionFirstBoot alone.
    if rootfs.read("/etc/machine-id")?.is_some() {
        rootfs.write("/etc/machine-id", b"", Attributes::default())?;
    }
    rpmdb::settle(rootfs)?;
    for (path, what, _) in LEFTOVERS {
        match what {
            This => rootfs.remove(path)?,
            Contents => rootfs.empty(path)?,
            Named(wanted) => rootfs.remove_matching(path, wanted)?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_leftover_goes_and_its_neighbours_stay() {
        let dir = tempfile::tempdir().unwrap();
        let rootfs = Rootfs::open(dir.path()).unwrap();
        let gone = [
            "/etc/ssh/ssh_host_rsa_key",
            "/etc/pacman.d/gnupg/private-keys-v1.d/x.key",
            "/etc/shadow-",
            "/var/log/dnf.log.1",
            "/var/log/pacman.log",
            "/var/cache/dnf/x/y",
            "/var/lib/rpm/.rpm.lock",
            "/var/db/xbps/https___m_x/data",
            "/var/lib/pacman/sync/core.db",
            "/var/cache/zypp/raw/x",
            "/tmp/x",
            "/var/lib/systemd/random-seed",
            "/var/cache/apk/APKINDEX.x.tar.gz",
            "/usr/lib/opkg/lists/x",
        ];
        let kept = [
            "/etc/ssh/sshd_config",
            "/etc/pacman.d/gnupg/pubring.gpg",
            "/etc/shadow",
            "/var/log/README",
            "/etc/hostname",
            "/var/lib/rpm/rpmdb.sqlite",
            "/var/db/xbps/pkgdb-0.38.plist",
            "/var/lib/pacman/local/x/desc",
            "/etc/machine-id",
            "/var/log/x.logic",
        ];
        for path in gone.iter().chain(&kept) {
            rootfs.write(path, b"x", Attributes::default()).unwrap();
        }
        remove(&rootfs).unwrap();
        for path in gone {
            assert!(!rootfs.exists(path).unwrap(), "{path}");
        }
        for path in kept {
            assert!(rootfs.exists(path).unwrap(), "{path}");
        }
        assert_eq!(rootfs.read("/etc/machine-id").unwrap().unwrap(), b"");
    }

    #[test]
    fn every_line_says_why_and_none_stands_twice_or_is_relative() {
        let mut seen = std::collections::BTreeSet::new();
        for (path, _, why) in LEFTOVERS {
            assert!(path.starts_with('/') && !why.is_empty() && seen.insert(path), "{path}");
        }
    }
}
