//! Interfaces on bridges that come and go while a container runs.

use super::nic::{Link, Nic};
use super::plan::{Plan, Who, nic};
use super::tools::run;
use crate::Runtime;
use crate::container::{Device, Devices};
use crate::sandbox::userns;

/// Whether a device can be given to a running container, or taken from it. What is filtered is set up
/// before anything can be sent.
pub fn is_live(keys: &Device) -> bool {
    let on_bridge = keys.get("nictype").is_none_or(|kind| kind == "bridged");
    let plain = keys.keys().all(|key| !key.starts_with("security."));
    keys.get("type").is_some_and(|kind| kind == "nic") && on_bridge && plain && !userns::inside()
}

/// Takes interfaces from a running container, `pid` being its first process, and gives it others.
/// Returns what the user should know.
pub fn change(runtime: &Runtime, who: &Who, pid: i32, removed: &Devices, added: &Devices) -> Vec<String> {
    for (device, keys) in removed {
        // Its other end goes with it.
        nic(who, device, keys, Link::Bridged(String::new())).clear();
    }
    let plan = Plan::of(runtime, who, added);
    let mut notes = plan.notes;
    for nic in &plan.nics {
        match nic.attach(pid).and_then(|said| up(nic, pid).map(|()| said)) {
            Ok(said) => notes.extend(said.into_iter().map(|note| format!("{}: {note}", nic.device))),
            Err(reason) => notes.push(format!("no interface {}: {reason}", nic.device)),
        }
    }
    notes
}

/// As those are that are there from the start.
fn up(nic: &Nic, pid: i32) -> Result<(), String> {
    let namespace = format!("--net=/proc/{pid}/ns/net");
    run("nsenter", &[&namespace, "--", "ip", "link", "set", "dev", &nic.name, "up"], "").map(drop)
}
