//! User namespaces for their id maps alone: for mounts, and to look at a container's files as its
//! root does.

use std::convert::Infallible;
use std::fs::{self, File};
use std::os::fd::OwnedFd;

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;

use super::confine::die_with_parent;
use super::sys::{self, Fork, SingleThread};

/// A user namespace with these maps, as `uid_map` and `gid_map` in `/proc` want them, and no process.
pub fn make(single: &SingleThread, maps: &[String; 2]) -> Result<OwnedFd, String> {
    let failed = |error: std::io::Error| format!("user namespace: {error}");
    let owner = match sys::fork(single, libc::CLONE_NEWUSER).map_err(failed)? {
        // Owns the namespace until it is killed, or its parent dies.
        Fork::Child => {
            let Err(()) = idle();
            std::process::exit(1)
        }
        Fork::Parent(owner) => owner,
    };
    let open = || {
        for (file, map) in ["uid_map", "gid_map"].into_iter().zip(maps) {
            fs::write(format!("/proc/{owner}/{file}"), map)?;
        }
        File::open(format!("/proc/{owner}/ns/user"))
    };
    let opened = open();
    let _ = kill(owner, Signal::SIGKILL);
    let _ = waitpid(owner, None);
    opened.map(OwnedFd::from).map_err(failed)
}

fn idle() -> Result<Infallible, ()> {
    die_with_parent().map_err(|_| ())?;
    loop {
        nix::unistd::pause();
    }
}
