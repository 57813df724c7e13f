//! What can be set for networks. Keys and values follow LXD's.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::container::Settings;

const KEYS: &str = "ipv4.address, ipv4.nat, ipv4.dhcp, ipv4.routing, ipv6.address, ipv6.nat, ipv6.routing, bridge.mtu, \
     dns.domain, user.*";

/// An address with the length of its network's prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subnet<A> {
    /// The host's address there.
    pub address: A,
    /// Bits.
    pub prefix: u8,
}

impl Subnet<Ipv4Addr> {
    fn mask(self) -> u32 {
        u32::MAX << (32 - u32::from(self.prefix))
    }

    /// Whether an address is in it and can be a container's.
    pub fn has(self, address: Ipv4Addr) -> bool {
        let bits = u32::from(address);
        let inner = bits & !self.mask();
        bits & self.mask() == u32::from(self.address) & self.mask()
            && inner != 0
            && inner != !self.mask()
            && address != self.address
    }

    /// The first and the last address for containers, and the mask.
    pub fn range(self) -> (Ipv4Addr, Ipv4Addr, Ipv4Addr) {
        let network = u32::from(self.address) & self.mask();
        ((network + 1).into(), ((network | !self.mask()) - 1).into(), self.mask().into())
    }

    fn overlaps(self, network: u32, mask: u32) -> bool {
        let common = mask & self.mask();
        mask != 0 && network & common == u32::from(self.address) & common
    }
}

fn subnet(text: &str) -> Option<Subnet<IpAddr>> {
    let (address, prefix) = text.split_once('/')?;
    Some(Subnet { address: address.parse().ok()?, prefix: prefix.parse().ok()? })
}

/// The IPv4 network, if there is one.
pub fn ipv4(settings: &Settings) -> Option<Subnet<Ipv4Addr>> {
    match subnet(settings.get("ipv4.address")?)? {
        Subnet { address: IpAddr::V4(address), prefix } if (8..=29).contains(&prefix) => {
            let subnet = Subnet { address, prefix };
            let own = Subnet { address: Ipv4Addr::UNSPECIFIED, prefix };
            let inner = u32::from(address) & !own.mask();
            (inner != 0 && inner != !own.mask() && !address.is_loopback()).then_some(subnet)
        }
        _ => None,
    }
}

/// The IPv6 network, if there is one.
pub fn ipv6(settings: &Settings) -> Option<Subnet<Ipv6Addr>> {
    match subnet(settings.get("ipv6.address")?)? {
        Subnet { address: IpAddr::V6(address), prefix: 64 }
            if !address.is_loopback() && !address.is_multicast() && !address.is_unspecified() =>
        {
            Some(Subnet { address, prefix: 64 })
        }
        _ => None,
    }
}

/// Accepts settings that can be a network's; the error says what would be right.
pub fn check(settings: &Settings) -> Result<(), String> {
    let switch = |value: &str| matches!(value, "true" | "false");
    for (key, value) in settings {
        let (good, takes) = match key.as_str() {
            "ipv4.address" => (
                value == "none" || ipv4(settings).is_some(),
                "none, auto, or the host's address with a prefix from 8 to 29, as in 10.20.30.1/24",
            ),
            "ipv6.address" => (
                value == "none" || ipv6(settings).is_some(),
                "none, auto, or the host's address with a prefix of 64, as in fd42::1/64",
            ),
            "ipv4.nat" | "ipv4.dhcp" | "ipv4.routing" | "ipv6.nat" | "ipv6.routing" => {
                (switch(value), "true or false")
            }
            "bridge.mtu" => (
                value.parse::<u32>().is_ok_and(|mtu| (1280..=65535).contains(&mtu)),
                "a number of bytes from 1280 to 65535",
            ),
            "dns.domain" => (is_domain(value), "a domain's name in lower case"),
            _ if key.starts_with("user.") => (value.len() <= 64 << 10, "at most 65536 bytes"),
            _ => return Err(format!("{key:?} is no key of networks; there are {KEYS}")),
        };
        if !good {
            return Err(format!("{key}: {value:?} is not {takes}"));
        }
    }
    Ok(())
}

fn is_domain(text: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && label.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
    };
    text.len() <= 200 && text.split('.').all(label)
}

/// Puts an address in place of `auto`, and of one not given.
pub fn fill(settings: &mut Settings, seed: u64) -> Result<(), String> {
    let auto = |settings: &Settings, key: &str| settings.get(key).is_none_or(|value| value == "auto");
    if auto(settings, "ipv4.address") {
        let address = free_ipv4(seed).ok_or("no free IPv4 network was found; set ipv4.address")?;
        settings.insert("ipv4.address".into(), format!("{address}/24"));
    }
    if auto(settings, "ipv6.address") {
        let address = Ipv6Addr::from(0xfd42 << 112 | u128::from(seed & 0xffff_ffff_ffff) << 64 | 1);
        settings.insert("ipv6.address".into(), format!("{address}/64"));
    }
    for key in ["ipv4.nat", "ipv6.nat"] {
        settings.entry(key.into()).or_insert_with(|| "true".into());
    }
    Ok(())
}

/// A network no route of this host leads to.
fn free_ipv4(seed: u64) -> Option<Ipv4Addr> {
    let text = fs::read_to_string("/proc/self/net/route").unwrap_or_default();
    let number = |word: Option<&str>| u32::from_str_radix(word?, 16).ok().map(u32::swap_bytes);
    let route = |line: &str| {
        let mut words = line.split_whitespace().skip(1);
        Some((number(words.next())?, number(words.nth(5))?))
    };
    let routes: Vec<_> = text.lines().skip(1).filter_map(route).collect();
    (0..1000_u64).find_map(|step| {
        let bits = seed.wrapping_add(step.wrapping_mul(257)).to_be_bytes();
        let address = Ipv4Addr::new(10, bits[6], bits[7], 1);
        let subnet = Subnet { address, prefix: 24 };
        (!routes.iter().any(|(network, mask)| subnet.overlaps(*network, *mask))).then_some(address)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn settings(pairs: &[(&str, &str)]) -> Settings {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn values_are_what_the_keys_take() {
        for (key, good, bad) in [
            ("ipv4.address", "10.1.2.1/24", "10.1.2.0/24"),
            ("ipv4.address", "none", "10.1.2.255/24"),
            ("ipv4.address", "192.168.7.9/29", "10.1.2.1/31"),
            ("ipv6.address", "fd42::1/64", "fd42::1/96"),
            ("ipv4.nat", "true", "yes"),
            ("bridge.mtu", "1400", "100"),
            ("dns.domain", "a.b-c", "a..b"),
            ("user.x", "", "\0".repeat(70_000).as_str()),
        ] {
            check(&settings(&[(key, good)])).unwrap();
            assert!(check(&settings(&[(key, bad)])).is_err(), "{key}={bad}");
        }
        assert!(check(&settings(&[("dns.domain", "a\nport=1")])).is_err());
        assert!(check(&settings(&[("ipv5.address", "1")])).unwrap_err().contains("ipv4.nat"));
    }

    #[test]
    fn subnets() {
        let subnet = ipv4(&settings(&[("ipv4.address", "10.1.2.1/24")])).unwrap();
        assert!(subnet.has(Ipv4Addr::new(10, 1, 2, 5)));
        for bad in [[10, 1, 2, 1], [10, 1, 2, 0], [10, 1, 2, 255], [10, 1, 3, 5]] {
            assert!(!subnet.has(bad.into()), "{bad:?}");
        }
        let addresses = [[10, 1, 2, 1], [10, 1, 2, 254], [255, 255, 255, 0]].map(Ipv4Addr::from);
        assert_eq!(subnet.range(), addresses.into());
        let mut made = Settings::new();
        fill(&mut made, 0x1234_5678_9abc_def0).unwrap();
        check(&made).unwrap();
        assert!(ipv4(&made).is_some() && ipv6(&made).is_some());
    }

    proptest! {
        #[test]
        fn any_text_is_judged(key in "\\PC{0,20}", value in "\\PC{0,40}", address in "[0-9./:a-f]{0,20}") {
            let _ = check(&settings(&[(&key, &value)]));
            let _ = check(&settings(&[("ipv4.address", &address), ("ipv6.address", &address)]));
        }
    }
}
