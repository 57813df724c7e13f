//! Devices of containers: a name, a `type`, and the keys of that type. Names and meanings follow
//! LXD's.
//!
//! A type is one [`Kind`] in [`KINDS`], in a module of its own. A device of a later profile, or of
//! the container, replaces the whole device of the same name; `type=none` takes it away.

pub mod disk;
pub mod nic;
pub mod proxy;
pub mod unix;

use std::collections::BTreeMap;
use std::path::{Component, Path};

use crate::{Error, Result};

/// Keys and values of a device, `type` among them.
pub type Device = BTreeMap<String, String>;
/// Devices by name.
pub type Devices = BTreeMap<String, Device>;

/// Bytes of a device's name.
const LONGEST_NAME: usize = 64;

/// A type of devices.
pub struct Kind {
    /// What `type` says.
    pub name: &'static str,
    /// Keys besides `type`.
    pub keys: &'static [Key],
    /// What one key's value cannot show, as two that belong together.
    pub check: fn(&Device) -> Result<(), String>,
}

/// A key, what it takes, and whether a value is that.
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// What it takes, for messages.
    pub takes: &'static str,
    /// Whether a value is that.
    pub allows: fn(&str) -> bool,
}

/// All there are.
pub const KINDS: &[Kind] = &[
    disk::KIND,
    nic::KIND,
    Kind { name: "none", keys: &[], check: |_| Ok(()) },
    proxy::KIND,
    unix::BLOCK,
    unix::CHAR,
];

/// Accepts devices that may be set; the error names the device and says what would be right.
pub fn check(devices: &Devices) -> Result<()> {
    devices.iter().try_for_each(|(name, device)| {
        check_one(name, device)
            .map_err(|reason| Error::Setting { key: format!("device {}", name.escape_debug()), reason })
    })
}

fn check_one(name: &str, device: &Device) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > LONGEST_NAME || !name.chars().all(plain) || name.starts_with('.') {
        return Err(format!("a name has 1 to {LONGEST_NAME} letters, digits, - _ ., and starts with no dot"));
    }
    let types = || KINDS.iter().map(|kind| kind.name).collect::<Vec<_>>().join(", ");
    let Some(text) = device.get("type") else { return Err(format!("it needs a type: {}", types())) };
    let Some(kind) = KINDS.iter().find(|kind| kind.name == text) else {
        return Err(format!("{text:?} is no type; there are {}", types()));
    };
    for (key, value) in device.iter().filter(|(key, _)| *key != "type") {
        let Some(known) = kind.keys.iter().find(|known| known.name == key) else {
            let names: Vec<_> = kind.keys.iter().map(|known| known.name).collect();
            return Err(format!("{key:?} is no key of {text}; there are: {}", names.join(", ")));
        };
        if !(known.allows)(value) {
            return Err(format!("{key}: {value:?} is not {}", known.takes));
        }
    }
    (kind.check)(device)
}

pub use super::keys::is_bool;

/// A path from the root on that means one place, whatever the links on it.
pub(super) fn is_path(text: &str) -> bool {
    let path = Path::new(text);
    let plain = |part| matches!(part, Component::RootDir | Component::Normal(_));
    // `components` leaves out a `.` in the middle, which does no harm.
    text.len() < 4096 && !text.contains('\0') && path.is_absolute() && path.components().all(plain)
}

/// What a key that is true or false says.
pub fn flag(device: &Device, key: &str) -> Option<bool> {
    device.get(key).map(|value| matches!(value.as_str(), "true" | "1" | "yes" | "on"))
}

/// Lays devices over others; those of type `none` stay, so that they can be seen.
pub fn merge(below: &mut Devices, above: &Devices) {
    below.extend(above.iter().map(|(name, device)| (name.clone(), device.clone())));
}

/// Those of one type, by name.
pub fn of_type<'a>(devices: &'a Devices, kind: &'a str) -> impl Iterator<Item = (&'a String, &'a Device)> {
    devices.iter().filter(move |(_, device)| device.get("type").is_some_and(|text| text == kind))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn device(pairs: &[(&str, &str)]) -> Device {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn devices_are_what_their_type_takes() {
        let good: &[&[(&str, &str)]] = &[
            &[("type", "none")],
            &[("type", "nic"), ("network", "millbr0")],
            &[("type", "nic"), ("nictype", "bridged"), ("parent", "br0"), ("hwaddr", "00:16:3e:01:02:03")],
            &[("type", "nic"), ("nictype", "macvlan"), ("parent", "eth0"), ("mtu", "1400")],
            &[("type", "nic"), ("network", "n"), ("ipv4.address", "10.1.1.5"), ("limits.egress", "10Mbit")],
            &[("type", "nic"), ("nictype", "host")],
            &[
                ("type", "nic"),
                ("network", "n"),
                ("ipv6.address", "fd00::5"),
                ("security.ipv6_filtering", "true"),
            ],
            &[("type", "proxy"), ("listen", "tcp:127.0.0.1:8080"), ("connect", "tcp:[::1]:80")],
            &[("type", "disk"), ("source", "/srv/data"), ("path", "/mnt"), ("readonly", "true")],
            &[("type", "disk"), ("path", "/"), ("size", "10GiB"), ("limits.read", "100iops")],
            &[("type", "disk"), ("source", "/srv"), ("path", "/srv"), ("limits.max", "10MB")],
            &[("type", "unix-char"), ("source", "/dev/fuse")],
            &[("type", "unix-block"), ("path", "/dev/x"), ("major", "7"), ("minor", "0"), ("mode", "0660")],
        ];
        for pairs in good {
            check_one("eth0", &device(pairs)).unwrap_or_else(|e| panic!("{pairs:?}: {e}"));
        }
        let bad: &[(&[(&str, &str)], &str)] = &[
            (&[], "needs a type"),
            (&[("type", "floppy")], "no type"),
            (&[("type", "none"), ("x", "1")], "no key"),
            (&[("type", "nic")], "network"),
            (&[("type", "nic"), ("network", "n"), ("security.ipv4_filtering", "true")], "ipv4.address"),
            (&[("type", "nic"), ("nictype", "bridged")], "parent"),
            (&[("type", "nic"), ("nictype", "host"), ("parent", "eth0")], "no interface"),
            (&[("type", "nic"), ("network", "n"), ("ipv6.address", "fd00::5")], "ipv6_filtering"),
            (&[("type", "nic"), ("network", "n"), ("ipv6.address", "ff02::1")], "ipv6.address"),
            (
                &[
                    ("type", "nic"),
                    ("nictype", "macvlan"),
                    ("parent", "e"),
                    ("security.ipv6_filtering", "true"),
                ],
                "bridge",
            ),
            (&[("type", "nic"), ("network", "a"), ("parent", "b")], "network"),
            (&[("type", "nic"), ("network", "n"), ("hwaddr", "01:16:3e:01:02:03")], "hwaddr"),
            (&[("type", "nic"), ("network", "n"), ("mtu", "1")], "mtu"),
            (&[("type", "nic"), ("network", "n"), ("name", "a/b")], "name"),
            (&[("type", "nic"), ("network", "n"), ("limits.ingress", "fast")], "limits.ingress"),
            (&[("type", "proxy"), ("listen", "tcp:127.0.0.1:0")], "listen"),
            (&[("type", "proxy"), ("listen", "tcp:127.0.0.1:80")], "connect"),
            (&[("type", "proxy"), ("listen", "udp:1.1.1.1:1"), ("connect", "tcp:1.1.1.1:1")], "listen"),
            (&[("type", "disk"), ("source", "/srv")], "path"),
            (&[("type", "disk"), ("path", "/mnt")], "source"),
            (&[("type", "disk"), ("source", "srv"), ("path", "/mnt")], "source"),
            (&[("type", "disk"), ("source", "/srv/../etc"), ("path", "/mnt")], "source"),
            (&[("type", "disk"), ("source", "/srv"), ("path", "../mnt")], "path"),
            (&[("type", "disk"), ("source", "/srv"), ("path", "/")], "source"),
            (&[("type", "disk"), ("source", "/srv"), ("path", "/a"), ("size", "1GiB")], "size"),
            (&[("type", "disk"), ("source", "/srv"), ("path", "/a"), ("shift", "maybe")], "shift"),
            (&[("type", "disk"), ("path", "/"), ("limits.write", "0iops")], "limits.write"),
            (&[("type", "unix-char")], "path"),
            (&[("type", "unix-char"), ("path", "/dev/x"), ("major", "1")], "minor"),
            (&[("type", "unix-char"), ("path", "/dev/x"), ("mode", "1777")], "mode"),
            (&[("type", "unix-block"), ("path", "dev/x")], "path"),
        ];
        for (pairs, says) in bad {
            let reason = check_one("eth0", &device(pairs)).unwrap_err();
            assert!(reason.contains(says), "{pairs:?}: {reason}");
        }
        for name in ["", "a b", "../x", ".x", "a/b"] {
            assert!(check_one(name, &device(&[("type", "none")])).is_err(), "{name:?}");
        }
    }

    #[test]
    fn the_container_comes_last() {
        let mut below = Devices::from([("eth0".into(), device(&[("type", "nic"), ("network", "a")]))]);
        merge(&mut below, &Devices::from([("eth0".into(), device(&[("type", "none")]))]));
        assert_eq!(of_type(&below, "nic").count(), 0);
        assert_eq!(below["eth0"], device(&[("type", "none")]), "replaced as a whole");
    }

    proptest! {
        #[test]
        fn any_text_is_judged(name in "\\PC{0,20}", key in "\\PC{0,20}", value in "\\PC{0,40}") {
            for kind in KINDS {
                let _ = check_one(&name, &device(&[("type", kind.name), (&key, &value)]));
                for known in kind.keys {
                    let _ = check_one("a", &device(&[("type", kind.name), (known.name, &value)]));
                }
            }
        }
    }
}
