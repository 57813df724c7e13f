//! `proxy`: a port of the host that leads to one of the container.

use std::net::SocketAddr;

use super::{Device, Key, Kind};

pub const KIND: Kind = Kind {
    name: "proxy",
    keys: &[
        Key { name: "listen", takes: ADDRESS, allows: |text| address(text).is_some() },
        Key { name: "connect", takes: ADDRESS, allows: |text| address(text).is_some() },
    ],
    check,
};

const ADDRESS: &str = "an address and a port as in tcp:127.0.0.1:8080 (tcp alone is forwarded)";

fn check(device: &Device) -> Result<(), String> {
    match ["listen", "connect"].into_iter().find(|key| !device.contains_key(*key)) {
        Some(key) => Err(format!("it needs {key}, {ADDRESS}")),
        None => Ok(()),
    }
}

/// `tcp:ADDRESS:PORT`, the address of IPv6 in brackets.
pub fn address(text: &str) -> Option<SocketAddr> {
    text.strip_prefix("tcp:")?.parse().ok().filter(|address: &SocketAddr| address.port() != 0)
}
