//! The interfaces of a container, as `/proc` shows them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};

use serde::Serialize;

/// What went over an interface, seen from the container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Bytes it received.
    pub received_bytes: u64,
    /// Packets it received.
    pub received_packets: u64,
    /// Bytes it sent.
    pub sent_bytes: u64,
    /// Packets it sent.
    pub sent_packets: u64,
}

/// A container's interfaces and addresses, without the loopback one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Interfaces {
    /// By name.
    pub counters: BTreeMap<String, Counters>,
    /// Addresses of all of them.
    pub ipv4: BTreeSet<Ipv4Addr>,
    /// Addresses of all of them, without link-local ones.
    pub ipv6: BTreeSet<Ipv6Addr>,
}

impl Interfaces {
    /// Those of the network namespace of a process.
    pub fn of(pid: i32) -> Self {
        let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/net/{file}")).unwrap_or_default();
        Self {
            counters: counters(&read("dev")),
            ipv4: ipv4(&read("fib_trie")),
            ipv6: ipv6(&read("if_inet6")),
        }
    }
}

fn counters(text: &str) -> BTreeMap<String, Counters> {
    let parse = |line: &str| {
        let (name, rest) = line.split_once(':')?;
        let numbers: Vec<u64> = rest.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let [received_bytes, received_packets, _, _, _, _, _, _, sent_bytes, sent_packets, ..] = numbers[..]
        else {
            return None;
        };
        let counters = Counters { received_bytes, received_packets, sent_bytes, sent_packets };
        Some((name.trim().to_owned(), counters))
    };
    text.lines().filter_map(parse).filter(|(name, _)| name != "lo").collect()
}

/// A leaf of the trie is an address when the line below calls it local.
fn ipv4(text: &str) -> BTreeSet<Ipv4Addr> {
    let mut found = BTreeSet::new();
    let mut last = None;
    for line in text.lines().map(str::trim) {
        if let Some(address) = line.strip_prefix("|-- ") {
            last = address.parse::<Ipv4Addr>().ok();
        } else if line.ends_with("host LOCAL") {
            found.extend(last.filter(|address| !address.is_loopback()));
        }
    }
    found
}

fn ipv6(text: &str) -> BTreeSet<Ipv6Addr> {
    let parse = |line: &str| u128::from_str_radix(line.split_whitespace().next()?, 16).ok();
    let addresses = text.lines().filter_map(parse).map(Ipv6Addr::from);
    addresses.filter(|address| !address.is_loopback() && !address.is_unicast_link_local()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_kernel_shows() {
        let text = "Inter-|   Receive\n face |bytes    packets\n    lo: 1 2 0 0 0 0 0 0 3 4 0 0 0 0 0 0\n  \
                    eth0: 10 2 0 0 0 0 0 0 30 4 0 0 0 0 0 0\n";
        let eth0 = Counters { received_bytes: 10, received_packets: 2, sent_bytes: 30, sent_packets: 4 };
        assert_eq!(counters(text), BTreeMap::from([("eth0".to_owned(), eth0)]));
        let text = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 10.0.0.0\n        /24 link UNICAST\n     \
                    |-- 10.0.0.5\n        /32 host LOCAL\n     |-- 127.0.0.1\n        /32 host LOCAL\n";
        assert_eq!(ipv4(text), BTreeSet::from([Ipv4Addr::new(10, 0, 0, 5)]));
        let text = "00000000000000000000000000000001 01 80 10 80 lo\n\
                    fe800000000000000000000000000001 02 40 20 80 eth0\n\
                    fd420000000000000000000000000005 02 40 00 00 eth0\n";
        assert_eq!(ipv6(text), BTreeSet::from(["fd42::5".parse().unwrap()]));
        assert_eq!(ipv6("x\n\n"), BTreeSet::new());
    }
}
