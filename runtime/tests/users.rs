//! Ordinary users run containers, with control groups delegated to them and without. Each test is a
//! new user, as whom this program runs again. Needs root, passwd's useradd, uidmap and setpriv.

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use millstream_runtime::Error;
use millstream_runtime::container::{ExecOptions, ImageUse, Stopped};
use millstream_runtime::network::Network;
use support::{AS_USER, Recipe, World, traces};

struct User {
    name: String,
    id: u32,
    home: tempfile::TempDir,
    /// Control groups made for them.
    groups: Vec<PathBuf>,
}

impl User {
    fn add(what: &str) -> Self {
        let name = format!("ms{what}{}", std::process::id());
        let added = Command::new("useradd").args(["--no-create-home", "--shell=/bin/sh", &name]).status();
        assert!(added.unwrap().success());
        let id = Command::new("id").args(["-u", &name]).output().unwrap();
        let id = String::from_utf8(id.stdout).unwrap().trim().parse().unwrap();
        let home = tempfile::tempdir().unwrap();
        chown(home.path(), Some(id), Some(id)).unwrap();
        Self { name, id, home, groups: Vec::new() }
    }

    /// What an administrator does once: a group of the user's own in every hierarchy.
    fn delegate(mut self) -> Self {
        let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap();
        for line in mountinfo.lines().filter(|line| line.contains(" - cgroup")) {
            let root = Path::new(line.split(' ').nth(4).unwrap());
            let group = root.join(&self.name);
            if self.groups.contains(&group) || fs::create_dir(&group).is_err() {
                continue;
            }
            for file in ["", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads", "tasks"] {
                let _ = chown(group.join(file), Some(self.id), Some(self.id));
            }
            for file in ["cpuset.cpus", "cpuset.mems"] {
                if let Ok(value) = fs::read_to_string(root.join(file)) {
                    let _ = fs::write(group.join(file), value);
                }
            }
            self.groups.push(group);
        }
        self
    }

    /// Runs a test of this file, marked as ignored, as this user.
    fn run(&self, test: &str) -> Output {
        self.run_on("", test)
    }

    /// As [`User::run`], on a host that a script makes.
    fn run_on(&self, host: &str, test: &str) -> Output {
        let join = "for group in $GROUPS_OF_USER; do echo $$ > $group/cgroup.procs; done; \"$@\"";
        let groups: Vec<_> = self.groups.iter().map(|group| group.to_str().unwrap()).collect();
        Command::new("unshare")
            .args(if host.is_empty() { &["--fork"][..] } else { &["--net", "--mount"] })
            .args([
                "timeout",
                "400",
                "sh",
                "-euc",
                &format!("{host}{join}"),
                "sh",
                "setpriv",
                "--init-groups",
                "--inh-caps=-all",
            ])
            .args(["--reuid", &self.name, "--regid", &self.name])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", test, "--ignored", "--nocapture"])
            .env("GROUPS_OF_USER", groups.join(" "))
            .env("TMPDIR", self.home.path())
            .env("HOME", self.home.path())
            .env("USER_ID", self.id.to_string())
            .env(AS_USER, self.home.path().join("containers"))
            .output()
            .unwrap()
    }

    fn passes(&self, test: &str) {
        check(self.run(test));
    }
}

fn check(output: Output) {
    let text = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(output.status.success() && text[0].contains("1 passed"), "{}", text.concat());
}

impl Drop for User {
    fn drop(&mut self) {
        for group in &self.groups {
            let end = std::time::Instant::now() + Duration::from_secs(5);
            while !remove(group) && std::time::Instant::now() < end {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        let _ = Command::new("userdel").arg(&self.name).output();
    }
}

/// Only what the runtime left for its caller may be below.
fn remove(group: &Path) -> bool {
    let _ = fs::remove_dir(group.join(".caller"));
    fs::remove_dir(group).is_ok()
}

#[test]
fn with_control_groups_of_their_own() {
    User::add("own").delegate().passes("life_cycle_with_groups");
}

#[test]
fn without_any() {
    User::add("none").passes("life_cycle_without_groups");
}

fn life_cycle(world: &World) {
    let image = world.image(&Recipe::default());
    let container = world.launch_from("user", &image);
    assert_eq!(container.sh("exit 7"), 7);
    assert_eq!(
        container.output("id -u; stat -c %u:%g / /etc/passwd /dev/pts /dev/console"),
        "0\n0:0\n0:0\n0:0\n0:5"
    );
    let map = container.output("awk '{print $1, $2, $3}' /proc/self/uid_map");
    assert_eq!(map, "0 1 65536", "as the user's namespace sees it");
    assert_eq!(container.output("grep -c : /proc/self/cgroup | grep -c ."), "1");
    assert_eq!(container.sh("touch /mine && chown 1000:1000 /mine && chmod 4755 /mine"), 0);
    let meta = fs::metadata(container.dir().join("changes/upper/mine")).unwrap();
    assert_eq!((meta.uid(), meta.mode() & 0o7777), (1001, 0o4755));
    // Whole directories of the image vanish and come back without their old contents.
    assert_eq!(container.sh("rm /etc/inittab && mv /root /moved && rm -r /tmp && mkdir /tmp"), 0);
    assert_eq!(container.output("ls -A /tmp"), "output");
    let second = world.launch_from("two", &image);
    assert_eq!(second.sh("test -e /etc/inittab && test ! -e /mine"), 0, "the image is shared, not changed");
    assert_eq!(fs::read_dir(world.runtime.images()).unwrap().count(), 1);
    assert_eq!(world.runtime.stop(&container.name, Duration::from_secs(20)).unwrap(), Stopped::Cleanly);
    assert_eq!(traces(&container.name, world), Vec::<String>::new());
    world.runtime.start(&container.name).unwrap();
    assert_eq!(container.sh("test -e /mine && test ! -e /etc/inittab && test -d /moved"), 0);
    let copied = support::name("copied");
    world.runtime.create(&copied, &image, ImageUse::Copied).unwrap();
    world.runtime.start(&copied).unwrap();
    world.runtime.delete(&copied, true).unwrap();
    world.runtime.delete(&container.name, true).unwrap();
    assert!(!container.dir().exists(), "also files of other ids");
    assert_eq!(traces(&container.name, world), Vec::<String>::new());
}

#[test]
#[ignore = "run as an ordinary user"]
fn life_cycle_with_groups() {
    let world = World::new();
    life_cycle(&world);
    let container = world.launch("groups");
    let own = fs::read_to_string("/proc/self/cgroup").unwrap();
    let own = own
        .lines()
        .find_map(|line| line.strip_prefix("0::"))
        .unwrap()
        .trim_end_matches("/.caller")
        .to_owned();
    let groups = fs::read_to_string(format!("/proc/{}/cgroup", container.info().pid.unwrap())).unwrap();
    assert!(groups.contains(&format!("0::{own}/millstream/{}-", container.name)), "{groups}");
    assert_eq!(container.sh("mkdir /sys/fs/cgroup/sub && echo $$ > /sys/fs/cgroup/sub/cgroup.procs"), 0);
    assert_eq!(container.output("grep 0:: /proc/self/cgroup"), "0::/.exec");
    assert!(container.info().processes.unwrap() >= 1);
    // While it runs, with whiteouts and files of other ids.
    assert_eq!(container.sh("rm /etc/inittab; echo one > /file; chown 1000:1000 /file"), 0);
    let snapshot = world.runtime.snapshot(&container.name, None, None).unwrap();
    assert_eq!(container.sh("rm /file"), 0);
    let copy = support::Container { world: &world, name: support::name("groups-copy") };
    world.runtime.copy(&container.name, Some(&snapshot), &copy.name).unwrap();
    world.runtime.start(&copy.name).unwrap();
    assert_eq!(
        copy.output("cat /file; stat -c %u:%g /file; test -e /etc/inittab || echo gone"),
        "one\n1000:1000\ngone"
    );
}

/// `cargo xtask vm-test` runs it in a session of systemd's, which delegates controllers.
#[test]
#[ignore = "run as an ordinary user with delegated controllers"]
fn limits_hold_in_a_session() {
    let world = World::new();
    let container = world.launch("limits");
    let notes = container.set(&[("limits.memory", "32MiB"), ("limits.processes", "20")]);
    assert_eq!(notes, Vec::<String>::new());
    let groups = fs::read_to_string(format!("/proc/{}/cgroup", container.info().pid.unwrap())).unwrap();
    let group = groups.lines().find_map(|line| line.strip_prefix("0::/")).unwrap();
    let file = |name: &str| fs::read_to_string(Path::new("/sys/fs/cgroup").join(group).join(name)).unwrap();
    assert_eq!(file("memory.max").trim(), (32 << 20).to_string());
    assert_eq!(file("pids.max").trim(), "20");
    assert_ne!(container.sh("dd if=/dev/zero of=/dev/shm/x bs=1M count=100 2>/dev/null"), 0);
    assert!(container.info().memory_peak.is_none_or(|peak| peak <= 33 << 20));
    assert_eq!(container.sh("true"), 0, "the container lives on");
}

#[test]
#[ignore = "run as an ordinary user"]
fn life_cycle_without_groups() {
    let world = World::new();
    life_cycle(&world);
    let container = world.launch("alone");
    let refused = world.runtime.snapshot(&container.name, None, None);
    assert!(matches!(refused, Err(Error::NoControlGroup { .. })), "{refused:?}");
    assert_eq!(container.sh("true"), 0);
    let image = world.image(&Recipe { links: &[("sbin/init", "systemd")], ..Recipe::default() });
    let container = world.create("systemd", &image);
    match world.runtime.start(&container.name) {
        Err(Error::Start { reason, .. }) if reason.contains("the image's /sbin/init") => {}
        other => panic!("{other:?}"),
    }
    let image = world.image(&Recipe {
        links: &[("sbin/init", "systemd")],
        files: &[("sbin/systemd", "#!/bin/sh\nsleep 100\n")],
        ..Recipe::default()
    });
    let container = world.create("systemd2", &image);
    match world.runtime.start(&container.name) {
        Err(Error::Start { reason, .. }) => {
            // Where systemd runs, its own way is named.
            let hint = reason.contains("chown") || reason.contains("systemd-run");
            assert!(reason.contains("control group") && hint, "{reason}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn devices_and_ids_of_their_own() {
    User::add("dev").passes("devices_of_a_user");
}

#[test]
#[ignore = "run as an ordinary user"]
fn devices_of_a_user() {
    let world = World::new();
    let shared = world.dir.path().join("shared");
    fs::create_dir(&shared).unwrap();
    fs::write(shared.join("mine"), "mine").unwrap();
    let source = shared.to_str().unwrap();
    let container = world.create("dev", &world.image(&Recipe::default()));
    let reason = || match world.runtime.start(&container.name) {
        Err(Error::Start { reason, .. }) => reason,
        other => panic!("{other:?}"),
    };
    let disk = [("type", "disk"), ("source", source), ("path", "/mine")];
    for (pairs, says) in [
        (&[("type", "disk"), ("source", source), ("path", "/mine"), ("shift", "true")][..], "raw.idmap"),
        (&[("type", "disk"), ("source", "/root/x"), ("path", "/mine")], "Permission denied"),
        (
            &[("type", "unix-char"), ("source", "/dev/full"), ("path", "/dev/f"), ("mode", "0600")],
            "need root",
        ),
        (&[("type", "unix-char"), ("path", "/dev/f"), ("major", "1"), ("minor", "7")], "needs root"),
    ] {
        container.device("d", pairs);
        let reason = reason();
        assert!(reason.starts_with("device d: ") && reason.contains(says), "{reason}");
    }
    container.device("d", &disk);
    for (key, value, says) in
        [("security.privileged", "true", "needs root"), ("raw.idmap", "both 0 1000", "yours")]
    {
        container.set(&[(key, value)]);
        let reason = reason();
        assert!(reason.starts_with(key) && reason.contains(says), "{reason}");
        container.unset(key);
    }
    container.device("full", &[("type", "unix-char"), ("source", "/dev/full"), ("path", "/dev/f")]);
    let mark = world.dir.path().join("hook");
    container.set(&[("hooks.pre-start", &format!("id -u > {}", mark.display()))]);
    world.runtime.start(&container.name).unwrap();
    assert_eq!(
        container.output("stat -c %u /mine/mine; echo x > /dev/f"),
        "65534\nsh: write error: No space left on device"
    );
    assert_eq!(fs::read_to_string(&mark).unwrap(), "0\n", "the user, in a namespace");
    assert_eq!(fs::metadata(&mark).unwrap().uid(), 0);
    world.runtime.stop(&container.name, Duration::ZERO).unwrap();
    // Their own id leads through to the container's user 1000.
    let own = std::env::var("USER_ID").unwrap();
    container.set(&[("raw.idmap", &format!("both {own} 1000"))]);
    container.device("d", &[("type", "none")]);
    world.runtime.start(&container.name).unwrap();
    assert!(container.info().notes[0].starts_with("raw.idmap"));
    assert_eq!(container.device("d", &disk), Vec::<String>::new());
    assert_eq!(container.output("stat -c %u:%g /mine/mine /bin/busybox"), "1000:1000\n0:0");
    let options = ExecOptions {
        argv: ["sh", "-c", "echo x > /mine/new"].map(String::from).into(),
        uid: 1000,
        ..ExecOptions::default()
    };
    assert_eq!(world.runtime.exec(&container.name, &options).unwrap(), 0);
    assert_eq!(fs::metadata(shared.join("new")).unwrap().uid(), 0, "the user's own file");
    assert_eq!(container.no_device("d"), Vec::<String>::new());
    assert_eq!(container.output("ls -A /mine"), "");
    world.runtime.stop(&container.name, Duration::ZERO).unwrap();
    assert_eq!(traces(&container.name, &world), Vec::<String>::new());
}

/// A network namespace with a way out, and a server that listens on its address there.
const HOST: &str = r#"
ip link set lo up
ip link add out0 type veth peer name out1
ip link set out1 up
ip address add 198.51.100.2/24 dev out0
ip link set out0 up
ip route add default via 198.51.100.1
served=$(mktemp -d)
echo served > "$served/index.html"
mknod "$served/tun" c 10 200
chmod 666 "$served/tun"
mount --bind "$served/tun" /dev/net/tun
busybox httpd -f -p 198.51.100.2:8000 -h "$served" & public=$!
busybox httpd -f -p 127.0.0.1:8001 -h "$served" & local=$!
trap 'kill $public $local; rm -r "$served"' EXIT
"#;

#[test]
fn containers_reach_servers_on_the_host() {
    let user = User::add("net");
    check(user.run_on(HOST, "reaches_a_server"));
}

#[test]
#[ignore = "run as an ordinary user, on a host of its own"]
fn reaches_a_server() {
    let world = World::new();
    world.runtime.create_network("lab", &Network::default()).unwrap();
    let container = world.create("pasta", &world.image(&Recipe::default()));
    let mut new = world.runtime.configuration(&container.name).unwrap();
    let keys = [("type", "nic"), ("network", "lab")].map(|(key, value)| (key.to_owned(), value.to_owned()));
    new.devices.insert("eth0".into(), keys.into());
    world.runtime.configure(&container.name, &new).unwrap();
    world.runtime.start(&container.name).unwrap();
    assert_eq!(container.info().notes, Vec::<String>::new());
    let pasta = helpers(&container.dir());
    assert_eq!(pasta.len(), 1);
    assert_eq!(container.output("wget -qO- http://198.51.100.2:8000/"), "served");
    for address in ["127.0.0.1", "10.0.2.2", "198.51.100.1"] {
        let text = container.output(&format!("wget -qO- http://{address}:8001/ & sleep 1; kill $!"));
        assert!(!text.contains("served"), "the host's loopback stays its own: {address}");
    }
    world.runtime.stop(&container.name, Duration::ZERO).unwrap();
    assert!(!Path::new(&format!("/proc/{}", pasta[0])).exists());
    assert_eq!(traces(&container.name, &world), Vec::<String>::new());
}

fn helpers(directory: &Path) -> Vec<i64> {
    let state: serde_json::Value =
        serde_json::from_slice(&fs::read(directory.join("state.json")).unwrap()).unwrap();
    let helpers = state["running"]["helpers"].as_array().cloned().unwrap_or_default();
    helpers.iter().filter_map(|helper| helper["pid"].as_i64()).collect()
}
