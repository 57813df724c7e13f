//! Interfaces and forwarded ports that come and go while a container runs.

use std::fs::File;
use std::path::Path;

use super::nic::{Link, Nic};
use super::plan::{Plan, Who, nic};
use super::present::Present;
use super::tools::run;
use crate::Runtime;
use crate::container::{Device, Devices};
use crate::sandbox::userns;

/// Whether a device can be given to a running container, or taken from it. An ordinary user's interface
/// lives as long as `pasta`, and who shares the host's network does so from birth.
pub fn is_live(keys: &Device) -> bool {
    let of_host = keys.get("nictype").is_some_and(|kind| matches!(kind.as_str(), "host" | "none"));
    match keys.get("type").map(String::as_str) {
        Some("nic") => !of_host && !userns::inside(),
        Some("proxy") => true,
        _ => false,
    }
}

/// Takes interfaces and ports from a running container, `pid` being its first process, and gives it
/// others. Returns what the user should know.
pub fn change(
    runtime: &Runtime,
    container: &Path,
    who: &Who,
    pid: i32,
    removed: &Devices,
    added: &Devices,
) -> Vec<String> {
    let mut present = Present::read(container);
    let mut notes = Vec::new();
    for (device, keys) in removed {
        present.close(device);
        let known = present.nics.iter().position(|nic| nic.device == *device);
        // One that a runtime of before attached is not written down; those were on bridges.
        let gone = known.map_or_else(
            || nic(who, device, keys, Link::Bridged(String::new())),
            |position| present.nics.remove(position),
        );
        notes.extend(take(&gone, pid).err().map(|reason| format!("interface {device} stays: {reason}")));
    }
    let plan = Plan::of(runtime, who, added);
    notes.extend(plan.notes);
    for nic in plan.nics {
        match nic.attach(pid).and_then(|said| up(&nic, pid).map(|()| said)) {
            Ok(said) => {
                notes.extend(said.into_iter().map(|note| format!("{}: {note}", nic.device)));
                present.nics.push(nic);
            }
            Err(reason) => notes.push(format!("no interface {}: {reason}", nic.device)),
        }
    }
    for proxy in plan.proxies {
        match proxy.start(pid) {
            Ok(process) => drop(present.forwards.insert(proxy.device, process)),
            Err(reason) => notes.push(format!("{} forwards nothing: {reason}", proxy.device)),
        }
    }
    notes.extend(present.write(container).err());
    notes
}

/// Takes an interface away.
fn take(nic: &Nic, pid: i32) -> Result<(), String> {
    let gone = match nic.link {
        // All of it is inside.
        Link::Macvlan(_) => inside(pid, &["link", "delete", "dev", &nic.name]),
        Link::Physical(_) => {
            let path = format!("/proc/{pid}/ns/net");
            File::open(&path)
                .map_err(|e| format!("{path}: {e}"))
                .and_then(|namespace| nic.give_back(&namespace))
        }
        Link::Bridged(_) | Link::User => Ok(()),
    };
    nic.clear();
    gone
}

/// As those are that are there from the start.
fn up(nic: &Nic, pid: i32) -> Result<(), String> {
    inside(pid, &["link", "set", "dev", &nic.name, "up"])
}

/// Runs `ip` in the container's network.
fn inside(pid: i32, args: &[&str]) -> Result<(), String> {
    let namespace = format!("--net=/proc/{pid}/ns/net");
    run("nsenter", &[&[namespace.as_str(), "--", "ip"], args].concat(), "").map(drop)
}
