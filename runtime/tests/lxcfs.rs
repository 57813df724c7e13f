//! With LXCFS on the host, a container sees its own limits. LXCFS runs in a private mount namespace,
//! in which this program runs again, so that other containers do not meet it. Needs the Debian package
//! lxcfs.

mod support;

use std::process::Command;

use support::{Recipe, World};

/// Runs a program with LXCFS mounted where it always is, and ends it afterwards.
const WITH_LXCFS: &str = r#"
mkdir -p /var/lib/lxcfs
lxcfs --foreground --pidfile "$1/pid" /var/lib/lxcfs >/dev/null 2>"$1/log" &
lxcfs=$!
trap 'kill $lxcfs; wait $lxcfs || :' EXIT
for i in $(seq 200); do
    [ ! -e /var/lib/lxcfs/proc/meminfo ] || break
    sleep 0.05
done
[ -e /var/lib/lxcfs/proc/meminfo ] || { cat "$1/log"; exit 1; }
shift
"$@"
"#;

#[test]
fn a_container_sees_its_own_limits() {
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "timeout", "400", "sh", "-euc", WITH_LXCFS, "sh"])
        .arg(dir.path())
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "inside", "--ignored", "--nocapture"])
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(output.status.success() && text[0].contains("1 passed"), "{}", text.concat());
}

#[test]
#[ignore = "run where LXCFS is mounted, by the other"]
fn inside() {
    let world = World::new();
    let image = world.image(&Recipe::default());
    let container = world.create("lxcfs", &image);
    container.set(&[("limits.memory", "64MiB"), ("limits.cpu", "0-0")]);
    world.runtime.start(&container.name).unwrap();
    assert_eq!(container.output("grep MemTotal /proc/meminfo | tr -s ' '"), "MemTotal: 65536 kB");
    assert_eq!(container.output("grep -c ^processor /proc/cpuinfo"), "1");
    let uptime: f64 = container.output("cut -d' ' -f1 /proc/uptime").parse().unwrap();
    assert!(uptime < 60.0, "its own: {uptime}");
    container.set(&[("limits.memory", "32MiB")]);
    assert_eq!(container.output("grep MemTotal /proc/meminfo | tr -s ' '"), "MemTotal: 32768 kB", "live");
    // Containers inside could not mount /proc if parts of it were covered.
    let nesting = world.create("lxcfs-nest", &image);
    nesting.set(&[("limits.memory", "64MiB"), ("security.nesting", "true")]);
    world.runtime.start(&nesting.name).unwrap();
    assert_eq!(nesting.output("grep -c lxcfs /proc/self/mountinfo"), "0");
}
