//! What an interface may send: only under its own addresses, where its device says so.
//!
//! One `nft` table for bridges has a map from interfaces to chains, so that packets of others pass one
//! look-up, however many containers there are. Names of interfaces are matched as text: the rules are
//! there before the interface is.

use std::fs;
use std::net::Ipv4Addr;
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
}

type Step<T> = Result<T, String>;

impl Guard {
    /// Puts the rules for an interface of the host in place.
    pub fn put(&self, interface: &str, hwaddr: Option<&str>) -> Step<()> {
        if !self.mac && self.ipv4.is_none() {
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
        }
        lines.push(format!("add element {TABLE} interfaces {{ \"{interface}\" : jump {interface} }}"));
        Ok(lines.join("\n") + "\n")
    }

    /// Takes them away.
    pub fn clear(&self, interface: &str) {
        if self.mac || self.ipv4.is_some() {
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
