//! From devices to what a supervisor sets up.

use std::fs;
use std::net::Ipv6Addr;

use serde::{Deserialize, Serialize};

use super::guard::{self, Guard};
use super::manage::Network;
use super::nic::{Link, Nic, hwaddr};
use super::proxy::Proxy;
use super::{settings, tools};
use crate::Runtime;
use crate::container::{Device, Devices, device_flag, nic_rate, of_type, proxy_address};
use crate::sandbox::userns;

/// What a run of a container has of networking.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Plan {
    pub nics: Vec<Nic>,
    pub proxies: Vec<Proxy>,
    /// Whether the host's network is the container's.
    #[serde(default)]
    pub host: bool,
    /// What the user should know.
    pub notes: Vec<String>,
}

/// Said whenever such a container starts.
const SHARED: &str =
    "the container has the host's network, with every service on its loopback and every abstract socket";

/// A container, as networks know it.
pub struct Who<'a> {
    /// Its name, which the others resolve.
    pub name: &'a str,
    /// Stays, and is no other container's.
    pub id: &'a str,
}

impl Plan {
    /// Brings the networks up that the devices name. What cannot be had is left out and said: a
    /// container starts without a network, too.
    pub fn of(runtime: &Runtime, who: &Who, devices: &Devices) -> Self {
        Self::make(runtime, who, devices, true)
    }

    /// The same for a container that reboots: its supervisor starts no servers, and so takes networks
    /// as they are.
    pub fn again(runtime: &Runtime, who: &Who, devices: &Devices) -> Self {
        Self::make(runtime, who, devices, false)
    }

    fn make(runtime: &Runtime, who: &Who, devices: &Devices, bring_up: bool) -> Self {
        let mut plan = Self::default();
        let is = |keys: &Device, kind: &str| keys.get("nictype").is_some_and(|text| text == kind);
        if let Some((device, _)) = of_type(devices, "nic").find(|(_, keys)| is(keys, "host")) {
            plan.host = true;
            plan.notes.push(format!("{device}: {SHARED}"));
        }
        for (device, keys) in
            of_type(devices, "nic").filter(|(_, keys)| !is(keys, "host") && !is(keys, "none"))
        {
            if plan.host {
                plan.notes.push(format!("no interface {device}: the container has those of the host"));
                continue;
            }
            let link = link(runtime, who, device, keys, bring_up, &mut plan.notes);
            match link {
                Ok(Link::User) if plan.nics.iter().any(|nic| matches!(nic.link, Link::User)) => {
                    plan.notes.push(format!("{device}: an ordinary user's container has one interface"));
                }
                Ok(link) => {
                    let mut nic = nic(who, device, keys, link);
                    nic.guard.ipv6 = own_ipv6(runtime, keys, nic.hwaddr.as_deref());
                    plan.nics.push(nic);
                }
                Err(reason) => plan.notes.push(format!("no interface {device}: {reason}")),
            }
        }
        for (device, keys) in of_type(devices, "proxy") {
            let address = |key: &str| keys.get(key).and_then(|text| proxy_address(text));
            if let (Some(listen), Some(connect)) = (address("listen"), address("connect")) {
                plan.proxies.push(Proxy { device: device.clone(), listen, connect });
            }
        }
        plan
    }

    /// Lets the container's own system configure its interfaces.
    pub fn leave_to_the_inside(&mut self) {
        self.nics.iter_mut().for_each(|nic| nic.bare = true);
    }
}

pub(super) fn nic(who: &Who, device: &str, keys: &Device, link: Link) -> Nic {
    let get = |key: &str| keys.get(key).cloned();
    let rate = |key: &str| keys.get(key).and_then(|text| nic_rate(text));
    let fixed = || Some(hwaddr(who.id, device)).filter(|_| !matches!(link, Link::Physical(_)));
    Nic {
        device: device.to_owned(),
        name: get("name").unwrap_or_else(|| device.chars().take(15).collect()),
        // The same for the same device, whatever others there are: at most fifteen bytes.
        host_name: format!("{}{:06x}", guard::prefix(who.id), tools::hash(device) & 0xff_ffff),
        hwaddr: get("hwaddr").or_else(fixed),
        mtu: get("mtu"),
        ingress: rate("limits.ingress"),
        egress: rate("limits.egress"),
        guard: guard_of(keys),
        link,
        bare: false,
    }
}

fn guard_of(keys: &Device) -> Guard {
    let is = |key: &str| device_flag(keys, key) == Some(true);
    let ipv4 = keys.get("ipv4.address").and_then(|text| text.parse().ok());
    Guard {
        mac: is("security.mac_filtering"),
        ipv4: ipv4.filter(|_| is("security.ipv4_filtering")),
        ipv6: Vec::new(),
    }
}

/// The addresses that pass, if others do not.
fn own_ipv6(runtime: &Runtime, keys: &Device, hwaddr: Option<&str>) -> Vec<Ipv6Addr> {
    if device_flag(keys, "security.ipv6_filtering") != Some(true) {
        return Vec::new();
    }
    let network = keys.get("network").and_then(|name| runtime.network(name).ok());
    let network = network.and_then(|known| settings::ipv6(&known.config)).map(|subnet| subnet.address);
    let fixed = keys.get("ipv6.address").and_then(|text| text.parse().ok());
    guard::made_of(hwaddr.unwrap_or_default(), network).into_iter().chain(fixed).collect()
}

fn link(
    runtime: &Runtime,
    who: &Who,
    device: &str,
    keys: &Device,
    bring_up: bool,
    notes: &mut Vec<String>,
) -> Result<Link, String> {
    let Some(network) = keys.get("network") else {
        let kind = keys.get("nictype").map_or("", String::as_str);
        if userns::inside() {
            return Err(format!("{kind} interfaces need root; an ordinary user sets network"));
        }
        let parent = keys.get("parent").cloned().unwrap_or_default();
        if !tools::exists(&parent) {
            return Err(format!("the host has no interface {parent}"));
        }
        return match kind {
            "bridged" => Ok(Link::Bridged(parent)),
            "macvlan" => Ok(Link::Macvlan(parent)),
            _ => Ok(Link::Physical(parent)),
        };
    };
    let known = runtime.network(network).map_err(|e| e.to_string())?;
    if userns::inside() {
        return tools::find("pasta").map(|_| Link::User);
    }
    if !bring_up && !tools::exists(network) {
        return Err(format!("network {network} is down until a container on it is started"));
    }
    if bring_up {
        notes.extend(runtime.network_up(network, &known).map_err(|e| format!("network {network}: {e}"))?);
    }
    reserve(runtime, who, device, keys, network, &known)?;
    Ok(Link::Bridged(network.clone()))
}

/// Tells the network's DHCP and name server about the container.
fn reserve(
    runtime: &Runtime,
    who: &Who,
    device: &str,
    keys: &Device,
    network: &str,
    known: &Network,
) -> Result<(), String> {
    let mut line = keys.get("hwaddr").cloned().unwrap_or_else(|| hwaddr(who.id, device));
    if let Some(address) = keys.get("ipv4.address") {
        let subnet = settings::ipv4(&known.config);
        if !subnet.is_some_and(|subnet| address.parse().is_ok_and(|address| subnet.has(address))) {
            return Err(format!("ipv4.address {address} is none of network {network}"));
        }
        line.extend([",", address]);
    }
    line.extend([",", who.name, "\n"]);
    let bridge = runtime.bridge(network, known);
    let file = bridge.hosts().join(format!("{}.{device}", who.id));
    if fs::read_to_string(&file).is_ok_and(|text| text == line) {
        return Ok(());
    }
    let known_before = file.exists();
    fs::write(&file, line).map_err(|e| format!("{}: {e}", file.display()))?;
    // New files it sees by itself; what a file said before it forgets only so.
    if known_before {
        bridge.reload();
    }
    Ok(())
}
