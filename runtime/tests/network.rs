//! Containers on networks. Each test is a host of its own, a network namespace with an outside that
//! knows no way back to containers, in which this program runs again; the machine's network stays as
//! it is. Needs busybox-static, iproute2, nftables, dnsmasq-base and util-linux.

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use millstream_runtime::ImageFiles;
use millstream_runtime::container::Device;
use millstream_runtime::network::Network;
use support::{Container, Recipe, World, eventually, traces};

/// The outside, where a web server says "outside".
const OUTSIDE: &str = "http://203.0.113.1:8000/";

const HOST: &str = r#"
ip link set lo up
dir=$(mktemp -d)
echo outside > "$dir/index.html"
unshare --net sleep 1000 & outside=$!
unshare_done() { [ "$(readlink /proc/$outside/ns/net)" != "$(readlink /proc/self/ns/net)" ]; }
until unshare_done; do sleep 0.01; done
ip link add uplink type veth peer name eth0 netns $outside
ip address add 203.0.113.2/24 dev uplink
ip -6 address add 2001:db8::2/64 dev uplink nodad
ip link set uplink up
nsenter --net=/proc/$outside/ns/net sh -euc '
    ip link set lo up
    ip address add 203.0.113.1/24 dev eth0
    ip -6 address add 2001:db8::1/64 dev eth0 nodad
    ip link set eth0 up'
nsenter --net=/proc/$outside/ns/net busybox httpd -f -p '[::]:8000' -h "$dir" & server=$!
trap 'kill $server $outside; rm -r "$dir"' EXIT
"$@"
"#;

fn on_a_host(test: &str) {
    let output = Command::new("unshare")
        .args(["--net", "timeout", "400", "sh", "-euc", HOST, "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--ignored", "--nocapture"])
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(output.status.success() && text[0].contains("1 passed"), "{}", text.concat());
}

const DHCP: &str = r#"#!/bin/sh
[ "$1" = bound ] || exit 0
ip address add $ip/24 dev $interface
ip route replace default via $router
echo "search $domain" > /etc/resolv.conf
for server in $dns; do echo "nameserver $server" >> /etc/resolv.conf; done
"#;

fn image(world: &World) -> ImageFiles {
    let files = [("etc/dhcp.sh", DHCP), ("etc/index.html", "inside\n")];
    world.image(&Recipe { files: &files, ..Recipe::default() })
}

fn device(pairs: &[(&str, &str)]) -> Device {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn start<'a>(world: &'a World, image: &ImageFiles, what: &str, devices: &[(&str, Device)]) -> Container<'a> {
    let container = world.create(what, image);
    let mut new = world.runtime.configuration(&container.name).unwrap();
    new.devices.extend(devices.iter().map(|(name, keys)| ((*name).to_owned(), keys.clone())));
    world.runtime.configure(&container.name, &new).unwrap();
    world.runtime.start(&container.name).unwrap();
    container
}

fn add(container: &Container, name: &str, keys: &Device) -> Vec<String> {
    let pairs: Vec<_> = keys.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    container.device(name, &pairs)
}

fn dhcp(container: &Container) {
    let text = container.output("udhcpc -n -q -t 20 -T 1 -i eth0 -s /etc/dhcp.sh");
    assert!(text.contains("obtained"), "{text}");
}

/// All of a host's that networks and containers change.
fn inventory() -> String {
    let print = |program: &str, args: &[&str]| {
        let output = Command::new(program).args(args).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let links = print("ip", &["-oneline", "link", "show"]);
    let names = links.lines().filter_map(|line| line.split(':').nth(1)).collect::<Vec<_>>().join("\n");
    names + &print("nft", &["list", "ruleset"])
}

fn nothing_is_left(before: &str) {
    let end = Instant::now() + Duration::from_secs(5);
    while inventory() != before && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(inventory(), before);
}

fn network_name() -> String {
    format!("mb{}", std::process::id())
}

#[test]
fn a_network_of_ours() {
    on_a_host("managed");
}

#[test]
#[ignore = "run by another, on a host of its own"]
fn managed() {
    let (world, network) = (World::new(), network_name());
    let others = "add table inet others; add chain inet others c";
    assert!(Command::new("nft").arg(others).status().unwrap().success());
    let before = inventory();
    let _cleaner = Cleaner(&network);
    let mut settings = Network::default();
    settings.config.insert("ipv4.address".into(), "10.77.5.1/24".into());
    let notes = world.runtime.create_network(&network, &settings).unwrap();
    assert!(notes.iter().any(|note| note.contains("ip_forward")), "{notes:?}");
    assert!(world.runtime.create_network(&network, &settings).is_err(), "twice");
    let image = image(&world);
    let eth0 = device(&[("type", "nic"), ("network", &network)]);
    let mut fixed = eth0.clone();
    fixed.extend(device(&[("ipv4.address", "10.77.5.77"), ("hwaddr", "00:16:3e:00:00:77"), ("mtu", "1300")]));
    fixed.extend(device(&[("limits.ingress", "100Mbit")]));
    let one = start(&world, &image, "one", &[("eth0", eth0)]);
    let two = start(&world, &image, "two", &[("eth0", fixed)]);
    assert_eq!(one.info().notes, Vec::<String>::new());
    assert_eq!(two.info().notes, Vec::<String>::new());
    dhcp(&one);
    dhcp(&two);
    assert_eq!(
        two.output("cat /sys/class/net/eth0/address /sys/class/net/eth0/mtu"),
        "00:16:3e:00:00:77\n1300"
    );
    let info = two.info().network.unwrap();
    assert!(info.ipv4.contains(&"10.77.5.77".parse().unwrap()), "{info:?}");
    for name in [two.name.to_string(), format!("{}.millstream", two.name)] {
        let text = one.output(&format!("ping -4 -c 1 -W 5 {name}"));
        assert!(text.contains("10.77.5.77") && text.contains(" 0% packet loss"), "{text}");
    }
    assert_eq!(two.sh(&format!("ping -c 1 -W 5 {} >/dev/null", one.name)), 0, "and the other way round");
    assert_eq!(one.output(&format!("wget -qO- {OUTSIDE}")), "outside", "through address translation");
    eventually("an IPv6 address", || !one.info().network.unwrap().ipv6.is_empty());
    eventually("IPv6 leads outside", || {
        one.output("wget -qO- 'http://[2001:db8::1]:8000/'").ends_with("outside")
    });
    comes_and_goes(&two, &network);
    let counters = one.info().network.unwrap().counters["eth0"];
    assert!(counters.received_bytes > 0 && counters.sent_packets > 0, "{counters:?}");
    assert!(world.runtime.delete_network(&network).is_err(), "in use");

    // A supervisor that was killed: the next command clears up.
    let process = rustix::process::Pid::from_raw(two.supervisor()).unwrap();
    rustix::process::kill_process(process, rustix::process::Signal::KILL).unwrap();
    eventually("the container has ended", || two.info().pid.is_none());
    assert_eq!(traces(&two.name, &world), Vec::<String>::new());
    // As after a reboot: the next start brings the network back.
    let pid = find_dnsmasq(&network).unwrap();
    assert!(Command::new("sh").args(["-c", &format!("kill {pid}")]).status().unwrap().success());
    assert!(Command::new("ip").args(["link", "delete", &network]).status().unwrap().success());
    eventually("dnsmasq has ended", || find_dnsmasq(&network).is_none());
    world.runtime.start(&two.name).unwrap();
    dhcp(&two);
    world.runtime.delete(&one.name, true).unwrap();
    world.runtime.delete(&two.name, true).unwrap();
    world.runtime.delete_network(&network).unwrap();
    nothing_is_left(&before);
    assert!(find_dnsmasq(&network).is_none());
}

/// Another interface, while the container runs.
fn comes_and_goes(container: &Container, network: &str) {
    let world = container.world;
    let there = || container.sh("test -e /sys/class/net/eth1") == 0;
    let links = inventory().lines().count();
    let mut new = device(&[("type", "nic"), ("network", network), ("ipv4.address", "10.77.5.99")]);
    let set = |keys: Option<&Device>| {
        let mut all = world.runtime.configuration(&container.name).unwrap();
        match keys {
            Some(keys) => all.devices.insert("eth1".into(), keys.clone()),
            None => all.devices.remove("eth1"),
        };
        world.runtime.configure(&container.name, &all).unwrap()
    };
    assert_eq!(set(Some(&new)), Vec::<String>::new());
    let text = container.output("udhcpc -n -q -t 20 -T 1 -i eth1 -s /etc/dhcp.sh");
    assert!(text.contains("10.77.5.99 obtained"), "{text}");
    let first = container.info().pid;
    container.sh("reboot");
    eventually("it runs again", || container.info().pid.is_some_and(|pid| Some(pid) != first));
    assert!(there(), "also after a reboot from inside");
    new.insert("mtu".into(), "1280".into());
    assert_eq!(set(Some(&new)), Vec::<String>::new());
    assert_eq!(container.output("cat /sys/class/net/eth1/mtu"), "1280");
    assert_eq!(set(None), Vec::<String>::new());
    eventually("it is gone", || !there() && inventory().lines().count() == links);
    new.insert("security.mac_filtering".into(), "true".into());
    assert_eq!(set(Some(&new)), Vec::<String>::new());
    assert!(inventory().contains("ether saddr"), "filtered from the first packet");
    assert_eq!(set(None), Vec::<String>::new());
    assert!(!inventory().contains("ether saddr"));
    dhcp(container);
}

/// The host's network, and none.
fn the_hosts_own(world: &World, image: &ImageFiles) {
    let shared = device(&[("type", "nic"), ("nictype", "host")]);
    let forwarded =
        device(&[("type", "proxy"), ("listen", "tcp:127.0.0.1:8081"), ("connect", "tcp:127.0.0.1:8082")]);
    let nothing = device(&[("type", "nic"), ("nictype", "none")]);
    let container = start(world, image, "shared", &[("eth0", shared), ("web", forwarded)]);
    let notes = container.info().notes;
    assert!(notes.len() == 1 && notes[0].contains("eth0: the container has the host's network"), "{notes:?}");
    assert_eq!(container.output(&format!("wget -qO- {OUTSIDE}")), "outside");
    assert_eq!(container.sh("grep -q uplink: /proc/net/dev"), 0);
    for closed in [
        "ip link set uplink down",
        "ip address add 203.0.113.77/24 dev uplink",
        "echo 1 > /proc/sys/net/ipv4/ip_forward",
        "mount -o remount,rw /sys && echo x > /sys/power/state",
        "ls /sys/kernel/debug/* /sys/kernel/security/* /sys/firmware/*",
    ] {
        assert_ne!(container.sh(&format!("({closed}) >/dev/null 2>&1")), 0, "{closed}");
    }
    assert_eq!(container.sh("mkdir /sys/fs/cgroup/x"), 0, "groups of its own");
    assert_eq!(container.output("cat /proc/self/cgroup | grep -c '^0::/'"), "1");
    assert_eq!(container.sh("httpd -p 127.0.0.1:8082 -h /etc"), 0);
    let mut stream = TcpStream::connect("127.0.0.1:8081").unwrap();
    stream.write_all(b"GET /index.html HTTP/1.0\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert!(text.ends_with("inside\n"), "{text}");
    assert_eq!(add(&container, "eth0", &nothing), ["device eth0 changes with the next start"]);
    world.runtime.stop(&container.name, Duration::ZERO).unwrap();
    world.runtime.start(&container.name).unwrap();
    assert_eq!(container.output("ls /sys/class/net"), "lo");
}

/// A test that fails leaves no `dnsmasq` either.
struct Cleaner<'a>(&'a str);

impl Drop for Cleaner<'_> {
    fn drop(&mut self) {
        if let Some(pid) = find_dnsmasq(self.0) {
            let _ = Command::new("kill").arg(pid).status();
        }
    }
}

/// Process id of the one that serves a network.
fn find_dnsmasq(network: &str) -> Option<String> {
    fs::read_dir("/proc").unwrap().flatten().find_map(|process| {
        let line = fs::read(process.path().join("cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line).into_owned();
        let found = line.starts_with("/usr/sbin/dnsmasq") && line.contains(&format!("/{network}-"));
        found.then(|| process.file_name().to_string_lossy().into_owned())
    })
}

#[test]
fn ports_lead_into_containers() {
    on_a_host("forwarded");
}

#[test]
#[ignore = "run by another, on a host of its own"]
fn forwarded() {
    let world = World::new();
    let proxy = |port: &str| {
        device(&[
            ("type", "proxy"),
            ("listen", &format!("tcp:127.0.0.1:{port}")),
            ("connect", "tcp:127.0.0.1:80"),
        ])
    };
    let container =
        start(&world, &image(&world), "proxy", &[("web", proxy("8080")), ("again", proxy("8080"))]);
    let notes = container.info().notes;
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert!(notes[0].contains("web forwards nothing: 127.0.0.1:8080: Address already in use"), "{notes:?}");
    assert_eq!(container.output("cat /sys/class/net/*/address"), "00:00:00:00:00:00", "nothing but loopback");
    assert_eq!(container.sh("httpd -p 127.0.0.1:80 -h /etc"), 0);
    let get = || {
        let mut stream = TcpStream::connect("127.0.0.1:8080")?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"GET /index.html HTTP/1.0\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text).map(|_| text)
    };
    assert!(get().unwrap().ends_with("inside\n"));
    // While it runs: away, again, elsewhere.
    assert_eq!(container.no_device("again"), Vec::<String>::new());
    assert!(get().is_err(), "the port is closed");
    assert_eq!(add(&container, "again", &proxy("8080")), Vec::<String>::new());
    assert!(get().unwrap().ends_with("inside\n"));
    let said = add(&container, "third", &proxy("8080"));
    assert!(said.len() == 1 && said[0].contains("Address already in use"), "{said:?}");
    // Also after a reboot from inside.
    let first = container.info().pid;
    container.sh("reboot");
    eventually("it runs again", || container.info().pid.is_some_and(|pid| Some(pid) != first));
    assert_eq!(container.sh("httpd -p 127.0.0.1:80 -h /etc"), 0);
    assert!(get().unwrap().ends_with("inside\n"));
    // A supervisor that is killed leaves none; nor does a stop of what came later.
    let process = rustix::process::Pid::from_raw(container.supervisor()).unwrap();
    rustix::process::kill_process(process, rustix::process::Signal::KILL).unwrap();
    eventually("the container has ended", || container.info().pid.is_none());
    assert!(get().is_err(), "the port is closed");
    container.no_device("again");
    container.no_device("web");
    container.no_device("third");
    world.runtime.start(&container.name).unwrap();
    assert_eq!(container.sh("httpd -p 127.0.0.1:80 -h /etc"), 0);
    assert_eq!(add(&container, "late", &proxy("8080")), Vec::<String>::new());
    assert!(get().unwrap().ends_with("inside\n"));
    world.runtime.stop(&container.name, Duration::ZERO).unwrap();
    assert!(get().is_err(), "the port is closed again");
}

#[test]
fn interfaces_send_under_their_own_addresses() {
    on_a_host("guarded");
}

#[test]
#[ignore = "run by another, on a host of its own"]
fn guarded() {
    let (world, network) = (World::new(), network_name());
    let before = inventory();
    let _cleaner = Cleaner(&network);
    let mut settings = Network::default();
    settings.config.insert("ipv4.address".into(), "10.77.6.1/24".into());
    settings.config.insert("ipv6.address".into(), "fd42:77::1/64".into());
    world.runtime.create_network(&network, &settings).unwrap();
    let image = image(&world);
    let eth0 = device(&[("type", "nic"), ("network", &network), ("ipv4.address", "10.77.6.9")]);
    let mut guarded = eth0.clone();
    guarded.extend(device(&[("security.mac_filtering", "true"), ("security.ipv4_filtering", "true")]));
    guarded.extend(device(&[("ipv4.address", "10.77.6.8"), ("security.ipv6_filtering", "true")]));
    guarded.extend(device(&[("ipv6.address", "fd42:77::8")]));
    let free = start(&world, &image, "free", &[("eth0", eth0)]);
    let guarded = start(&world, &image, "guarded", &[("eth0", guarded)]);
    assert_eq!(guarded.info().notes, Vec::<String>::new());
    let other_ip = |number: &str| {
        format!(
            "ip address add 10.77.6.{number}/24 dev eth0; ping -c 1 -W 1 -I 10.77.6.{number} 10.77.6.1 >/dev/null"
        )
    };
    let other_mac = "ip link set eth0 address 00:16:3e:99:99:99; ping -c 1 -W 1 10.77.6.1 >/dev/null";
    for container in [&free, &guarded] {
        dhcp(container);
        assert_eq!(container.output(&format!("wget -qO- {OUTSIDE}")), "outside");
    }
    assert_eq!(free.sh(&other_ip("200")), 0);
    assert_ne!(guarded.sh(&other_ip("201")), 0, "another address");
    assert_eq!(guarded.sh("ping -c 1 -W 5 10.77.6.9 >/dev/null"), 0);
    assert_eq!(free.sh(other_mac), 0);
    let own = guarded.output("cat /sys/class/net/eth0/address");
    assert_ne!(guarded.sh(other_mac), 0, "another hardware address");
    assert_eq!(
        guarded.sh(&format!("ip link set eth0 address {own}; ping -c 1 -W 5 10.77.6.1 >/dev/null")),
        0
    );
    ipv6_is_filtered(&free, &guarded);
    let rules = |world: &World| inventory().contains("ether saddr") && world.runtime.list().is_ok();
    assert!(rules(&world));
    let process = rustix::process::Pid::from_raw(guarded.supervisor()).unwrap();
    rustix::process::kill_process(process, rustix::process::Signal::KILL).unwrap();
    eventually("the container has ended", || guarded.info().pid.is_none());
    assert!(!rules(&world), "nothing is left of it");
    world.runtime.start(&guarded.name).unwrap();
    assert!(rules(&world));
    world.runtime.delete(&free.name, true).unwrap();
    world.runtime.delete(&guarded.name, true).unwrap();
    world.runtime.delete_network(&network).unwrap();
    nothing_is_left(&before);
}

/// Nobody is told of a router or a neighbour that it is not.
fn ipv6_is_filtered(free: &Container, guarded: &Container) {
    let victim = guarded.world.launch_from("victim", &image(guarded.world));
    let network = network_name();
    add(&victim, "eth0", &device(&[("type", "nic"), ("network", &network)]));
    for container in [&victim, guarded] {
        eventually("an address", || {
            container.info().network.is_some_and(|n| n.ipv6.iter().any(|a| a.to_string().starts_with("fd42")))
        });
        eventually("the bridge answers", || container.sh("ping -6 -c 1 -W 2 fd42:77::1 >/dev/null") == 0);
    }
    let as_another = |address: &str| {
        format!(
            "echo 0 > /proc/sys/net/ipv6/conf/eth0/dad_transmits; ip -6 address add {address}/64 dev eth0; sleep 1
            ping -6 -c 1 -W 2 -I {address} fd42:77::1 >/dev/null"
        )
    };
    eventually("the free one's own", || free.sh("ping -6 -c 1 -W 2 fd42:77::1 >/dev/null") == 0);
    assert_eq!(free.sh(&as_another("fd42:77::bad")), 0);
    assert_ne!(guarded.sh(&as_another("fd42:77::bad1")), 0, "another address");
    assert_eq!(guarded.sh(&as_another("fd42:77::8")), 0, "the one that was set");
    guarded.push_probe("neighbours");
    free.push_probe("neighbours");
    let told_of_router = || victim.output("ip -6 address show dev eth0").contains("2001:db8:bad:");
    let neighbour = || {
        victim.sh("ping -6 -c 1 -W 2 fd42:77::1 >/dev/null");
        victim.output("ip -6 neigh show dev eth0 | grep 'fd42:77::1 '")
    };
    let before = neighbour();
    for pretend in ["router", "neighbour fd42:77::1"] {
        assert_eq!(guarded.output(&format!("/bin/probe {pretend}")), "");
    }
    assert!(!told_of_router(), "a router");
    assert!(!victim.output("ip -6 neigh show dev eth0").contains("ba:ad:ba:ad"), "before: {before}");
    // What is not filtered does all that.
    free.sh("/bin/probe neighbour fd42:77::1");
    assert!(victim.output("ip -6 neigh show dev eth0").contains("ba:ad:ba:ad"), "before: {before}");
    free.sh("/bin/probe router");
    eventually("an address in the false router's network", told_of_router);
}

#[test]
fn interfaces_of_the_host() {
    on_a_host("host_interfaces");
}

#[test]
#[ignore = "run by another, on a host of its own"]
fn host_interfaces() {
    let world = World::new();
    let image = image(&world);
    let before = inventory();
    let nic = |kind: &str, parent: &str| device(&[("type", "nic"), ("nictype", kind), ("parent", parent)]);
    let macvlan = start(&world, &image, "macvlan", &[("eth0", nic("macvlan", "uplink"))]);
    assert_eq!(macvlan.info().notes, Vec::<String>::new());
    assert_eq!(macvlan.sh("ip address add 203.0.113.9/24 dev eth0"), 0);
    assert_eq!(macvlan.output(&format!("wget -qO- {OUTSIDE}")), "outside");
    // While it runs, and at its end.
    assert_eq!(macvlan.no_device("eth0"), Vec::<String>::new());
    assert_ne!(macvlan.sh("test -e /sys/class/net/eth0"), 0);
    let added =
        Command::new("ip").args(["link", "add", "phys0", "type", "veth", "peer", "name", "phys1"]).status();
    assert!(added.unwrap().success());
    assert_eq!(add(&macvlan, "eth0", &nic("macvlan", "uplink")), Vec::<String>::new());
    assert_eq!(macvlan.sh("ip address add 203.0.113.9/24 dev eth0"), 0);
    assert_eq!(macvlan.output(&format!("wget -qO- {OUTSIDE}")), "outside");
    for round in 0..2 {
        assert_eq!(add(&macvlan, "eth1", &nic("physical", "phys0")), Vec::<String>::new());
        assert_eq!(macvlan.sh("test -e /sys/class/net/eth1"), 0);
        assert!(!inventory().contains("phys0"), "it is the container's");
        if round == 0 {
            assert_eq!(macvlan.no_device("eth1"), Vec::<String>::new());
            assert!(inventory().contains("phys0"), "it is the host's again");
        }
    }
    world.runtime.delete(&macvlan.name, true).unwrap();
    assert!(inventory().contains("phys0"), "it is the host's again");
    the_hosts_own(&world, &image);
    let devices = [("eth0", nic("physical", "phys0")), ("eth1", nic("bridged", "missing"))];
    let physical = start(&world, &image, "physical", &devices);
    let notes = physical.info().notes;
    assert!(notes.len() == 1 && notes[0].contains("no interface missing"), "{notes:?}");
    assert_eq!(physical.sh("test -e /sys/class/net/eth0"), 0);
    assert!(!inventory().contains("phys0"), "it is the container's");
    assert_eq!(physical.sh("ip link set eth0 down"), 0);
    world.runtime.stop(&physical.name, Duration::ZERO).unwrap();
    assert!(inventory().contains("phys0"), "it is the host's again");
    assert!(Command::new("ip").args(["link", "delete", "phys0"]).status().unwrap().success());
    nothing_is_left(&before);
}
