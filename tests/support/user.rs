//! An ordinary user of a test's own.

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use super::{PROGRAM, succeed, within};

/// With subordinate ids and a home; gone with the test.
pub struct User {
    name: String,
    id: u32,
    home: TempDir,
    /// Control groups an administrator gave them.
    groups: Vec<PathBuf>,
    /// Root's image store, where it is not the machine's.
    shared: PathBuf,
}

impl User {
    pub fn add(what: &str) -> Self {
        let name = format!("ms{what}{}", std::process::id());
        succeed(Command::new("useradd").args(["--no-create-home", "--shell=/bin/sh", &name]));
        let id = succeed(Command::new("id").args(["-u", &name])).trim().parse().unwrap();
        let home = tempfile::tempdir().unwrap();
        chown(home.path(), Some(id), Some(id)).unwrap();
        Self { name, id, home, groups: Vec::new(), shared: "/nonexistent".into() }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn id(&self) -> u32 {
        self.id
    }

    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// A group of the user's own in every hierarchy, as an administrator makes them.
    pub fn delegate(mut self) -> Self {
        let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap();
        for line in mountinfo.lines().filter(|line| line.contains(" - cgroup")) {
            let root = Path::new(line.split(' ').nth(4).unwrap());
            let group = root.join(&self.name);
            if self.groups.contains(&group) || fs::create_dir(&group).is_err() {
                continue;
            }
            for file in ["", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads", "tasks"] {
                let _ = chown(group.join(file), Some(self.id), Some(self.id));
            }
            for file in ["cpuset.cpus", "cpuset.mems"] {
                if let Ok(value) = fs::read_to_string(root.join(file)) {
                    let _ = fs::write(group.join(file), value);
                }
            }
            self.groups.push(group);
        }
        self
    }

    /// One who reads this image store of root's.
    pub fn reading(mut self, store: PathBuf) -> Self {
        self.shared = store;
        self
    }

    /// The program as this user, from a shell in those groups.
    pub fn millstream(&self, args: &[&str]) -> Output {
        let join = "for group in $GROUPS_OF_USER; do echo $$ > $group/cgroup.procs; done; exec \"$@\"";
        let groups: Vec<_> = self.groups.iter().map(|group| group.to_str().unwrap()).collect();
        Command::new("sh")
            .args(["-euc", join, "sh", "setpriv", "--init-groups", "--inh-caps=-all"])
            .args(["--reuid", &self.name, "--regid", &self.name, PROGRAM])
            .args(args)
            .current_dir(self.home.path())
            .env_remove("MILLSTREAM_DIR")
            .env("MILLSTREAM_SHARED", &self.shared)
            .env("GROUPS_OF_USER", groups.join(" "))
            .env("HOME", self.home.path())
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }
}

impl Drop for User {
    fn drop(&mut self) {
        for group in &self.groups {
            within(10, || {
                let _ = fs::remove_dir(group.join(".caller"));
                fs::remove_dir(group).is_ok()
            });
        }
        let _ = Command::new("userdel").arg(&self.name).output();
    }
}
