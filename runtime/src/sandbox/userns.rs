//! Makes an ordinary user root of a user namespace, so that a build needs no privileges.
//!
//! Id 0 inside is the caller; ids from 1 on are the caller's subordinate range, mapped by the
//! system's `newuidmap` and `newgidmap` (shadow's subuid(5)). Root without the right to mount gets
//! a namespace with all its ids as they are.
#![allow(unsafe_code)] // fork, after it was checked that there is one thread.

use std::ffi::OsStr;
use std::fs;
use std::io::{PipeReader, PipeWriter, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use nix::sched::{CloneFlags, unshare};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, User, fork, getegid, geteuid, getpid, setgroups};

use crate::{Error, Result};

/// Set for a program that runs in a namespace made here.
const INSIDE: &str = "MILLSTREAM_USER_NAMESPACE";
/// Ids a system container needs besides root: up to `nobody`, 65534.
const NEEDED: u64 = 65_535;
const CAP_SYS_ADMIN: u32 = 21;

/// Whether this process is root only of a namespace that [`become_root`] made.
pub fn inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// Returns at once for root with the right to mount. For everybody else, starts this program
/// again with the same arguments as root of a user namespace, and then does not return. Must be
/// called while the process has a single thread.
///
/// # Errors
/// When the user has no subordinate ids, when `newuidmap` is missing, or when the kernel allows
/// no user namespaces; the message says what to do.
pub fn become_root() -> Result<()> {
    if is_root()? {
        return Ok(());
    }
    enter_new()?;
    Err(restart())
}

/// Whether this process is root with the right to mount.
///
/// # Errors
/// When it is not although a namespace was made for it.
pub(crate) fn is_root() -> Result<bool> {
    let capable = effective_capabilities() & (1 << CAP_SYS_ADMIN) != 0;
    if geteuid().is_root() && capable {
        return Ok(true);
    }
    if inside() {
        return Err(failed("the namespace gives no right to mount".into()));
    }
    Ok(false)
}

/// Whether the caller has what an ordinary user needs to become root of a namespace.
pub(crate) fn check() -> Result<()> {
    Mapping::of_user().map(drop)
}

/// Moves this process, which must have a single thread, into a new user namespace as its root.
pub(crate) fn enter_new() -> Result<()> {
    enter(&if geteuid().is_root() { Mapping::identity()? } else { Mapping::of_user()? })
}

/// Starts this program again with the same arguments, inside; returns only if that failed.
pub(crate) fn restart() -> Error {
    let arguments: Vec<_> = std::env::args_os().collect();
    let mut program = Command::new("/proc/self/exe");
    if let Some((name, rest)) = arguments.split_first() {
        program.arg0(name).args(rest);
    }
    Error::io("/proc/self/exe")(program.env(INSIDE, "1").exec())
}

pub(crate) fn failed(reason: String) -> Error {
    Error::UserNamespace { reason }
}

fn effective_capabilities() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or_default()
}

/// One run of ids: first inside, first outside, how many.
type Extent = (u64, u64, u64);

/// What ids inside mean outside, and who writes that down.
struct Mapping {
    uids: Vec<Extent>,
    gids: Vec<Extent>,
    /// The set-id helpers of an ordinary user; root writes the maps itself.
    helpers: Option<(PathBuf, PathBuf)>,
}

impl Mapping {
    /// The caller as root, and the subordinate ids `/etc/subuid` and `/etc/subgid` give.
    fn of_user() -> Result<Self> {
        let uid = geteuid();
        let name = User::from_uid(uid).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name);
        let subordinate = |file: &str| {
            let text = fs::read_to_string(file).unwrap_or_default();
            range(&text, &name, uid.as_raw()).ok_or_else(|| {
                failed(format!(
                    "user {name} has no {NEEDED} subordinate ids in {file}; an administrator adds them with: \
                     usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {name} \
                     (pick numbers no other line uses)"
                ))
            })
        };
        let (uids, gids) = (subordinate("/etc/subuid")?, subordinate("/etc/subgid")?);
        let map = |own: u32, (start, count): (u64, u64)| vec![(0, own.into(), 1), (1, start, count)];
        Ok(Self {
            uids: map(uid.as_raw(), uids),
            gids: map(getegid().as_raw(), gids),
            helpers: Some((helper("newuidmap")?, helper("newgidmap")?)),
        })
    }

    /// All ids of the present namespace, as they are.
    fn identity() -> Result<Self> {
        let read = |file: &str| -> Result<Vec<Extent>> {
            let text = fs::read_to_string(file).map_err(Error::io(file))?;
            Ok(text
                .lines()
                .filter_map(|line| {
                    let mut numbers = line.split_whitespace().map(|word| word.parse().ok());
                    let (first, _, count) = (numbers.next()??, numbers.next()??, numbers.next()??);
                    Some((first, first, count))
                })
                .collect())
        };
        Ok(Self { uids: read("/proc/self/uid_map")?, gids: read("/proc/self/gid_map")?, helpers: None })
    }

    fn write(&self, process: Pid) -> std::result::Result<(), String> {
        let Some((uid_helper, gid_helper)) = &self.helpers else {
            for (name, extents) in [("uid_map", &self.uids), ("gid_map", &self.gids)] {
                let file = format!("/proc/{process}/{name}");
                let lines: Vec<_> = extents.iter().map(|(a, b, c)| format!("{a} {b} {c}\n")).collect();
                fs::write(&file, lines.concat()).map_err(|e| format!("{file}: {e}"))?;
            }
            return Ok(());
        };
        for (program, extents) in [(uid_helper, &self.uids), (gid_helper, &self.gids)] {
            let numbers = extents.iter().flat_map(|(a, b, c)| [a, b, c]).map(ToString::to_string);
            let output = Command::new(program)
                .arg(process.to_string())
                .args(numbers)
                .stdin(Stdio::null())
                .output()
                .map_err(|e| format!("{}: {e}", program.display()))?;
            if !output.status.success() {
                let reason = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                return Err(format!("{}: {reason}", program.display()));
            }
        }
        Ok(())
    }
}

/// The first range of the user that is large enough, from the text of subuid(5).
fn range(text: &str, name: &str, uid: u32) -> Option<(u64, u64)> {
    let uid = uid.to_string();
    text.lines().find_map(|line| {
        let fields: Vec<_> = line.trim().split(':').collect();
        let [owner, start, count] = fields[..] else { return None };
        let (start, count) = (start.parse().ok()?, count.parse().ok()?);
        ((owner == name || owner == uid) && count >= NEEDED).then_some((start, count))
    })
}

fn helper(name: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_else(|| OsStr::new("/usr/bin:/bin").to_owned());
    std::env::split_paths(&path)
        .map(|directory| directory.join(name))
        .find(|program| program.is_file())
        .ok_or_else(|| {
            failed(format!(
                "{name} is not installed; install the package uidmap, or run this command as root"
            ))
        })
}

/// Moves this process into a new user namespace. Maps can only be written from outside, so a
/// child that stays there does it.
fn enter(mapping: &Mapping) -> Result<()> {
    let threads = fs::read_dir("/proc/self/task").map_err(Error::io("/proc/self/task"))?.count();
    if threads != 1 {
        return Err(failed("the process has several threads already".into()));
    }
    let (ready, tell) = std::io::pipe().map_err(Error::io("pipe"))?;
    let (answer, reply) = std::io::pipe().map_err(Error::io("pipe"))?;
    let process = getpid();
    // SAFETY: this process has a single thread, as just checked.
    match unsafe { fork() }.map_err(|e| failed(format!("fork: {e}")))? {
        ForkResult::Child => {
            drop((tell, answer));
            map_from_outside(mapping, process, ready, reply);
            // SAFETY: ends the child without running the parent's exit handlers.
            unsafe { libc::_exit(0) }
        }
        ForkResult::Parent { child } => {
            drop((ready, reply));
            let unshared = unshare(CloneFlags::CLONE_NEWUSER);
            let reason = if unshared.is_ok() { ask(tell, answer) } else { Err(String::new()) };
            let _ = waitpid(child, None);
            unshared.map_err(|error| {
                failed(format!(
                    "the kernel refuses a user namespace ({error}); \
                     see the sysctls user.max_user_namespaces and kernel.unprivileged_userns_clone"
                ))
            })?;
            reason.map_err(failed)?;
        }
    }
    // Groups of the caller that have no id inside would only confuse.
    setgroups(&[]).map_err(|e| failed(format!("setgroups: {e}")))
}

fn map_from_outside(mapping: &Mapping, process: Pid, mut ready: PipeReader, mut reply: PipeWriter) {
    if ready.read_exact(&mut [0]).is_ok() {
        let text = mapping.write(process).err().unwrap_or_else(|| "ok".into());
        let _ = reply.write_all(text.as_bytes());
    }
}

fn ask(mut tell: PipeWriter, mut answer: PipeReader) -> std::result::Result<(), String> {
    tell.write_all(&[1]).map_err(|e| e.to_string())?;
    drop(tell);
    let mut text = String::new();
    answer.read_to_string(&mut text).map_err(|e| e.to_string())?;
    match text.as_str() {
        "ok" => Ok(()),
        "" => Err("the helper that writes the id maps ended early".into()),
        reason => Err(reason.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subordinate_ranges_are_found_by_name_and_number() {
        let text = "# note\nother:1:70000\nann:100000:10\nann:200000:65536\n1000:300000:65535\nbroken\n";
        assert_eq!(range(text, "ann", 5), Some((200_000, 65536)));
        assert_eq!(range(text, "bob", 1000), Some((300_000, 65535)));
        assert_eq!(range(text, "bob", 1001), None);
    }
}
