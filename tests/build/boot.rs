//! Boot tests: what they refuse, what they say then, and that nothing stays. Real systems are in `inits`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use millstream_image::archive::Member;
use rustix::process::{Pid, Signal, kill_process};

use crate::bench::{Bench, fails, says, start, wait_until, works};
use crate::mirror::{Deb, Mirror, Release, package};
use crate::unprivileged::User;

/// Images here are made to be started, not to be small.
const QUICK: &str = "--compression=xz:0";

/// Waits for a quiet end, and shuts down when asked to.
pub const INITTAB: &str = "::once:/usr/bin/sleep 100000\n::shutdown:/usr/bin/sleep 0\n";

/// Asks for an address as systems do.
const NETWORKED: &str = "::once:/usr/bin/busybox udhcpc -f -i eth0 -s /usr/bin/configure\n";
const CONFIGURE: &str = "#!/bin/sh\n[ \"$1\" = bound ] || exit 0\nbusybox ip address add $ip/24 dev $interface\nbusybox ip route replace default via $router\n";

/// A host of the test's own, with an interface that leads nowhere. Everybody may use its tun device.
const HOST: &str = "ip link set lo up
ip link add uplink type veth peer name beyond
ip address add 203.0.113.2/24 dev uplink
ip link set uplink up
ip route add default via 203.0.113.1
made=$(mktemp -d)
mknod $made/tun c 10 200
chmod 666 $made/tun
mount --bind $made/tun /dev/net/tun
rm -r $made
exec \"$@\"";

/// A system whose init is busybox.
pub fn bootable(inittab: &str) -> Vec<Deb> {
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
    let busybox = fs::read(busybox.unwrap()).unwrap();
    let program = |data: Vec<u8>| Member { mode: 0o755, data };
    let files = BTreeMap::from([
        (PathBuf::from("usr/sbin/init"), program(busybox.clone())),
        ("usr/bin/busybox".into(), program(busybox)),
        ("usr/bin/configure".into(), program(CONFIGURE.into())),
        ("etc/inittab".into(), Member::file(inittab)),
    ]);
    let mut packages = Mirror::standard();
    packages.push(package("init", &files));
    packages
}

/// Whether a process was started with just these words.
fn running(words: &str) -> bool {
    let wanted = format!("{}\0", words.replace(' ', "\0")).into_bytes();
    let mut all = fs::read_dir("/proc").unwrap().flatten();
    all.any(|process| fs::read(process.path().join("cmdline")).is_ok_and(|words| words == wanted))
}

/// Containers and networks that are left, as files.
fn left(containers: &Path) -> Vec<String> {
    let names = |directory: &Path| {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect::<Vec<_>>()
    };
    let [all, networks, images] = ["", ".networks", "images"].map(|part| names(&containers.join(part)));
    let parts = ["images", ".networks", ".commands.json"];
    all.into_iter().filter(|name| !parts.contains(&name.as_str())).chain(networks).chain(images).collect()
}

#[test]
fn an_image_that_does_not_boot_never_appears() {
    let (bench, mirror) = (Bench::new(), Mirror::with(&bootable(INITTAB)));
    let build =
        |out: &str, more: &[&str]| bench.build(&mirror.recipe(""), out, &[&[QUICK, "--test"], more].concat());
    let good = says(&mut build("good", &[]));
    assert!(good.contains("init came up") && good.contains("shut down in"), "{good}");
    bench.write("recipe.test.sh", "test -e /etc/passwd && echo as it should be");
    let again = says(&mut build("scripted", &[]));
    assert!(
        again.contains("unchanged") && again.contains("script passed"),
        "a new test for an old image: {again}"
    );
    bench.write("recipe.test.sh", "echo this is missing; exit 3");
    let text = fails(&mut build("bad", &["--force"]));
    assert!(
        text.contains("boot test failed: its script exited with 3") && text.contains("this is missing"),
        "{text}"
    );
    assert!(text.contains("the whole log: "), "{text}");
    bench.assert_clean("bad");
    assert_eq!(left(&bench.path("state/data/containers")), Vec::<String>::new());
}

#[test]
fn a_refusal_says_what_is_wrong_and_shows_the_console() {
    let bench = Bench::new();
    let cases = [
        (
            "restarts",
            "::sysinit:/usr/bin/busybox echo here we go\n::respawn:/usr/bin/busybox false\n",
            "ends again and again; these do not run: /usr/bin/busybox false",
        ),
        (
            "deaf",
            "::sysinit:/usr/bin/busybox echo here we go\n::shutdown:/usr/bin/sleep 1000\n",
            "did not shut down within 4 seconds",
        ),
        (
            "ends",
            "::sysinit:/usr/bin/busybox echo here we go\n::wait:/usr/bin/sleep 1\n::wait:/usr/bin/busybox poweroff\n",
            "its init ended by itself",
        ),
    ];
    let mirror = Mirror::start();
    for (what, inittab, expected) in cases {
        mirror.publish(&bootable(inittab), &Release::default());
        let text = fails(&mut bench.build(&mirror.recipe(""), what, &[QUICK, "--test", "--test-timeout=4"]));
        assert!(text.contains(expected), "{what}: {text}");
        assert!(
            text.contains("the last lines of its console:") && text.contains("here we go"),
            "{what}: {text}"
        );
        bench.assert_clean(what);
    }
    mirror.publish(&Mirror::standard(), &Release::default());
    let text = fails(&mut bench.build(&mirror.recipe(""), "no-init", &[QUICK, "--test"]));
    assert!(text.contains("the boot test failed: it did not start: the image's /sbin/init"), "{text}");
    assert_eq!(left(&bench.path("state/data/containers")), Vec::<String>::new());
}

/// Runs a test of this file, marked as ignored, on a host of its own.
fn on_a_host(test: &str) {
    let output = Command::new("unshare")
        .args(["--net", "--mount", "timeout", "120", "sh", "-euc", HOST, "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", &format!("boot::{test}"), "--ignored", "--nocapture"])
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(output.status.success() && text[0].contains("1 passed"), "{}", text.concat());
}

/// Interfaces, rules and name servers of this test's host.
fn inventory(bench: &Bench) -> String {
    let links = works(Command::new("ip").args(["-oneline", "-brief", "link", "show"]));
    let forwards = fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap();
    let rules = works(Command::new("nft").args(["list", "ruleset"]));
    format!("{links}{rules}{forwards}{:?}", bench.processes())
}

#[test]
fn a_network_must_be_configured() {
    on_a_host("networks");
}

#[test]
#[ignore = "run by another, on a host of its own"]
fn networks() {
    let (bench, mirror) = (Bench::new(), Mirror::with(&bootable(INITTAB)));
    let recipe = mirror.recipe("");
    let options = [QUICK, "--test", "--test-network", "--test-timeout=5"];
    let before = inventory(&bench);
    let text = fails(&mut bench.build(&recipe, "none", &options));
    assert!(text.contains("its network has no address after 5 seconds"), "{text}");
    assert_eq!(inventory(&bench), before);
    mirror.publish(&bootable(&format!("{NETWORKED}{INITTAB}")), &Release::default());
    let text = says(&mut bench.build(&recipe, "root", &options));
    assert!(text.contains("network configured (10."), "{text}");
    assert_eq!(inventory(&bench), before);
    assert_eq!(left(&bench.path("state/data/containers")), Vec::<String>::new());

    // An ordinary user's is pasta's.
    let user = User::add("msboot");
    let home = bench.path("home");
    let text = says(&mut user.run(&bench.build(&recipe, "home/out", &options), &home));
    assert!(text.contains("network configured (10.0.2.15)"), "{text}");
    assert_eq!(left(&home.join(".local/share/millstream/containers")), Vec::<String>::new());
    assert_eq!(inventory(&bench), before);

    // Nobody is there to take away what a killed build had.
    let nap = format!("sleep {}", 2_000_000 + std::process::id());
    bench.write("recipe.test.sh", &nap);
    let mut child = start(&mut bench.build(&recipe, "killed", &options[..3]));
    wait_until("the test", || running(&nap));
    kill_process(Pid::from_child(&child), Signal::KILL).unwrap();
    child.wait().unwrap();
    wait_until("the end of all of it", || {
        left(&bench.path("state/data/containers")).is_empty() && inventory(&bench) == before
    });
}

#[test]
fn a_boot_test_that_is_interrupted_or_killed_leaves_no_container() {
    let (bench, mirror) = (Bench::new(), Mirror::with(&bootable(INITTAB)));
    // Nothing in a container names this directory, but no other test sleeps for so long.
    let nap = format!("sleep {}", 1_000_000 + std::process::id());
    bench.write("recipe.test.sh", &nap);
    let running = || running(&nap);
    for signal in [Signal::INT, Signal::KILL] {
        let child = start(&mut bench.build(&mirror.recipe(""), "out", &[QUICK, "--test"]));
        wait_until("the test", running);
        kill_process(Pid::from_child(&child), signal).unwrap();
        let _ = child.wait_with_output().unwrap();
        wait_until("the end of all processes", || bench.processes().is_empty() && !running());
        assert!(!bench.path("out").exists());
    }
    wait_until("the end of the container", || left(&bench.path("state/data/containers")).is_empty());
    bench.write("recipe.test.sh", "exit 0");
    works(&mut bench.build(&mirror.recipe(""), "out", &[QUICK, "--test"]));
    let list = works(bench.command().args(["list", "--format=json"]));
    assert_eq!(list.trim(), "[]");
}
