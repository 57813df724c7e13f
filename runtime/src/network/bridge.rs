//! A network on the host: a bridge, an `nft` chain that translates addresses, and a `dnsmasq`.

use std::fmt::Write;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::netlink;
use super::settings::{ipv4, ipv6};
use super::tools::{self, exists, hash, ip, run};
use crate::container::{Process, Settings};

/// Of rules. Nobody else's table is touched.
const TABLE: &str = "millstream";
/// Where what does not outlive the host's boot is kept.
const STATE: &str = "/run/millstream/networks";
const DOMAIN: &str = "millstream";

/// A network of one directory of containers.
pub struct Bridge<'a> {
    pub name: &'a str,
    /// Tells it from those of other directories.
    pub owner: &'a Path,
    pub settings: &'a Settings,
}

type Step<T> = Result<T, String>;

impl Bridge<'_> {
    fn mark(&self) -> String {
        format!("millstream-{:016x}", hash(&format!("{}/{}", self.owner.display(), self.name)))
    }

    fn state(&self) -> PathBuf {
        Path::new(STATE).join(format!("{}-{}", self.name, &self.mark()[11..]))
    }

    /// Where `dnsmasq` reads which container has which name and address.
    pub fn hosts(&self) -> PathBuf {
        self.state().join("hosts")
    }

    fn is_ours(&self) -> bool {
        netlink::alias(self.name).is_ok_and(|alias| alias == self.mark())
    }

    /// Makes what is missing. Returns what was changed on the host besides.
    pub fn up(&self) -> Step<Vec<String>> {
        let there = exists(self.name);
        if there && !self.is_ours() {
            return Err(format!("the host has another interface {} already", self.name));
        }
        if there && self.dnsmasq().is_some() {
            return Ok(Vec::new());
        }
        for program in ["nft", "dnsmasq"] {
            tools::find(program)?;
        }
        let made = self.link(there).and_then(|()| self.rules()).and_then(|()| self.serve());
        made.inspect_err(|_| {
            let _ = self.down();
        })?;
        Ok(self.forward())
    }

    fn link(&self, there: bool) -> Step<()> {
        let name = self.name;
        let mut lines = Vec::new();
        if !there {
            lines.push(format!("link add name {name} type bridge"));
            lines.push(format!("link set dev {name} alias {}", self.mark()));
        }
        // Its own, or it would change with each interface that joins.
        let [.., a, b, c] = hash(&self.mark()).to_be_bytes();
        lines.push(format!("link set dev {name} address 00:16:3e:{a:02x}:{b:02x}:{c:02x}"));
        if let Some(mtu) = self.settings.get("bridge.mtu") {
            lines.push(format!("link set dev {name} mtu {mtu}"));
        }
        lines.push(format!("address flush dev {name}"));
        if let Some(subnet) = ipv4(self.settings) {
            lines.push(format!("address add {}/{} dev {name}", subnet.address, subnet.prefix));
        }
        if let Some(subnet) = ipv6(self.settings) {
            lines.push(format!("address add {}/{} dev {name} nodad", subnet.address, subnet.prefix));
        }
        lines.push(format!("link set dev {name} up"));
        ip(&lines)
    }

    fn rules(&self) -> Step<()> {
        let chain = format!("inet {TABLE} nat-{}", self.name);
        let mut text = format!(
            "add table inet {TABLE}\n\
             add chain {chain} {{ type nat hook postrouting priority 100; }}\nflush chain {chain}\n"
        );
        let masquerade = |family: &str, network: String| {
            format!("add rule {chain} {family} saddr {network} {family} daddr != {network} masquerade\n")
        };
        let nat = |key: &str| self.settings.get(key).is_some_and(|value| value == "true");
        if let Some(subnet) = ipv4(self.settings).filter(|_| nat("ipv4.nat")) {
            text += &masquerade("ip", format!("{}/{}", subnet.address, subnet.prefix));
        }
        if let Some(subnet) = ipv6(self.settings).filter(|_| nat("ipv6.nat")) {
            text += &masquerade("ip6", format!("{}/{}", subnet.address, subnet.prefix));
        }
        run("nft", &["-f", "-"], &text).map(drop)
    }

    /// Starts `dnsmasq`, which goes to the background once it listens.
    fn serve(&self) -> Step<()> {
        self.stop()?;
        let (state, hosts) = (self.state(), self.hosts());
        let failed = |error: std::io::Error| format!("{}: {error}", state.display());
        fs::DirBuilder::new().recursive(true).mode(0o755).create(&hosts).map_err(failed)?;
        let file = state.join("dnsmasq.conf");
        fs::write(&file, self.configuration()).map_err(failed)?;
        run("dnsmasq", &[&format!("--conf-file={}", file.display())], "").map(drop)
    }

    fn configuration(&self) -> String {
        let (name, state) = (self.name, self.state());
        let domain = self.settings.get("dns.domain").map_or(DOMAIN, String::as_str);
        let mut text = format!(
            "interface={name}\nexcept-interface=lo\nbind-interfaces\nno-hosts\n\
             domain={domain}\nlocal=/{domain}/\n\
             pid-file={state}/dnsmasq.pid\ndhcp-leasefile={state}/leases\ndhcp-hostsdir={state}/hosts\n\
             dhcp-authoritative\ndhcp-no-override\ndhcp-ignore-names=tag:!known\nquiet-dhcp\nquiet-ra\n",
            state = state.display()
        );
        let dhcp = self.settings.get("ipv4.dhcp").is_none_or(|value| value == "true");
        if let Some(subnet) = ipv4(self.settings).filter(|_| dhcp) {
            let (first, last, mask) = subnet.range();
            let _ = writeln!(text, "dhcp-range={first},{last},{mask},1h");
        }
        if ipv6(self.settings).is_some() {
            let _ = writeln!(text, "enable-ra\ndhcp-range=::,constructor:{name},ra-stateless,ra-names");
        }
        text
    }

    /// The one that serves this network.
    fn dnsmasq(&self) -> Option<Process> {
        let text = fs::read_to_string(self.state().join("dnsmasq.pid")).ok()?;
        let process = Process::of(text.trim().parse().ok()?).ok()?;
        let line = fs::read(format!("/proc/{}/cmdline", process.pid)).ok()?;
        let own = self.state().join("dnsmasq.conf");
        (String::from_utf8_lossy(&line).contains(own.to_str()?) && process.is_alive()).then_some(process)
    }

    /// Lets it read anew who has which address.
    pub fn reload(&self) {
        if let Some(process) = self.dnsmasq() {
            let _ = process.signal(libc::SIGHUP);
        }
    }

    /// Lets nothing be served until it comes up again with other settings.
    pub fn halt(&self) -> Step<()> {
        self.stop()
    }

    fn stop(&self) -> Step<()> {
        let Some(process) = self.dnsmasq() else { return Ok(()) };
        let failed = |error: std::io::Error| format!("dnsmasq: {error}");
        process.signal(libc::SIGTERM).map_err(failed)?;
        if !process.wait(Duration::from_secs(5)).map_err(failed)? {
            process.signal(libc::SIGKILL).map_err(failed)?;
        }
        Ok(())
    }

    /// Lets the host forward packets. IPv6 hosts that forward hear no routers unless told to.
    fn forward(&self) -> Vec<String> {
        let mut notes = Vec::new();
        let mut set = |file: &Path, from: &str, to: &str| {
            if fs::read_to_string(file).is_ok_and(|text| text.trim() == from) {
                let name = file.strip_prefix("/proc/sys").unwrap_or(file).display();
                notes.push(match fs::write(file, to) {
                    Ok(()) => format!("set {name} to {to}, so that packets are forwarded"),
                    Err(error) => format!("{name} stays {from}: {error}; nothing is forwarded"),
                });
            }
        };
        let routed = |key: &str| self.settings.get(key).is_none_or(|value| value == "true");
        if ipv4(self.settings).is_some() && routed("ipv4.routing") {
            set(Path::new("/proc/sys/net/ipv4/ip_forward"), "0", "1");
        }
        if ipv6(self.settings).is_some() && routed("ipv6.routing") {
            let all = Path::new("/proc/sys/net/ipv6/conf");
            if fs::read_to_string(all.join("all/forwarding")).is_ok_and(|text| text.trim() == "0") {
                for entry in fs::read_dir(all).into_iter().flatten().flatten() {
                    set(&entry.path().join("accept_ra"), "1", "2");
                }
                set(&all.join("all/forwarding"), "0", "1");
            }
        }
        notes
    }

    /// Takes all of it away. The switches for forwarding stay, as others may rely on them by now.
    pub fn down(&self) -> Step<()> {
        self.stop()?;
        if exists(self.name) && self.is_ours() {
            ip(&[format!("link delete dev {}", self.name)])?;
            let chain = format!("nat-{}", self.name);
            let _ = run("nft", &["delete", "chain", "inet", TABLE, &chain], "");
            let rest = run("nft", &["list", "table", "inet", TABLE], "");
            if rest.is_ok_and(|text| !text.contains("chain ")) {
                let _ = run("nft", &["delete", "table", "inet", TABLE], "");
            }
        }
        match fs::remove_dir_all(self.state()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.to_string()),
            _ => Ok(()),
        }
    }
}
