//! Containers run whatever control groups the host has: v2 only, v1 only, both; from a service or
//! from inside a delegated subtree. Each host is a private mount namespace with other mounts at
//! `/sys/fs/cgroup`, in which this program runs again. Needs util-linux.

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use millstream_runtime::Error;
use millstream_runtime::container::{Base, Stopped};
use support::{World, traces};

/// Part of the container's name.
const WHAT: &str = "MILLSTREAM_TEST_HOST";

/// Leaves one cgroup2 at `/sys/fs/cgroup` and no other hierarchy. One that is mounted already is
/// moved there, as a new mount would reset its options.
const V2_ONLY: &str = r#"
v2=$(findmnt --noheadings --types cgroup2 --output TARGET | head -n 1)
aside=$(mktemp -d)
if [ "$v2" ]; then mount --bind "$v2" "$aside"; else mount -t cgroup2 cgroup2 "$aside"; fi
umount --recursive --lazy /sys/fs/cgroup
mount --move "$aside" /sys/fs/cgroup
rmdir "$aside"
[ "$(grep -c ' - cgroup' /proc/self/mountinfo)" = 1 ]
"#;

/// Mounts each v1 hierarchy there is, and one without controllers if there is none. Another test's may
/// end meanwhile: `none` makes one of a name that is no more.
const V1_ONLY: &str = r#"
umount --recursive --lazy /sys/fs/cgroup
mount -t tmpfs tmpfs /sys/fs/cgroup
hierarchy() { mkdir "/sys/fs/cgroup/$1"; mount -t cgroup -o "$2" cgroup "/sys/fs/cgroup/$1"; }
while IFS=: read -r _ controllers _; do
    case $controllers in
        '') ;;
        name=*) hierarchy "${controllers#name=}" "none,$controllers" ;;
        *) hierarchy "$controllers" "$controllers" ;;
    esac
done < /proc/self/cgroup
[ -d /sys/fs/cgroup/systemd ] || hierarchy systemd none,name=systemd
! grep ' - cgroup2 ' /proc/self/mountinfo
"#;

/// Runs as systemd runs a service, in a group below the root. That can be removed afterwards, so
/// nothing was left in it or below.
const IN_A_SERVICE: &str = r#"
own=/sys/fs/cgroup/millstream-test-$$
leave() { echo $$ > /sys/fs/cgroup/cgroup.procs; rmdir "$own/caller.service" "$own"; }
mkdir -p "$own/caller.service"
trap leave EXIT
echo $$ > "$own/caller.service/cgroup.procs"
run "$@"
trap - EXIT
leave
"#;

const PLAINLY: &str = "run() { \"$@\"; }\n";

/// The service's group looks like the root, and there is nothing else.
const DELEGATED: &str = r#"
run() {
    unshare --cgroup --mount sh -euc '
        umount /sys/fs/cgroup
        mount -t cgroup2 cgroup2 /sys/fs/cgroup
        "$@"' sh "$@"
}
"#;

#[test]
fn on_v2_alone() {
    on_host("v2", &[V2_ONLY, "\"$@\""]);
}

#[test]
fn on_v2_alone_from_a_service() {
    on_host("service", &[V2_ONLY, PLAINLY, IN_A_SERVICE]);
}

#[test]
fn on_v2_alone_in_a_delegated_subtree() {
    on_host("delegated", &[V2_ONLY, DELEGATED, IN_A_SERVICE]);
}

#[test]
fn on_v1_alone() {
    on_host("v1", &[V1_ONLY, "\"$@\""]);
}

/// A hybrid, with the first hierarchies hidden under other mounts.
#[test]
fn on_both_mounted_over_others() {
    let both = "mkdir /sys/fs/cgroup/v2; mount -t cgroup2 cgroup2 /sys/fs/cgroup/v2; \"$@\"";
    let over = V1_ONLY.replacen("umount --recursive --lazy /sys/fs/cgroup\n", "", 1);
    on_host("both", &[&over.replacen("! grep ' - cgroup2 ' /proc/self/mountinfo\n", "", 1), both]);
}

#[test]
fn on_this_host_as_it_is() {
    on_host("here", &["\"$@\""]);
}

/// Runs [`life_cycle`] on a host that `script` makes, and looks for traces on this one.
fn on_host(layout: &str, script: &[&str]) {
    run_on_host(layout, "life_cycle", script);
}

fn run_on_host(layout: &str, test: &str, script: &[&str]) {
    let what = format!("{layout}-{}", std::process::id());
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-euc", &script.concat(), "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--ignored", "--nocapture"])
        .env(WHAT, &what)
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(output.status.success() && text[0].contains("1 passed"), "{layout}: {}", text.concat());
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap();
    for line in mountinfo.lines().filter(|line| line.contains(" - cgroup")) {
        let dir = Path::new(line.split(' ').nth(4).unwrap()).join("millstream");
        let left = fs::read_dir(dir).into_iter().flatten().flatten();
        let left: Vec<_> = left.filter(|e| e.file_name().to_string_lossy().contains(&what)).collect();
        assert!(left.is_empty(), "{layout}: {left:?}");
    }
}

#[test]
#[ignore = "run by the others, each on a host of its own"]
fn life_cycle() {
    let world = World::new();
    let container = world.launch(&std::env::var(WHAT).unwrap_or_else(|_| "host".into()));
    let groups = |pid: i32| fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let init = container.info().pid.unwrap();
    let own = format!("/millstream/{}-", container.name);
    assert!(groups(init).contains(&format!("0::{own}")), "at the root: {}", groups(init));
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap();
    for line in groups(init).lines() {
        let controllers = line.split(':').nth(1).unwrap();
        let mounted = mountinfo.lines().any(|l| l.contains(" - cgroup ") && l.contains(controllers));
        assert!(line.contains(&own) || !controllers.is_empty() && !mounted, "{line}");
    }
    assert!(groups(container.supervisor()).contains("0::/\n"), "it outlives the caller's service");

    assert_eq!(container.sh("exit 7"), 7);
    assert_eq!(container.output("grep 0:: /proc/self/cgroup"), "0::/.exec");
    assert_eq!(container.output("grep 0:: /proc/1/cgroup"), "0::/");
    assert_eq!(container.output("head -n 1 /sys/fs/cgroup/cgroup.procs"), "1");
    let mounts = container.output("grep cgroup /proc/self/mountinfo");
    assert!(mounts.contains(" / /sys/fs/cgroup ") && mounts.contains(" - cgroup2 "), "{mounts}");
    assert_eq!(mounts.lines().count(), 1, "{mounts}");
    assert_ne!(container.sh("test -e /sys/fs/cgroup/millstream"), 0);
    assert_eq!(container.sh("mkdir /sys/fs/cgroup/sub && echo $$ > /sys/fs/cgroup/sub/cgroup.procs"), 0);
    assert!(container.info().processes.unwrap() >= 1);

    assert_eq!(world.runtime.stop(&container.name, Duration::from_secs(20)).unwrap(), Stopped::Cleanly);
    assert_eq!(traces(&container.name, &world), Vec::<String>::new());
    world.runtime.start(&container.name).unwrap();
    assert_eq!(container.sh("true"), 0);
    world.runtime.delete(&container.name, true).unwrap();
    assert_eq!(traces(&container.name, &world), Vec::<String>::new());
}

/// Every hierarchy is mounted, and none can be written to.
#[test]
fn where_control_groups_are_read_only_that_is_said() {
    let script = r#"
for mount in $(grep ' - cgroup' /proc/self/mountinfo | cut -d ' ' -f 5); do
    mount -o remount,bind,ro "$mount"
done
"$@""#;
    run_on_host("readonly", "it_does_not_start", &[script]);
}

#[test]
#[ignore = "run by another, on a host of its own"]
fn it_does_not_start() {
    let world = World::new();
    let container = world.create("readonly", &world.image(&support::Recipe::default()));
    let error = world.runtime.start(&container.name).unwrap_err().to_string();
    assert!(error.contains("Read-only file system") && error.contains("/cgroup"), "{error}");
    assert_eq!(traces(&container.name, &world), Vec::<String>::new());
    world.runtime.delete(&container.name, false).unwrap();
}

/// The kernel stacks no overlay on one.
#[test]
fn where_no_overlay_can_be_mounted_containers_have_plain_copies() {
    let script = r#"
dir=$(mktemp -d)
mkdir "$dir/lower" "$dir/upper" "$dir/work" "$dir/top"
mount -t overlay -o "lowerdir=$dir/lower,upperdir=$dir/upper,workdir=$dir/work" overlay "$dir/top"
export TMPDIR="$dir/top"
"$@"
umount "$dir/top"
rm -r "$dir""#;
    run_on_host("plain", "plain_copy", &[script]);
}

#[test]
#[ignore = "run by another, on a host of its own"]
fn plain_copy() {
    let world = World::new();
    let container = world.launch("plain");
    match container.info().base {
        Base::Plain { reason } => assert!(reason.contains("overlay"), "{reason}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(container.sh("stat -c %u:%g / /bin/sh | grep -v 0:0 || touch /mine"), 0);
    assert_eq!(world.runtime.stop(&container.name, Duration::from_secs(20)).unwrap(), Stopped::Cleanly);
    let refused = world.runtime.snapshot(&container.name, None, None);
    assert!(matches!(refused, Err(Error::NoLayers { .. })));
    world.runtime.start(&container.name).unwrap();
    assert_eq!(container.sh("test -e /mine"), 0);
    world.runtime.stop(&container.name, Duration::ZERO).unwrap();
    let file = world.dir.path().join("mine");
    world.runtime.pull(&container.name, Path::new("/mine"), &file, false).unwrap();
    world.runtime.delete(&container.name, true).unwrap();
    assert_eq!(traces(&container.name, &world), Vec::<String>::new());
}
