//! Whether a system configures the network it is given.

use std::net::Ipv4Addr;
use std::time::Duration;

use millstream_runtime::network::Interfaces;

use super::machine::Machine;
use crate::Result;

/// How long that may take.
const LIMIT: Duration = Duration::from_mins(1);

impl Machine<'_> {
    /// Waits for an address out of the network and a route to its router. Returns the address.
    pub(super) fn network(&self) -> Result<Ipv4Addr> {
        let limit = self.limit.min(LIMIT);
        let look = || {
            let pid = self.pid()?;
            // What a system takes when nobody gave it one does not count.
            let address = Interfaces::of(pid).ipv4.into_iter().find(|address| !address.is_link_local());
            let routes = std::fs::read_to_string(format!("/proc/{pid}/net/route")).unwrap_or_default();
            Ok(address.filter(|_| has_default(&routes)))
        };
        self.wait(limit, look, || {
            let pid = self.pid()?;
            let found = Interfaces::of(pid).ipv4;
            let what = if found.is_empty() { "no address" } else { "an address but no default route" };
            Ok(format!(
                "its network has {what} after {} seconds; eth0 must be configured by DHCP",
                limit.as_secs()
            ))
        })
    }
}

/// Whether the kernel's table of IPv4 routes has one that leads everywhere.
fn has_default(routes: &str) -> bool {
    routes.lines().skip(1).any(|line| line.split_whitespace().nth(1) == Some("00000000"))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_default_route_is_found() {
        let head = "Iface\tDestination\tGateway\tFlags\n";
        assert!(!super::has_default(head));
        assert!(!super::has_default(&format!("{head}eth0\t0005A8C0\t00000000\t0001\n")));
        assert!(super::has_default(&format!("{head}eth0\t00000000\t0105A8C0\t0003\n")));
    }
}
