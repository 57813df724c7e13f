//! Where this host's hierarchies of control groups are, and where in them containers may be made.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::Access;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};
use serde::{Deserialize, Serialize};

use super::{CALLER, Cgroups};
use crate::container::sys;
use crate::{Error, Result};

/// The hierarchies of this host that containers can be made in.
pub struct Host {
    pub(super) hierarchies: Vec<Hierarchy>,
    /// The groups this process, or the recorded caller, is in, where these are what it has.
    caller: Option<Caller>,
    /// Mount point of a v2 hierarchy in which we may make nothing.
    refused_v2: Option<PathBuf>,
}

pub(super) struct Hierarchy {
    /// The group below which ours are.
    pub root: PathBuf,
    pub v2: bool,
    /// v1 controllers, or `name=systemd`.
    pub controllers: Vec<String>,
    /// Keeps an unmounted hierarchy open; `root` leads through it.
    #[allow(dead_code, reason = "held open")]
    open: Option<OwnedFd>,
}

/// A process's groups: a path for each hierarchy, as `/proc/PID/cgroup` names both. That of v2
/// has an empty name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caller(BTreeMap<String, PathBuf>);

impl Caller {
    fn this() -> Result<Self> {
        let path = "/proc/self/cgroup";
        Ok(Self::parse(&fs::read_to_string(path).map_err(Error::io(path))?))
    }

    fn parse(text: &str) -> Self {
        let line = |line: &str| {
            let mut parts = line.splitn(3, ':').skip(1);
            Some((parts.next()?.to_owned(), parts.next()?.into()))
        };
        Self(text.lines().filter_map(line).collect())
    }

    /// Its group in a mounted hierarchy.
    fn group(&self, mount: &Mount) -> Option<PathBuf> {
        let path = self.0.get(&mount.controllers.join(","))?;
        let below = path.strip_prefix(&mount.shows).ok()?;
        // Put there by us, out of the way.
        let below = if below.ends_with(CALLER) { below.parent()? } else { below };
        (!below.as_os_str().is_empty()).then(|| mount.root.join(below))
    }
}

impl Host {
    /// Finds the hierarchies. Whoever may write to the root of one gets that; an ordinary user the
    /// group the caller is in, if that was delegated: the caller's now, or when a container was
    /// started. Others are left out, and a container started then stays where its caller is.
    pub fn discover(recorded: Option<&Caller>) -> Result<Self> {
        let path = "/proc/self/mountinfo";
        let text = fs::read_to_string(path).map_err(Error::io(path))?;
        let confined = !sys::in_first_user_namespace() || !rustix::process::geteuid().is_root();
        let caller =
            if confined { Some(recorded.map_or_else(Caller::this, |c| Ok(c.clone()))?) } else { None };
        let mut host = Self { hierarchies: Vec::new(), caller, refused_v2: None };
        let mut seen: Vec<Mount> = Vec::new();
        for mount in parse(&text).into_iter().filter(Mount::is_reachable) {
            if !seen.iter().any(|m| m.v2 == mount.v2 && m.controllers == mount.controllers) {
                host.add(&mount);
                seen.push(mount);
            }
        }
        if !seen.iter().any(|mount| mount.v2) {
            match open_v2() {
                Ok(tree) => {
                    let root = PathBuf::from(format!("/proc/self/fd/{}", tree.as_raw_fd()));
                    if !confined || writable(&root) {
                        let open = Some(tree);
                        host.hierarchies.push(Hierarchy { root, v2: true, controllers: Vec::new(), open });
                    }
                }
                Err(_) if confined => {}
                Err(error) => return Err(Error::io("cgroup2")(error)),
            }
        }
        Ok(host)
    }

    fn add(&mut self, mount: &Mount) {
        let own = self.caller.as_ref().and_then(|caller| caller.group(mount)).filter(|own| writable(own));
        let root = match own {
            _ if self.caller.is_none() || writable(&mount.root) => mount.root.clone(),
            Some(own) => own,
            None => {
                if mount.v2 {
                    self.refused_v2 = Some(mount.root.clone());
                }
                return;
            }
        };
        let (v2, controllers) = (mount.v2, mount.controllers.clone());
        self.hierarchies.push(Hierarchy { root, v2, controllers, open: None });
    }

    /// The directories of the container `id`.
    pub fn container(self, id: &str) -> Cgroups {
        Cgroups { host: self, id: id.to_owned() }
    }

    /// What [`Host::discover`] needs to find the same groups again from elsewhere.
    pub fn caller(&self) -> Option<&Caller> {
        self.caller.as_ref()
    }

    /// Moves this process to the roots, so that it does not end with the service or session it was
    /// started from. A v2 root that is not the machine's own may refuse; then it stays.
    pub fn leave_caller(&self) {
        for hierarchy in &self.hierarchies {
            let _ = fs::write(hierarchy.root.join("cgroup.procs"), "0");
        }
    }

    /// Whether containers get a v2 group of their own, which systemd needs; if not, how to have one.
    pub fn own_v2(&self) -> std::result::Result<(), String> {
        if self.hierarchies.iter().any(|hierarchy| hierarchy.v2) {
            return Ok(());
        }
        let Some(root) = &self.refused_v2 else {
            return Err("this host mounts no cgroup2 that could be delegated to you".into());
        };
        if Path::new("/run/systemd/system").exists() {
            return Err("prefix the command with: systemd-run --user --scope --property=Delegate=yes".into());
        }
        let uid = sys::outer_uid();
        let group = root.join(format!("user-{uid}"));
        let group = group.display();
        Err(format!(
            "an administrator delegates one to your shell with: sudo sh -c 'mkdir -p {group} && chown {uid} \
             {group} {group}/cgroup.procs {group}/cgroup.subtree_control {group}/cgroup.threads && \
             echo '$$' > {group}/cgroup.procs'"
        ))
    }
}

/// What limits can be set here, and where.
pub struct Controllers {
    /// Whether containers get a v2 group of their own; if not, how they could.
    pub own_v2: std::result::Result<(), String>,
    /// By the v2 name of each controller, the group below which containers have it.
    pub places: Vec<(String, PathBuf)>,
}

impl Controllers {
    /// Those of this host that the caller may use.
    pub fn of_host() -> Self {
        let Ok(host) = Host::discover(None) else {
            return Self { own_v2: Err("/proc/self/mountinfo cannot be read".into()), places: Vec::new() };
        };
        let mut places = Vec::new();
        for hierarchy in &host.hierarchies {
            let mut names = hierarchy.controllers.clone();
            if hierarchy.v2 {
                let text = fs::read_to_string(hierarchy.root.join("cgroup.controllers")).unwrap_or_default();
                names.extend(text.split_ascii_whitespace().map(str::to_owned));
                names.push("freezer".into());
            }
            let v2_name = |name: String| if name == "blkio" { "io".to_owned() } else { name };
            places.extend(names.into_iter().map(|name| (v2_name(name), hierarchy.root.clone())));
        }
        Self { own_v2: host.own_v2(), places }
    }
}

fn writable(group: &Path) -> bool {
    let allowed = |path: &Path| rustix::fs::access(path, Access::WRITE_OK).is_ok();
    allowed(group) && allowed(&group.join("cgroup.procs"))
}

/// A line of `mountinfo`.
struct Mount {
    /// As `mountinfo` writes it, `MAJOR:MINOR`.
    device: String,
    /// Which group it shows as its root.
    shows: PathBuf,
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
        let (Some(device), Some(shows), Some(root)) = (place.next(), place.next(), place.next()) else {
            continue;
        };
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
        let (shows, root) = (unescape(shows).into(), unescape(root).into());
        found.push(Mount { device: device.to_owned(), shows, root, v2, controllers });
    }
    found
}

/// `mountinfo` writes blanks as `\040`.
fn unescape(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
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
            shows: "/".into(),
            root: root.into(),
            v2: true,
            controllers: Vec::new(),
        };
        assert!(mount("/proc").is_reachable());
        assert!(!mount("/").is_reachable() && !mount("/no/such/directory").is_reachable());
    }

    #[test]
    fn a_callers_group_is_found_in_each_hierarchy() {
        let caller = Caller::parse("8:cpu,cpuacct:/user-5\n1:name=systemd:/\n0::/a/b:c/.caller\n");
        let groups: Vec<_> = parse(HYBRID).iter().map(|mount| caller.group(mount)).collect();
        let expected = ["/sys/fs/cgroup/cpu/user-5", "", "/sys/fs/cgroup/a b/a/b:c", "/elsewhere/a/b:c"];
        let expected = expected.map(|path| Some(PathBuf::from(path)).filter(|p| !p.as_os_str().is_empty()));
        assert_eq!(groups, expected);
    }
}
