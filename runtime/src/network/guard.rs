//! What an interface may send: only under its own addresses, where its device says so.
//!
//! One `nft` table for bridges has a map from interfaces to chains, so that packets of others pass one
//! look-up, however many containers there are. Names of interfaces are matched as text: the rules are
//! there before the interface is.

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::tools::{hash, run};
use crate::container::DirLock;

const TABLE: &str = "bridge millstream";
/// Locked while the table changes: it goes with its last chain.
const LOCK: &str = "/run/millstream";

/// What is kept.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Guard {
    /// Nothing leaves under another hardware address.
    pub mac: bool,
    /// Nothing leaves under another IPv4 address than this.
    pub ipv4: Option<Ipv4Addr>,
    /// Nothing leaves under another IPv6 address than these, unless there are none; and nothing that
    /// makes it a router.
    #[serde(default)]
    pub ipv6: Vec<Ipv6Addr>,
}

type Step<T> = Result<T, String>;

impl Guard {
    fn is_empty(&self) -> bool {
        !self.mac && self.ipv4.is_none() && self.ipv6.is_empty()
    }

    /// Puts the rules for an interface of the host in place.
    pub fn put(&self, interface: &str, hwaddr: Option<&str>) -> Step<()> {
        if self.is_empty() {
            return Ok(());
        }
        let rules = self.rules(interface, hwaddr)?;
        let _lock = lock()?;
        run("nft", &["-f", "-"], &rules).map(drop).map_err(|e| format!("filtering what it sends: {e}"))
    }

    fn rules(&self, interface: &str, hwaddr: Option<&str>) -> Step<String> {
        let mut lines = vec![
            format!("add table {TABLE}"),
            format!("add map {TABLE} interfaces {{ type ifname : verdict; }}"),
            format!("add chain {TABLE} from {{ type filter hook prerouting priority -300; }}"),
            format!("flush chain {TABLE} from"),
            format!("add rule {TABLE} from iifname vmap @interfaces"),
            format!("add chain {TABLE} {interface}"),
            format!("flush chain {TABLE} {interface}"),
        ];
        let mut add = |rule: String| lines.push(format!("add rule {TABLE} {interface} {rule}"));
        if self.mac {
            let own = hwaddr.ok_or("security.mac_filtering: the interface has no address of its own")?;
            add(format!("ether saddr != {own} drop"));
            add(format!("arp saddr ether != {own} drop"));
        }
        if let Some(own) = self.ipv4 {
            add(format!("arp saddr ip != {{ 0.0.0.0, {own} }} drop"));
            // As long as it has no address, it may ask for one.
            add("ip saddr 0.0.0.0 ip daddr 255.255.255.255 udp dport 67 accept".into());
            add(format!("ip saddr != {own} drop"));
            add("meta protocol ip udp sport 67 drop".into());
        }
        self.ipv6_rules().into_iter().for_each(add);
        lines.push(format!("add element {TABLE} interfaces {{ \"{interface}\" : jump {interface} }}"));
        Ok(lines.join("\n") + "\n")
    }

    fn ipv6_rules(&self) -> Vec<String> {
        if self.ipv6.is_empty() {
            return Vec::new();
        }
        // By number, as a small system has no /etc/protocols: ICMPv6.
        let kind = |kind: &str| format!("meta protocol ip6 meta l4proto 58 icmpv6 type {kind}");
        let (ask, tell) = (kind("nd-neighbor-solicit"), kind("nd-neighbor-advert"));
        // The address that is asked for or told about.
        let target = |address: &Ipv6Addr| format!("{:#034x}", u128::from(*address));
        let own = self.ipv6.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let others: Vec<_> = self.ipv6.iter().map(|own| format!("@th,64,128 != {}", target(own))).collect();
        // As long as it has no address, it may ask whether another has it, and say which groups it is in.
        let mut rules: Vec<_> = self
            .ipv6
            .iter()
            .map(|own| format!("ip6 saddr :: {ask} @th,64,128 {} accept", target(own)))
            .collect();
        rules.push(format!("ip6 saddr :: {} accept", kind("mld2-listener-report")));
        rules.push(format!("ip6 saddr != {{ {own} }} drop"));
        rules.push(format!("{tell} {} drop", others.join(" ")));
        rules.push(format!("{} drop", kind("nd-router-advert")));
        rules.push("meta protocol ip6 udp sport 547 drop".into());
        rules
    }

    /// Takes them away.
    pub fn clear(&self, interface: &str) {
        if !self.is_empty() {
            remove(|chain| chain == interface);
        }
    }
}

/// Takes away what a container left whose supervisor was killed.
pub fn forget(id: &str) {
    remove(|chain| chain.starts_with(&prefix(id)));
}

/// What the names of a container's interfaces on the host begin with.
pub fn prefix(id: &str) -> String {
    format!("ms{:07x}", hash(id) & 0xfff_ffff)
}

fn remove(which: impl Fn(&str) -> bool) {
    // Where there is none, nothing was filtered.
    let Ok(_lock) = lock() else { return };
    let Ok(text) = run("nft", &["list", "table", "bridge", "millstream"], "") else { return };
    let chains = text.lines().filter_map(|line| line.trim().strip_prefix("chain ")?.strip_suffix(" {"));
    let (gone, left): (Vec<_>, Vec<_>) =
        chains.filter(|chain| *chain != "from").partition(|chain| which(chain));
    if gone.is_empty() {
        return;
    }
    let lines = if left.is_empty() {
        format!("delete table {TABLE}\n")
    } else {
        let lines = gone.iter().map(|chain| {
            format!("delete element {TABLE} interfaces {{ \"{chain}\" }}\ndelete chain {TABLE} {chain}\n")
        });
        lines.collect::<Vec<_>>().concat()
    };
    let _ = run("nft", &["-f", "-"], &lines);
}

fn lock() -> Step<DirLock> {
    let place = Path::new(LOCK);
    fs::create_dir_all(place).map_err(|e| format!("{LOCK}: {e}"))?;
    let lock = DirLock::exclusive_patient(place).map_err(|e| e.to_string())?;
    lock.ok_or_else(|| format!("{LOCK}: it was removed"))
}

/// The addresses an interface makes of its hardware address: of the link, and in `network`.
pub fn made_of(hwaddr: &str, network: Option<Ipv6Addr>) -> Vec<Ipv6Addr> {
    let bytes: Vec<u8> = hwaddr.split(':').filter_map(|part| u8::from_str_radix(part, 16).ok()).collect();
    if bytes.len() != 6 {
        return Vec::new();
    }
    let mut id = [0, 0, 0, 0xff, 0xfe, 0, 0, 0];
    id[..3].copy_from_slice(&bytes[..3]);
    id[5..].copy_from_slice(&bytes[3..]);
    id[0] ^= 2;
    let id = u64::from_be_bytes(id);
    let prefixes = [Some(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0)), network];
    let own = |prefix: Ipv6Addr| Ipv6Addr::from(u128::from(prefix) >> 64 << 64 | u128::from(id));
    prefixes.into_iter().flatten().map(own).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_made_as_the_kernel_makes_them() {
        let made = made_of("00:16:3e:01:02:03", Some("2001:db8:1:2::1".parse().unwrap()));
        assert_eq!(
            made.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["fe80::216:3eff:fe01:203", "2001:db8:1:2:216:3eff:fe01:203"]
        );
        assert!(made_of("none", None).is_empty());
    }
}
