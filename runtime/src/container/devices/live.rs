//! Devices that come and go while a container runs: a process enters its mounts and changes them.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};

use nix::sys::stat::{Mode, umask};
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};
use serde::{Deserialize, Serialize};

use super::super::config::devices::{Device, Devices};
use super::super::confine::{become_root, die_with_parent};
use super::super::ids::Ids;
use super::super::process::Process;
use super::super::runtime::Runtime;
use super::super::sys::{self, SingleThread};
use super::open::open;
use super::{Mount, What, is_root, place};
use crate::network::{Who, change_live, is_live};

/// First argument of such a process.
pub(crate) const ARGUMENT: &str = "__devices";

#[derive(Default, Serialize, Deserialize)]
struct Change {
    /// The container's first process.
    init: Option<Process>,
    remove: Vec<Mount>,
    add: Vec<Mount>,
}

impl Runtime {
    /// Lets a running container follow its changed devices. Returns what does not.
    pub(in super::super) fn follow_devices(
        &self,
        who: &Who,
        init: Process,
        before: &Devices,
        after: &Devices,
    ) -> Vec<String> {
        let (mut change, mut notes) = (Change::default(), Vec::new());
        let (mut nics_gone, mut nics_new) = (Devices::new(), Devices::new());
        let names: BTreeSet<_> = before.keys().chain(after.keys()).collect();
        for name in names.into_iter().filter(|name| before.get(*name) != after.get(*name)) {
            let none = |device: Option<&Device>| {
                device.is_none_or(|device| device.get("type").is_some_and(|kind| kind == "none"))
            };
            let (old, new) = (before.get(name), after.get(name));
            let mounts = [old, new].map(|device| device.and_then(|device| Mount::of(name, device)));
            if mounts[0].is_some() && mounts[0] == mounts[1] {
                // As when only its limits change.
                continue;
            }
            if [(old, &mounts[0]), (new, &mounts[1])].iter().all(|(d, mount)| mount.is_some() || none(*d)) {
                let [old, new] = mounts;
                change.remove.extend(old);
                change.add.extend(new);
            } else if [old, new].into_iter().all(|device| none(device) || device.is_some_and(is_root)) {
                notes.extend(self.follow_size(who, after));
            } else if [old, new].into_iter().all(|device| none(device) || device.is_some_and(is_live)) {
                let nic = |device: Option<&Device>| {
                    device.filter(|device| is_live(device)).map(|device| (name.clone(), device.clone()))
                };
                nics_gone.extend(nic(old));
                nics_new.extend(nic(new));
            } else {
                notes.push(format!("device {name} changes with the next start"));
            }
        }
        if !nics_gone.is_empty() || !nics_new.is_empty() {
            let container = self.dir().join(who.name);
            notes.extend(change_live(self, &container, who, init.pid, &nics_gone, &nics_new));
        }
        if change.remove.is_empty() && change.add.is_empty() {
            return notes;
        }
        change.init = Some(init);
        change.remove.sort_by(|a, b| b.path.cmp(&a.path));
        change.add.sort_by(|a, b| a.path.cmp(&b.path));
        match run(&change) {
            Ok(said) => notes.extend(said),
            Err(error) => notes.push(format!("devices change with the next start: {error}")),
        }
        notes
    }
}

fn run(change: &Change) -> io::Result<Vec<String>> {
    let mut child = Command::new(Runtime::program())
        .arg(ARGUMENT)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let sent = child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(&serde_json::to_vec(change)?));
    let output = child.wait_with_output()?;
    sent?;
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// The process itself.
pub(crate) fn main() -> ! {
    sys::close_inherited();
    let mut notes = Vec::new();
    if let Err(reason) = change(&mut notes) {
        notes.push(format!("{reason}; devices change with the next start"));
    }
    let sent = serde_json::to_vec(&notes).map(|text| io::stdout().write_all(&text));
    std::process::exit(i32::from(!sent.is_ok_and(|sent| sent.is_ok())))
}

fn change(notes: &mut Vec<String>) -> Result<(), String> {
    let failed = |error: io::Error| format!("entering the container: {error}");
    let mut text = Vec::new();
    io::stdin().read_to_end(&mut text).map_err(failed)?;
    let change: Change = serde_json::from_slice(&text).map_err(|e| failed(e.into()))?;
    let single = SingleThread::check().map_err(failed)?;
    die_with_parent()?;
    umask(Mode::from_bits_truncate(0o022));
    let gone = || "it has just stopped".to_owned();
    let init = change.init.ok_or_else(gone)?;
    let process = init.open().map_err(failed)?.ok_or_else(gone)?;
    let namespace = File::open(format!("/proc/{}/ns/user", init.pid)).map_err(failed)?;
    let ids = Ids::of_process(init.pid).map_err(failed)?;
    if !init.is_alive() {
        return Err(gone());
    }
    // Looked at from outside, where the paths mean what the device says.
    let removed: Vec<_> = change.remove.iter().map(|mount| (mount, source(mount))).collect();
    let mut trees = Vec::new();
    for mount in &change.add {
        // One by one, so that one that fails keeps no other away.
        match open(std::slice::from_ref(mount), &ids, namespace.as_fd(), &single) {
            Ok(opened) => {
                trees.extend(opened.trees);
                notes.extend(opened.notes);
            }
            Err(reason) => notes.push(later(&reason)),
        }
    }
    move_into_thread_name_spaces(process.as_fd(), ThreadNameSpaceType::USER | ThreadNameSpaceType::MOUNT)
        .map_err(|e| failed(e.into()))?;
    become_root()?;
    die_with_parent()?;
    for (mount, source) in removed {
        if let Err(reason) = place::detach(&mount.path, source) {
            notes.push(later(&format!("device {} stays: {reason}", mount.device)));
        }
    }
    for (placement, tree) in trees {
        notes.extend(placement.attach(&tree).err().map(|reason| later(&reason)));
    }
    Ok(())
}

fn later(reason: &str) -> String {
    format!("{reason}; it changes with the next start")
}

/// Device and inode of what a disk shows.
fn source(mount: &Mount) -> Option<(u64, u64)> {
    let What::Disk(disk) = &mount.what else { return None };
    // A source that is gone is none that the container could have in its place.
    Some(fs::metadata(&disk.source).map_or((0, 0), |found| (found.dev(), found.ino())))
}
