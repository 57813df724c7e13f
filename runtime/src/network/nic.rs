//! The interfaces of a container: put into its network namespace before its init runs.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::guard::Guard;
use super::netlink;
use super::tools::{self, find, ip, run};

/// An interface a container is to have.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Nic {
    /// The device's name.
    pub device: String,
    /// The interface's name inside.
    pub name: String,
    /// Its name on the host, or that of its other end.
    pub host_name: String,
    pub link: Link,
    /// Whether the container's own system must configure what `pasta` else does.
    #[serde(default)]
    pub bare: bool,
    pub hwaddr: Option<String>,
    pub mtu: Option<String>,
    /// Bits a second towards the container.
    pub ingress: Option<u64>,
    /// Bits a second from the container.
    pub egress: Option<u64>,
    /// What it may send.
    #[serde(default)]
    pub guard: Guard,
}

/// What is at the other end.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Link {
    /// A bridge of the host.
    Bridged(String),
    /// An interface of the host, shared.
    Macvlan(String),
    /// An interface of the host, taken from it while the container runs.
    Physical(String),
    /// `pasta`, for users who may not make interfaces on the host.
    User,
}

type Step<T> = Result<T, String>;

/// For `pasta`, which takes its time on a busy host.
const PATIENCE: Duration = Duration::from_secs(10);

impl Nic {
    /// Puts it into the network namespace of a process. Nothing is left when that fails.
    pub fn attach(&self, pid: i32) -> Step<Vec<String>> {
        self.clear();
        let (host, name) = (&self.host_name, &self.name);
        let option = |key: &str, value: &Option<String>| {
            value.as_ref().map_or_else(String::new, |value| format!(" {key} {value}"))
        };
        let (address, mtu) = (option("address", &self.hwaddr), option("mtu", &self.mtu));
        self.guard.put(host, self.hwaddr.as_deref())?;
        let lines = match &self.link {
            Link::Bridged(bridge) => {
                self.veth(bridge, pid).inspect_err(|_| self.clear())?;
                return Ok(self.limit());
            }
            Link::Macvlan(parent) => vec![
                format!("link add link {parent} name {host}{address}{mtu} type macvlan mode bridge"),
                format!("link set dev {host} netns {pid} name {name}"),
            ],
            Link::Physical(parent) => vec![format!("link set dev {parent} netns {pid} name {name}")],
            Link::User => return Ok(Vec::new()),
        };
        ip(&lines).inspect_err(|_| self.clear())?;
        Ok(self.limit())
    }

    fn veth(&self, bridge: &str, pid: i32) -> Step<()> {
        let (host, inside) = (self.host_name.as_str(), self.name.as_str());
        let address = self.hwaddr.as_ref().map(|text| netlink::hwaddr(text).ok_or(text)).transpose();
        let hwaddr = address.map_err(|text| format!("hwaddr: {text} is no hardware address"))?;
        let mtu = self.mtu.as_ref().and_then(|text| text.parse().ok());
        let veth = netlink::Veth { host, bridge, inside, pid, hwaddr, mtu };
        veth.make().map_err(|e| format!("making {host}, a port of {bridge}: {e}"))
    }

    /// Limits hold on the host's side, where the container cannot lift them.
    fn limit(&self) -> Vec<String> {
        let Link::Bridged(_) = self.link else {
            let limited = self.ingress.or(self.egress).is_some();
            return limited
                .then(|| "limits are kept for bridged interfaces alone".into())
                .into_iter()
                .collect();
        };
        let mut notes = Vec::new();
        let host = self.host_name.as_str();
        if let Some(rate) = self.ingress {
            // What arrives within 10 milliseconds, and at least some large packets.
            let burst = (rate / 800).max(16 << 10).to_string();
            let (rate, tbf) = (format!("{rate}bit"), "tbf");
            let args =
                ["qdisc", "add", "dev", host, "root", tbf, "rate", &rate, "burst", &burst, "latency", "50ms"];
            notes.extend(run("tc", &args, "").err().map(|e| format!("limits.ingress is not kept: {e}")));
        }
        if let Some(rate) = self.egress {
            let burst = (rate / 800).max(64 << 10);
            let lines = format!(
                "qdisc add dev {host} handle ffff: ingress\n\
                 filter add dev {host} parent ffff: protocol all prio 1 u32 match u32 0 0 \
                 police rate {rate}bit burst {burst} drop\n"
            );
            let limited = run("tc", &["-batch", "-"], &lines);
            notes.extend(limited.err().map(|e| format!("limits.egress is not kept: {e}")));
        }
        notes
    }

    /// Takes away what is left of it on the host. The kernel does that, too, some time after the
    /// container's end.
    pub fn clear(&self) {
        if matches!(self.link, Link::Bridged(_) | Link::Macvlan(_)) {
            let _ = netlink::delete(&self.host_name);
        }
        self.guard.clear(&self.host_name);
    }

    /// Gives an interface of the host back to it. `namespace` is or was the container's.
    pub fn give_back(&self, namespace: &File) -> Step<()> {
        use std::os::fd::AsRawFd;
        let Link::Physical(parent) = &self.link else { return Ok(()) };
        let own = std::process::id().to_string();
        let namespace = format!("--net=/proc/{own}/fd/{}", namespace.as_raw_fd());
        let set = ["link", "set", "dev", &self.name, "down", "netns", &own, "name", parent];
        run("nsenter", &[&[namespace.as_str(), "--", "ip"], &set[..]].concat(), "").map(drop)
    }
}

/// Connects a container's network namespace to the user's network with `pasta`, which stays as long
/// as the namespace does.
pub fn pasta(nic: &Nic, pid: i32) -> Step<Child> {
    named(nic, pid).or_else(|reason| handed(nic, pid).map_err(|_| reason))
}

fn named(nic: &Nic, pid: i32) -> Step<Child> {
    let mut command = command(nic)?;
    command.args(["--userns", &namespace(pid, "user"), "--netns", &namespace(pid, "net")]);
    wait_for(command.stdin(Stdio::null()).stdout(Stdio::null()), nic, pid)
}

/// For a `pasta` that may look at no other process, as with Debian 12's profile for AppArmor: it gets the
/// namespaces open, as its input and output. It cannot see them end; whoever ends the container ends it.
fn handed(nic: &Nic, pid: i32) -> Step<Child> {
    let open = |kind: &str| File::open(namespace(pid, kind)).map_err(|e| format!("namespace {kind}: {e}"));
    let mut command = command(nic)?;
    command.args(["--userns", "/proc/self/fd/0", "--netns", "/proc/self/fd/1", "--no-netns-quit"]);
    wait_for(command.stdin(open("user")?).stdout(open("net")?), nic, pid)
}

fn namespace(pid: i32, kind: &str) -> String {
    format!("/proc/{pid}/ns/{kind}")
}

fn command(nic: &Nic) -> Step<Command> {
    let mut command = Command::new(find("pasta")?);
    // Addresses of its own, so that the host's lead to the host; the gateway's does not lead to the
    // host's loopback, where services trust whoever asks.
    command.args(["--foreground", "--no-map-gw"]);
    command.args((!nic.bare).then_some("--config-net"));
    command.args(["--address", "10.0.2.15", "--netmask", "255.255.255.0", "--gateway", "10.0.2.2"]);
    command.args(["--tcp-ports", "none", "--udp-ports", "none", "--tcp-ns", "none", "--udp-ns", "none"]);
    command.args(["--ns-ifname", &nic.name]);
    if let Some(mtu) = &nic.mtu {
        command.args(["--mtu", mtu]);
    }
    command.env_clear();
    Ok(command)
}

/// It is ready once the interface is there.
fn wait_for(command: &mut Command, nic: &Nic, pid: i32) -> Step<Child> {
    let log = tempfile::tempfile().map_err(|e| format!("pasta: {e}"))?;
    let log_too = log.try_clone().map_err(|e| format!("pasta: {e}"))?;
    let mut child = command.stderr(log_too).spawn().map_err(|e| format!("pasta: {e}"))?;
    let dev = PathBuf::from(format!("/proc/{pid}/net/dev"));
    let begin = Instant::now();
    while begin.elapsed() < PATIENCE {
        let text = std::fs::read_to_string(&dev).unwrap_or_default();
        if text.contains(&format!("{}:", nic.name)) {
            return Ok(child);
        }
        if let Ok(Some(_)) = child.try_wait() {
            return Err(format!("pasta ended: {}; `millstream check` tells what it needs", said(log)));
        }
        std::thread::sleep(Duration::from_millis(4));
    }
    let _ = child.kill();
    let _ = child.wait();
    Err(format!("pasta made no interface within {} seconds: {}", PATIENCE.as_secs(), said(log)))
}

fn said(mut log: File) -> String {
    use std::io::{Read, Seek};
    let mut text = String::new();
    let _ = log.rewind().and_then(|()| log.take(2000).read_to_string(&mut text));
    let lines: Vec<_> = text.lines().filter(|line| !line.contains("syslog")).collect();
    lines[lines.len().saturating_sub(3)..].join("; ")
}

/// An address that stays the container's for this device.
pub fn hwaddr(id: &str, device: &str) -> String {
    let [.., a, b, c] = tools::hash(&format!("{id}/{device}")).to_be_bytes();
    format!("00:16:3e:{a:02x}:{b:02x}:{c:02x}")
}
