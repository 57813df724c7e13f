//! Control groups of a container, in every hierarchy the host has: v1, v2, or both (hybrid).
//!
//! A container `ID` gets `millstream/ID` below the root of each. It sees only the v2 one, which
//! is its own from there on; limits are set from outside on whichever hierarchy has the controller.
//! Hosts that mount no v2 hierarchy have one all the same: it is opened without mounting it.
//!
//! The root is that of the mount, whatever group the caller is in: every command finds a container
//! there, and a container outlives the service or session that started it. In a control group
//! namespace, the root of the mount is that of the subtree delegated to it, and nothing is made
//! outside. Controllers are only passed on there if no process is left in its root.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

use crate::{Error, Result};

/// Directory of all containers below the root of a hierarchy.
const PARENT: &str = "millstream";
/// Below the container's own: where commands run by `exec` go. Systemd may give controllers to its
/// children, and then its own directory takes no processes any more.
const EXEC: &str = ".exec";
/// What the owner of a delegated v2 directory may write.
const DELEGATED: [&str; 3] = ["cgroup.procs", "cgroup.subtree_control", "cgroup.threads"];
/// How long ended processes may take to leave.
const PATIENCE: Duration = Duration::from_secs(5);

/// The hierarchies of this host.
pub struct Host {
    hierarchies: Vec<Hierarchy>,
}

struct Hierarchy {
    root: PathBuf,
    v2: bool,
    /// v1 controllers, or `name=systemd`.
    controllers: Vec<String>,
    /// Keeps an unmounted hierarchy open; `root` leads through it.
    #[allow(dead_code, reason = "held open")]
    open: Option<OwnedFd>,
}

/// One container's directories.
pub struct Cgroups {
    host: Host,
    id: String,
}

/// What a container uses now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processes.
    pub processes: Option<u64>,
    /// Bytes, page cache included.
    pub memory: Option<u64>,
}

impl Host {
    /// Finds the hierarchies.
    pub fn discover() -> Result<Self> {
        let path = "/proc/self/mountinfo";
        let text = fs::read_to_string(path).map_err(Error::io(path))?;
        let mut hierarchies: Vec<Hierarchy> = Vec::new();
        for mount in parse(&text).into_iter().filter(Mount::is_reachable) {
            if !hierarchies.iter().any(|h| h.v2 == mount.v2 && h.controllers == mount.controllers) {
                let Mount { root, v2, controllers, .. } = mount;
                hierarchies.push(Hierarchy { root, v2, controllers, open: None });
            }
        }
        if !hierarchies.iter().any(|h| h.v2) {
            let tree = open_v2().map_err(Error::io("cgroup2"))?;
            let root = PathBuf::from(format!("/proc/self/fd/{}", tree.as_raw_fd()));
            hierarchies.push(Hierarchy { root, v2: true, controllers: Vec::new(), open: Some(tree) });
        }
        Ok(Self { hierarchies })
    }

    /// The directories of the container `id`.
    pub fn container(self, id: &str) -> Cgroups {
        Cgroups { host: self, id: id.to_owned() }
    }

    /// Moves this process to the roots, so that it does not end with the service or session it was
    /// started from. A v2 root that is not the machine's own may refuse; then it stays.
    pub fn leave_caller(&self) {
        for hierarchy in &self.hierarchies {
            let _ = fs::write(hierarchy.root.join("cgroup.procs"), "0");
        }
    }
}

/// A line of `mountinfo`.
struct Mount {
    /// As `mountinfo` writes it, `MAJOR:MINOR`.
    device: String,
    root: PathBuf,
    v2: bool,
    controllers: Vec<String>,
}

impl Mount {
    /// Whether its path leads to it, and not to what was mounted over it later.
    fn is_reachable(&self) -> bool {
        rustix::fs::stat(&self.root).is_ok_and(|found| {
            let device = found.st_dev;
            self.device == format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device))
        })
    }
}

impl Cgroups {
    /// Makes the directories; the v2 one can be administered by the host's id `owner`.
    pub fn create(&self, owner: u32) -> Result<()> {
        for hierarchy in &self.host.hierarchies {
            let dir = self.dir(hierarchy);
            make(&dir).map_err(Error::io(&dir))?;
            if hierarchy.v2 {
                chown(&dir, Some(owner), Some(owner)).map_err(Error::io(&dir))?;
                for name in DELEGATED {
                    let file = dir.join(name);
                    chown(&file, Some(owner), Some(owner)).map_err(Error::io(&file))?;
                }
                offer_controllers(&hierarchy.root);
                offer_controllers(&hierarchy.root.join(PARENT));
            } else if hierarchy.controllers.iter().any(|c| c == "cpuset") {
                inherit_cpuset(&hierarchy.root.join(PARENT)).map_err(Error::io(&dir))?;
                inherit_cpuset(&dir).map_err(Error::io(&dir))?;
            }
        }
        Ok(())
    }

    /// Moves a process into them.
    pub fn join(&self, pid: i32) -> Result<()> {
        for hierarchy in &self.host.hierarchies {
            let file = self.dir(hierarchy).join("cgroup.procs");
            fs::write(&file, pid.to_string()).map_err(Error::io(&file))?;
        }
        Ok(())
    }

    /// Opens what a process writes its id into to join as a command run by `exec`, also after it
    /// has left the host's mounts behind.
    pub fn open_for_exec(&self) -> Result<Vec<File>> {
        let open = |hierarchy: &Hierarchy| {
            let mut dir = self.dir(hierarchy);
            if hierarchy.v2 {
                dir.push(EXEC);
                make(&dir).map_err(Error::io(&dir))?;
            }
            let file = dir.join("cgroup.procs");
            OpenOptions::new().write(true).open(&file).map_err(Error::io(&file))
        };
        self.host.hierarchies.iter().map(open).collect()
    }

    /// Removes them, with all directories below, once nobody is in them any more. What is still
    /// there after a second is killed.
    pub fn remove(&self) -> Result<()> {
        for hierarchy in &self.host.hierarchies {
            let dir = self.dir(hierarchy);
            let start = Instant::now();
            while let Err(error) = remove_tree(&dir) {
                if start.elapsed() > PATIENCE {
                    return Err(Error::io(&dir)(error));
                }
                if start.elapsed() > Duration::from_secs(1) {
                    kill_all(&dir);
                }
                sleep(Duration::from_millis(2));
            }
            // The last container takes the parent away; others keep it.
            let _ = fs::remove_dir(hierarchy.root.join(PARENT));
        }
        Ok(())
    }

    /// What the container uses now, as far as the host's hierarchies count it.
    pub fn usage(&self) -> Usage {
        let first = |names: [&str; 2]| {
            let dirs = self.host.hierarchies.iter().map(|h| self.dir(h));
            let mut files = dirs.flat_map(|dir| names.map(|name| dir.join(name)));
            files.find_map(|file| fs::read_to_string(file).ok()?.trim().parse().ok())
        };
        let v2 = self.host.hierarchies.iter().find(|h| h.v2).map(|h| self.dir(h));
        let processes = first(["pids.current", "pids.current"]).or_else(|| v2.map(|dir| count(&dir)));
        Usage { processes, memory: first(["memory.usage_in_bytes", "memory.current"]) }
    }

    fn dir(&self, hierarchy: &Hierarchy) -> PathBuf {
        hierarchy.root.join(PARENT).join(&self.id)
    }
}

/// A v2 mount that no mount table shows.
fn open_v2() -> io::Result<OwnedFd> {
    let context = fsopen("cgroup2", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&context)?;
    Ok(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?)
}

/// The mounts of hierarchies in `mountinfo`.
fn parse(mountinfo: &str) -> Vec<Mount> {
    let mut found = Vec::new();
    for line in mountinfo.lines() {
        let Some((place, kind)) = line.split_once(" - ") else { continue };
        let mut place = place.split(' ').skip(2);
        let (Some(device), Some(mount_point)) = (place.next(), place.nth(1)) else { continue };
        let mut kind = kind.split(' ');
        let v2 = match kind.next() {
            Some("cgroup") => false,
            Some("cgroup2") => true,
            _ => continue,
        };
        let options = kind.nth(1).unwrap_or_default();
        let controllers: Vec<_> = options
            .split(',')
            .filter(|o| !v2 && !["rw", "ro", "xattr"].contains(o))
            .map(str::to_owned)
            .collect();
        let root = PathBuf::from(unescape(mount_point));
        found.push(Mount { device: device.to_owned(), root, v2, controllers });
    }
    found
}

/// `mountinfo` writes blanks as `\040`.
fn unescape(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

fn make(dir: &Path) -> io::Result<()> {
    // The parent may be taken away between two steps, by the end of the last other container.
    for _ in 0..100 {
        match fs::create_dir_all(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
    }
    fs::create_dir_all(dir)
}

/// Lets the children of a v2 directory use the controllers it has. Some may be refused, as those
/// a v1 hierarchy holds: then limits are set there.
fn offer_controllers(dir: &Path) {
    let Ok(controllers) = fs::read_to_string(dir.join("cgroup.controllers")) else { return };
    for controller in controllers.split_ascii_whitespace() {
        let _ = fs::write(dir.join("cgroup.subtree_control"), format!("+{controller}"));
    }
}

/// A new v1 cpuset is empty and takes no process until it has been filled.
fn inherit_cpuset(dir: &Path) -> io::Result<()> {
    for name in ["cpuset.cpus", "cpuset.mems"] {
        let file = dir.join(name);
        if fs::read_to_string(&file)?.trim().is_empty() {
            let parent = dir.parent().unwrap_or(dir);
            fs::write(&file, fs::read_to_string(parent.join(name))?)?;
        }
    }
    Ok(())
}

fn subdirectories(dir: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path())
}

fn remove_tree(dir: &Path) -> io::Result<()> {
    for child in subdirectories(dir) {
        remove_tree(&child)?;
    }
    match fs::remove_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn kill_all(dir: &Path) {
    subdirectories(dir).for_each(|child| kill_all(&child));
    for pid in fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default().lines() {
        if let Ok(pid @ 1..) = pid.parse::<i32>() {
            let _ =
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
    }
}

fn count(dir: &Path) -> u64 {
    let here = fs::read_to_string(dir.join("cgroup.procs")).map_or(0, |text| text.lines().count() as u64);
    here + subdirectories(dir).map(|child| count(&child)).sum::<u64>()
}

/// Writes a process id into files opened by [`Cgroups::open_for_exec`].
pub fn enter(files: &mut [File], pid: i32) -> io::Result<()> {
    files.iter_mut().try_for_each(|file| file.write_all(pid.to_string().as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 25 0:26 / /sys/fs/cgroup/cpu rw,relatime shared:7 - cgroup cgroup rw,cpu,cpuacct
31 25 0:27 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
32 25 0:28 / /sys/fs/cgroup/a\\040b rw,relatime - cgroup2 cgroup rw,nsdelegate
33 25 0:28 / /elsewhere rw,relatime - cgroup2 cgroup rw
";

    #[test]
    fn reads_the_mounts() {
        let found = parse(HYBRID);
        let mounts: Vec<_> =
            found.iter().map(|m| (m.root.to_str().unwrap(), m.device.as_str(), m.v2)).collect();
        assert_eq!(
            mounts,
            [
                ("/sys/fs/cgroup/cpu", "0:26", false),
                ("/sys/fs/cgroup/systemd", "0:27", false),
                ("/sys/fs/cgroup/a b", "0:28", true),
                ("/elsewhere", "0:28", true),
            ]
        );
        assert_eq!(found[0].controllers, ["cpu", "cpuacct"]);
        assert_eq!(found[1].controllers, ["name=systemd"]);
        assert!(found[2].controllers.is_empty());
        assert!(parse("").is_empty());
    }

    #[test]
    fn a_mount_under_another_is_not_reachable() {
        let proc = rustix::fs::stat("/proc").unwrap().st_dev;
        let device = format!("{}:{}", rustix::fs::major(proc), rustix::fs::minor(proc));
        let mount = |root: &str| Mount {
            device: device.clone(),
            root: root.into(),
            v2: true,
            controllers: Vec::new(),
        };
        assert!(mount("/proc").is_reachable());
        assert!(!mount("/").is_reachable() && !mount("/no/such/directory").is_reachable());
    }
}
