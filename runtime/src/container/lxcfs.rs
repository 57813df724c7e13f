//! Files of `/proc` and `/sys` that show a container its own limits, from LXCFS where the host runs it.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{CWD, statfs};
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};

/// Where LXCFS is mounted, whoever packages it.
const HOST: &str = "/var/lib/lxcfs";
const FUSE: u32 = 0x6573_5546;
/// Those that LXCFS makes and a container has; all of them below both roots.
const SHOWN: [&str; 9] = [
    "proc/cpuinfo",
    "proc/diskstats",
    "proc/loadavg",
    "proc/meminfo",
    "proc/slabinfo",
    "proc/stat",
    "proc/swaps",
    "proc/uptime",
    "sys/devices/system/cpu",
];

/// Copies of these mounts, attached nowhere.
pub struct Lxcfs(Vec<(&'static str, OwnedFd)>);

impl Lxcfs {
    /// Those the host has; none, if it does not run LXCFS or LXCFS does not answer.
    pub fn of_host() -> Self {
        if statfs(HOST).map_or(0, |found| found.f_type as u32) != FUSE {
            return Self(Vec::new());
        }
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let open = |file: &'static str| Some((file, open_tree(CWD, Path::new(HOST).join(file), flags).ok()?));
        Self(SHOWN.into_iter().filter_map(open).collect())
    }

    /// Shows them, after `/proc` and `/sys` of the container are mounted. One that cannot be shown
    /// leaves what the kernel says.
    pub fn show(self) {
        for (file, tree) in self.0 {
            let target = Path::new("/").join(file);
            let _ = move_mount(&tree, "", CWD, &target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH);
        }
    }
}
