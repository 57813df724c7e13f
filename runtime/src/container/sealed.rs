//! This program, started again where a container's root may be the host's.
//!
//! A container can have its programs led to `/proc/self/exe`, which while it starts is ours: whose root
//! has the host's id could then write over the host's file (CVE-2019-5736 of runc). There a copy in memory
//! is started, sealed, that nobody can change.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

use super::runtime::Runtime;

/// What is started. It must live until that is done.
pub(super) struct Program {
    path: PathBuf,
    _copy: Option<File>,
}

impl Program {
    /// For what concerns a container; `root` tells whether its root may be the host's.
    pub(super) fn new(root: bool) -> io::Result<Self> {
        if !root {
            return Ok(Self { path: Runtime::program().into(), _copy: None });
        }
        let copy = memfd_create("millstream", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        let mut copy = File::from(copy);
        io::copy(&mut File::open(Runtime::program())?, &mut copy)?;
        fcntl_add_seals(&copy, SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?;
        Ok(Self { path: format!("/proc/self/fd/{}", copy.as_raw_fd()).into(), _copy: Some(copy) })
    }

    /// The same, for a container that runs, by one of its processes.
    pub(super) fn of_process(pid: i32) -> io::Result<Self> {
        Self::new(has_the_hosts_root(pid)?)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// Whether the host's root is somebody in the container that a process belongs to.
pub(super) fn has_the_hosts_root(pid: i32) -> io::Result<bool> {
    let maps_root = |map: &str| -> io::Result<bool> {
        Ok(fs::read_to_string(format!("/proc/{pid}/{map}"))?.lines().any(begins_with_root))
    };
    Ok(maps_root("uid_map")? || maps_root("gid_map")?)
}

/// Whether a line of an id map, as this process sees it, has the id 0 on the host's side.
fn begins_with_root(line: &str) -> bool {
    line.split_ascii_whitespace().nth(1) == Some("0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_runs_and_cannot_be_changed() {
        let program = Program::new(true).unwrap();
        let error = File::options().write(true).open(program.path()).and_then(|mut file| {
            use std::io::Write;
            file.write_all(b"x")
        });
        assert!(error.is_err());
        let text = fs::read(program.path()).unwrap();
        assert!(text == fs::read("/proc/self/exe").unwrap());
        let output = std::process::Command::new(program.path()).arg("--list").output().unwrap();
        assert!(output.status.success());
    }

    #[test]
    fn maps_with_the_hosts_root_are_told() {
        assert!(begins_with_root("         0          0      65536"));
        assert!(!begins_with_root("         0    1000000      65536"));
        assert!(!begins_with_root(""));
    }
}
