//! `nic`: a network interface.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{Device, Key, Kind, flag, is_bool};

/// Bytes of an interface's name, as the kernel has it.
const LONGEST_NAME: usize = 15;

pub const KIND: Kind = Kind {
    name: "nic",
    keys: &[
        Key { name: "network", takes: "the name of a network of ours", allows: is_interface },
        Key {
            name: "nictype",
            takes: "bridged, macvlan, physical, host or none",
            allows: |text| matches!(text, "bridged" | "macvlan" | "physical" | "host" | "none"),
        },
        Key { name: "parent", takes: "an interface of the host", allows: is_interface },
        Key { name: "name", takes: "an interface's name", allows: is_interface },
        Key {
            name: "hwaddr",
            takes: "an address of one interface as in 00:16:3e:01:02:03",
            allows: is_hwaddr,
        },
        Key {
            name: "mtu",
            takes: "a number of bytes from 576 to 65535",
            allows: |text| text.parse::<u32>().is_ok_and(|mtu| (576..=65535).contains(&mtu)),
        },
        Key {
            name: "ipv4.address",
            takes: "an IPv4 address",
            allows: |text| text.parse::<Ipv4Addr>().is_ok(),
        },
        Key {
            name: "ipv6.address",
            takes: "an IPv6 address",
            allows: |text| text.parse::<Ipv6Addr>().is_ok_and(|address| !address.is_multicast()),
        },
        Key { name: "security.mac_filtering", takes: "true or false", allows: is_bool },
        Key { name: "security.ipv4_filtering", takes: "true or false", allows: is_bool },
        Key { name: "security.ipv6_filtering", takes: "true or false", allows: is_bool },
        Key { name: "limits.ingress", takes: RATE, allows: |text| rate(text).is_some() },
        Key { name: "limits.egress", takes: RATE, allows: |text| rate(text).is_some() },
    ],
    check,
};

const RATE: &str = "bits a second as in 10Mbit";

fn check(device: &Device) -> Result<(), String> {
    let on = |key: &str| flag(device, key) == Some(true);
    if on("security.ipv4_filtering") && !device.contains_key("ipv4.address") {
        return Err("security.ipv4_filtering needs an ipv4.address, the only one that passes".into());
    }
    let kind = device.get("nictype").map(String::as_str);
    if let Some(kind @ ("host" | "none")) = kind {
        let other = device.keys().find(|key| !matches!(key.as_str(), "type" | "nictype"));
        return other
            .map_or(Ok(()), |key| Err(format!("{key} is not for nictype={kind}, which makes no interface")));
    }
    for key in ["security.mac_filtering", "security.ipv6_filtering"] {
        if on(key) && kind.is_some_and(|kind| kind != "bridged") {
            return Err(format!("{key} is for interfaces on a bridge"));
        }
    }
    if device.contains_key("ipv6.address") && !on("security.ipv6_filtering") {
        return Err("ipv6.address is what security.ipv6_filtering lets pass; set that too".into());
    }
    match (device.get("network"), device.get("nictype"), device.get("parent")) {
        (None, Some(_), Some(_)) if device.contains_key("ipv4.address") => {
            Err("ipv4.address is given out by a network of ours; set network".into())
        }
        (Some(_), None, None) | (None, Some(_), Some(_)) => Ok(()),
        _ => Err("it needs either network, or nictype and parent".into()),
    }
}

/// Whether the kernel takes it, and the tools read it as a name.
pub fn is_interface(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !text.is_empty()
        && text.len() <= LONGEST_NAME
        && text.chars().all(plain)
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text != "all"
        && text != "default"
        && text != "lo"
}

/// Six bytes, the group bit not set.
fn is_hwaddr(text: &str) -> bool {
    let bytes: Option<Vec<u8>> = text
        .split(':')
        .map(|part| u8::from_str_radix(part, 16).ok().filter(|_| part.len() == 2 && !part.starts_with('+')))
        .collect();
    bytes.is_some_and(|bytes| bytes.len() == 6 && bytes[0] & 1 == 0 && bytes != [0; 6])
}

/// Bits a second: `10Mbit`, `500kbit`, `1000`.
pub fn rate(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit {
        "" | "bit" => 1,
        "kbit" => 1000,
        "Mbit" => 1_000_000,
        "Gbit" => 1_000_000_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor).filter(|rate| (1000..=1 << 40).contains(rate))
}
