//! Limits of the disk, and file systems other than the machine's. Each test has file systems of its own
//! in image files, mounted in a mount namespace in which this program runs again. Needs the Debian
//! packages e2fsprogs, xfsprogs, btrfs-progs and util-linux.
//!
//! Not every kernel has quotas: where none can be switched on, what is said instead is looked at, and
//! `cargo xtask vm-test quota` looks at the rest.

mod support;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use millstream_runtime::ContainerName;
use millstream_runtime::container::ImageUse;
use support::{Container, Recipe, World, name};

/// Makes a file system in a file and runs a program with its temporary files there.
const HOST: &str = r#"
make="$1" options="$2"; shift 2
dir=$(mktemp -d)
truncate -s 400M "$dir/disk"
${make% quota} "$dir/disk" >/dev/null
mkdir "$dir/mount"
mount -o "loop,$options" "$dir/disk" "$dir/mount" 2>"$dir/why" || { rm -r "$dir"; echo "no quotas here"; exit 0; }
case "$make" in *quota) btrfs quota enable "$dir/mount";; esac
code=0
TMPDIR="$dir/mount" "$@" || code=$?
umount "$dir/mount"
rm -r "$dir"
exit $code
"#;

/// What the test said, or none where the file system cannot be mounted.
fn on_a_disk(make: &str, options: &str, test: &str) -> Option<String> {
    let output = Command::new("unshare")
        .args(["--mount", "timeout", "400", "sh", "-euc", HOST, "sh", make, options])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--ignored", "--nocapture"])
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    if text[0].contains("no quotas here") {
        return None;
    }
    assert!(output.status.success() && text[0].contains("1 passed"), "{}", text.concat());
    Some(text.concat())
}

/// Whether the kernel says that it was built with an option.
fn kernel_has(option: &str) -> bool {
    let config = format!(
        "{{ zcat /proc/config.gz || cat /boot/config-$(uname -r); }} 2>/dev/null | grep -q '^{option}=[ym]'"
    );
    Command::new("sh").args(["-c", &config]).status().unwrap().success()
}

/// Whether quotas of this kind of file system work here; elsewhere its own words are looked at.
fn with_quotas(option: &str, make_with: &str, make_without: &str) {
    if on_a_disk(make_with, "prjquota", "a_full_container").is_none() {
        assert!(!kernel_has(option), "this kernel has {option}, but no quotas: {make_with}");
        println!("this kernel has no quotas of the kind: {make_with}");
    }
    on_a_disk(make_without, "noatime", "an_unlimited_container").expect("mounted");
}

#[test]
fn limits_hold_on_ext4() {
    with_quotas("CONFIG_QFMT_V2", "mkfs.ext4 -q -O quota,project", "mkfs.ext4 -q");
}

#[test]
fn limits_hold_on_xfs() {
    with_quotas("CONFIG_XFS_QUOTA", "mkfs.xfs -q", "mkfs.xfs -q");
}

#[test]
fn limits_hold_on_btrfs() {
    on_a_disk("mkfs.btrfs -q quota", "noatime", "a_full_container").expect("mounted");
    on_a_disk("mkfs.btrfs -q", "noatime", "an_unlimited_container").expect("mounted");
}

#[test]
fn subvolumes_are_copied_in_no_time() {
    for make in ["mkfs.btrfs -q", "mkfs.btrfs -q quota"] {
        on_a_disk(make, "noatime", "a_container_in_a_subvolume").expect("mounted");
    }
}

#[test]
fn blocks_are_shared_where_they_can_be() {
    on_a_disk("mkfs.xfs -q -m reflink=1", "noatime", "a_copied_container").expect("mounted");
}

fn size(container: &Container, size: &str) -> Vec<String> {
    container.device("root", &[("type", "disk"), ("path", "/"), ("size", size)])
}

/// Writes until that fails or as many mebibytes are written; how many there are then.
fn write(container: &Container, file: &str, mebibytes: u64) -> u64 {
    container.sh(&format!("dd if=/dev/zero of={file} bs=1M count={mebibytes} >/dev/null 2>&1; sync"));
    // Looked at from outside, as a full container cannot write down what it says.
    let found = fs::metadata(container.dir().join("changes/upper").join(file.trim_start_matches('/')));
    found.map_or(0, |found| found.blocks() / 2048)
}

#[test]
#[ignore = "run by another, on a disk of its own"]
fn a_full_container() {
    let world = World::new();
    let image = world.image(&Recipe::default());
    let full = world.create("full", &image);
    assert_eq!(size(&full, "20MiB"), Vec::<String>::new());
    world.runtime.start(&full.name).unwrap();
    assert_eq!(full.info().notes, Vec::<String>::new());
    assert_eq!(full.info().disk_limit, Some(20 << 20));
    assert!((15..=20).contains(&write(&full, "/large", 64)), "{}", write(&full, "/large", 64));
    let inside = "test $(df -m / | tail -n 1 | awk '{print $2}') -le 20";
    assert!(full.sh(inside) == 0 || subvolume(&full.dir().join("changes")), "it shows");
    assert_ne!(full.sh("echo more > /other && sync && test -s /other && dd if=/dev/zero of=/other bs=1M count=4 2>/dev/null"), 0);
    // Another is not in the way, nor the host.
    let other = world.create("other", &image);
    world.runtime.start(&other.name).unwrap();
    assert_eq!(write(&other, "/large", 32), 32);
    assert_eq!(other.info().disk_limit, None);
    // At once, both ways.
    assert_eq!(size(&full, "40MiB"), Vec::<String>::new());
    assert!((35..=40).contains(&write(&full, "/large", 64)));
    assert_eq!(full.no_device("root"), Vec::<String>::new());
    assert_eq!(write(&full, "/large", 64), 64);
    assert_eq!(full.info().disk_limit, None);
    assert_eq!(size(&other, "33MiB"), Vec::<String>::new());
    assert!(write(&other, "/more", 8) <= 2);

    // What a snapshot keeps counts; a reboot changes nothing; a copy starts anew.
    world.runtime.stop(&other.name, Duration::ZERO).unwrap();
    let snapshot = world.runtime.snapshot(&other.name, None, None).unwrap();
    world.runtime.start(&other.name).unwrap();
    assert!(write(&other, "/again", 8) <= 2);
    let copy = Container { world: &world, name: name("copy") };
    world.runtime.copy(&other.name, Some(&snapshot), &copy.name).unwrap();
    world.runtime.start(&copy.name).unwrap();
    assert_eq!(copy.info().disk_limit, Some(33 << 20));
    assert_eq!(write(&copy, "/again", 8), 8);

    // One that goes leaves no group behind, unless layers of it stay.
    let groups = || {
        let shown = Command::new("btrfs").args(["qgroup", "show"]).arg(world.dir.path()).output().unwrap();
        String::from_utf8_lossy(&shown.stdout).lines().filter(|line| line.starts_with("1/")).count()
    };
    let before = groups();
    world.runtime.delete(&full.name, true).unwrap();
    let counted_by_group = usize::from(subvolume(&other.dir().join("changes")));
    assert_eq!(before - groups(), counted_by_group);

    // One with a copy of the image of its own.
    let copied = Container { world: &world, name: name("copied") };
    world.runtime.create(&copied.name, &image, ImageUse::Copied).unwrap();
    size(&copied, "20MiB");
    world.runtime.start(&copied.name).unwrap();
    assert!((15..=20).contains(&write(&copied, "/large", 64)));
}

#[test]
#[ignore = "run by another, on a disk of its own"]
fn an_unlimited_container() {
    let world = World::new();
    let container = world.create("unlimited", &world.image(&Recipe::default()));
    size(&container, "20MiB");
    world.runtime.start(&container.name).unwrap();
    let notes = container.info().notes;
    assert!(notes.len() == 1 && notes[0].contains("size is not kept"), "{notes:?}");
    assert!(notes[0].contains("prjquota") && notes[0].contains("btrfs quota enable"), "{notes:?}");
    assert_eq!(container.info().disk_limit, None);
    assert_eq!(write(&container, "/large", 32), 32);
    let said = size(&container, "30MiB");
    assert!(said.len() == 1 && said[0].contains("size"), "{said:?}");
}

/// Bytes in use on the file system of a directory.
fn used(dir: &Path) -> u64 {
    rustix::fs::syncfs(fs::File::open(dir).unwrap()).unwrap();
    let found = rustix::fs::statvfs(dir).unwrap();
    (found.f_blocks - found.f_bfree) * found.f_frsize
}

#[test]
#[ignore = "run by another, on a disk of its own"]
fn a_copied_container() {
    let world = World::new();
    let container = world.launch_from("large", &world.image(&Recipe::default()));
    assert_eq!(write(&container, "/large", 16), 16);
    let before = used(world.dir.path());
    let snapshots: Vec<ContainerName> =
        (0..3).map(|_| world.runtime.snapshot(&container.name, None, None).unwrap()).collect();
    let taken = used(world.dir.path()) - before;
    assert!(taken < 6 << 20, "{taken} bytes for snapshots of a container that runs");
    assert_eq!(container.sh("echo changed > /large"), 0);
    let copy = Container { world: &world, name: name("large-copy") };
    world.runtime.copy(&container.name, Some(&snapshots[0]), &copy.name).unwrap();
    world.runtime.start(&copy.name).unwrap();
    assert_eq!(copy.output("stat -c %s /large"), (16 << 20).to_string());
}

/// Whether a directory is the root of a subvolume of btrfs.
fn subvolume(path: &Path) -> bool {
    rustix::fs::statfs(path).unwrap().f_type == 0x9123_683E && fs::metadata(path).unwrap().ino() == 256
}

#[test]
#[ignore = "run by another, on a disk of its own"]
fn a_container_in_a_subvolume() {
    let world = World::new();
    let container = world.launch_from("many", &world.image(&Recipe::default()));
    let layers = world.dir.path().join("containers/.layers");
    assert!(subvolume(&container.dir().join("changes")));
    let many = "mkdir /many; cd /many; i=0; while [ $i -lt 2000 ]; do echo $i > $i; i=$((i+1)); done";
    assert_eq!(container.sh(many), 0);
    assert_eq!(write(&container, "/large", 32), 32);
    container.sh(
        "chown 1000:1000 /many/7; (while true; do date >> /ticks; sleep 0.05; done) & echo $! > /run/loop",
    );

    // Of a container that runs: a subvolume, with what there was and without scratch space.
    let before = used(world.dir.path());
    let running = world.runtime.snapshot(&container.name, None, None).unwrap();
    assert!(used(world.dir.path()) - before < 4 << 20, "its blocks are shared");
    let layer = fs::read_dir(&layers).unwrap().next().unwrap().unwrap().path();
    assert!(subvolume(&layer) && !layer.join("work").exists());
    assert_eq!(fs::read_dir(layer.join("upper/many")).unwrap().count(), 2000);
    assert_eq!(container.sh("rm -r /many /large; kill $(cat /run/loop)"), 0);

    // Of one that does not, which is the subvolume itself from then on.
    world.runtime.stop(&container.name, Duration::ZERO).unwrap();
    let inode = |path: &Path| rustix::fs::stat(path).unwrap().st_dev;
    let changes = inode(&container.dir().join("changes"));
    let stopped = world.runtime.snapshot(&container.name, None, None).unwrap();
    let kept = |entry: fs::DirEntry| inode(&entry.path()) == changes;
    assert!(fs::read_dir(&layers).unwrap().any(|entry| kept(entry.unwrap())), "nothing was copied");
    assert!(subvolume(&container.dir().join("changes")));

    // Both can be gone back to, and copied.
    world.runtime.start(&container.name).unwrap();
    assert_ne!(container.sh("test -e /large"), 0);
    world.runtime.stop(&container.name, Duration::ZERO).unwrap();
    world.runtime.restore(&container.name, &running).unwrap();
    world.runtime.start(&container.name).unwrap();
    assert_eq!(
        container.output("cat /many/1999; stat -c %u:%g /many/7; stat -c %s /large"),
        "1999\n1000:1000\n33554432"
    );
    let copy = Container { world: &world, name: name("copy") };
    world.runtime.copy(&container.name, Some(&running), &copy.name).unwrap();
    world.runtime.start(&copy.name).unwrap();
    assert_eq!(copy.output("cat /many/1998; stat -c %u:%g /many/7"), "1998\n1000:1000");

    // Nothing stays.
    for each in [&container, &copy] {
        world.runtime.delete(&each.name, true).unwrap();
    }
    let _ = stopped;
    assert_eq!(fs::read_dir(&layers).unwrap().count(), 0);
    let listed = Command::new("btrfs").args(["subvolume", "list"]).arg(world.dir.path()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&listed.stdout), "");
}
