//! Directories, files and device nodes of the host in containers. Needs root, busybox-static.

mod support;

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::time::Duration;

use millstream_runtime::Error;
use support::{Container, Recipe, World, traces};

/// A directory of the host with files of root and of user 1000.
fn host_directory(world: &World) -> std::path::PathBuf {
    let dir = world.dir.path().join("shared");
    fs::create_dir(&dir).unwrap();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o777)).unwrap();
    for (name, id) in [("root", 0), ("user", 1000)] {
        fs::write(dir.join(name), name).unwrap();
        chown(dir.join(name), Some(id), Some(id)).unwrap();
    }
    dir
}

/// The host's mount table.
fn mounts() -> Vec<String> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap();
    // Other tests' may come and go meanwhile.
    text.lines()
        .filter(|line| !line.contains("/.tmp") || line.contains("shared"))
        .map(str::to_owned)
        .collect()
}

fn start_reason(container: &Container) -> String {
    match container.world.runtime.start(&container.name) {
        Err(Error::Start { reason, .. }) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn disks_are_there_from_the_start() {
    let world = World::new();
    let source = host_directory(&world);
    let source = source.to_str().unwrap();
    let recipe = Recipe { links: &[("away", "/tmp/in"), ("up", "../../../../etc")], ..Recipe::default() };
    let container = world.create("disk", &world.image(&recipe));
    container.device("plain", &[("type", "disk"), ("source", source), ("path", "/mnt/plain")]);
    container.device(
        "ro",
        &[("type", "disk"), ("source", source), ("path", "/mnt/ro"), ("readonly", "true"), ("shift", "true")],
    );
    container
        .device("shift", &[("type", "disk"), ("source", source), ("path", "/mnt/shift"), ("shift", "true")]);
    let file = format!("{source}/user");
    container.device("file", &[("type", "disk"), ("source", &file), ("path", "/up/one")]);
    container
        .device("gone", &[("type", "disk"), ("source", "/no/such"), ("path", "/gone"), ("optional", "true")]);
    let before = mounts();
    world.runtime.start(&container.name).unwrap();
    let notes = container.info().notes;
    assert!(notes.len() == 1 && notes[0].contains("no device gone: /no/such"), "{notes:?}");
    assert_eq!(
        container.output("cd /mnt; cat plain/root; stat -c %u plain/root plain/user"),
        "root65534\n65534"
    );
    assert_eq!(container.output("cd /mnt; stat -c %u:%g shift/root shift/user"), "0:0\n1000:1000");
    assert_eq!(container.sh("echo new > /mnt/shift/new && chown 7:8 /mnt/shift/new"), 0);
    let new = fs::metadata(Path::new(source).join("new")).unwrap();
    assert_eq!((new.uid(), new.gid()), (7, 8), "as the host's user of that number");
    assert_eq!(
        container.output("cat /mnt/ro/new; echo x > /mnt/ro/y"),
        "new\nsh: can't create /mnt/ro/y: Read-only file system"
    );
    assert_ne!(container.sh("mount -o remount,bind,rw /mnt/ro"), 0, "it stays read-only");
    assert_ne!(container.sh("mount -o remount,bind,dev /mnt/shift"), 0, "it stays without devices");
    assert_eq!(container.output("cat /etc/one; stat -c %u:%g /mnt"), "user0:0", "links end inside");
    assert!(!Path::new("/etc/one").exists());
    // What the container mounts there does not come back.
    assert_eq!(
        container.sh("mkdir /mnt/shift/in && mount -t tmpfs x /mnt/shift/in && touch /mnt/shift/in/f"),
        0
    );
    assert_eq!(fs::read_dir(Path::new(source).join("in")).unwrap().count(), 0);
    assert_eq!(mounts(), before);
    world.runtime.stop(&container.name, Duration::ZERO).unwrap();
    assert_eq!(traces(&container.name, &world), Vec::<String>::new());
    assert_eq!(mounts(), before);
}

#[test]
fn disks_and_nodes_come_and_go_while_it_runs() {
    let world = World::new();
    let source = host_directory(&world);
    let source = source.to_str().unwrap();
    let container = world.launch("live");
    let none = Vec::<String>::new();
    let before = container.output("wc -l < /proc/mounts");
    let disk = [("type", "disk"), ("source", source), ("path", "/srv/data"), ("shift", "true")];
    assert_eq!(container.device("data", &disk), none);
    assert_eq!(container.output("cat /srv/data/user; stat -c %u /srv/data/user"), "user1000");
    let node = [("type", "unix-char"), ("path", "/dev/mine"), ("major", "1"), ("minor", "5"), ("gid", "5")];
    assert_eq!(container.device("mine", &node), none);
    assert_eq!(
        container.output("stat -c '%F %a %u:%g' /dev/mine; head -c 2 /dev/mine | wc -c"),
        "character special file 660 0:5\n2"
    );
    // Changed: the old one goes, the new one comes.
    let mut readonly = disk.to_vec();
    readonly.push(("readonly", "true"));
    assert_eq!(container.device("data", &readonly), none);
    assert_ne!(container.sh("touch /srv/data/x"), 0);
    assert_eq!(container.device("data", &[("type", "none")]), none);
    assert_eq!(container.output("ls -A /srv/data"), "");
    assert_eq!(container.no_device("mine"), none);
    assert_eq!(container.sh("test ! -e /dev/mine"), 0);
    assert_eq!(container.output("wc -l < /proc/mounts"), before);
    // A profile's come to all that have it.
    let profile = "default".parse().unwrap();
    let mut shared = world.runtime.profile(&profile).unwrap();
    let keys = disk.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let device = [("shared".to_owned(), keys)];
    shared.devices.extend(device.clone());
    assert_eq!(world.runtime.save_profile(&profile, &shared).unwrap(), none);
    assert_eq!(container.output("cat /srv/data/root"), "root");
    shared.devices.remove(&device[0].0);
    assert_eq!(world.runtime.save_profile(&profile, &shared).unwrap(), none);
    assert_eq!(container.sh("test ! -e /srv/data/root"), 0);
    // Somebody inside has put something over it: that stays.
    assert_eq!(container.device("data", &disk), none);
    assert_eq!(container.sh("mount -t tmpfs own /srv/data"), 0);
    let notes = container.no_device("data");
    assert!(notes.len() == 1 && notes[0].contains("next start"), "{notes:?}");
    assert_eq!(container.sh("grep -q '^own /srv/data' /proc/mounts"), 0);
    // What cannot be had is said, and nothing else changes.
    let notes = container.device("bad", &[("type", "disk"), ("source", "/no/such"), ("path", "/bad")]);
    assert!(notes.len() == 1 && notes[0].contains("/no/such"), "{notes:?}");
    let notes = container.device("shared", &[("type", "nic"), ("nictype", "host")]);
    assert_eq!(notes, ["device shared changes with the next start"]);
}

#[test]
fn nodes_are_as_asked_for() {
    let world = World::new();
    let container = world.create("node", &world.image(&Recipe::default()));
    container.device("full", &[("type", "unix-char"), ("source", "/dev/full"), ("path", "/dev/sub/full")]);
    let block = [
        ("type", "unix-block"),
        ("path", "/dev/blk"),
        ("major", "7"),
        ("minor", "250"),
        ("mode", "0600"),
        ("uid", "1000"),
    ];
    container.device("block", &block);
    container.device("no", &[("type", "unix-char"), ("path", "/dev/no-such"), ("required", "false")]);
    world.runtime.start(&container.name).unwrap();
    assert_eq!(container.info().notes.len(), 1);
    assert_eq!(
        container.output("stat -c '%F %a %u' /dev/sub/full /dev/blk"),
        "character special file 666 0\nblock special file 600 1000"
    );
    assert_eq!(container.output("echo x > /dev/sub/full"), "sh: write error: No space left on device");
    assert!(Path::new("/dev/full").metadata().unwrap().file_type().is_char_device());
    assert!(!Path::new("/dev/blk").exists());
    world.runtime.stop(&container.name, Duration::ZERO).unwrap();
    container.device("no", &[("type", "unix-char"), ("path", "/dev/no-such")]);
    assert!(start_reason(&container).contains("device no: /dev/no-such"));
    assert_eq!(traces(&container.name, &world), Vec::<String>::new());
}

#[test]
fn what_cannot_be_had_keeps_it_from_starting_and_says_why() {
    let world = World::new();
    let source = host_directory(&world);
    symlink(&source, world.dir.path().join("link")).unwrap();
    let recipe = Recipe { files: &[("file", "")], links: &[("loop", "/loop")], ..Recipe::default() };
    let container = world.create("refused", &world.image(&recipe));
    let (dir, link) = (source.to_str().unwrap(), format!("{}/link/user", world.dir.path().display()));
    for (source, path, says) in [
        ("/no/such", "/a", "device d: /no/such: No such file"),
        (link.as_str(), "/a", "set source="),
        ("/dev/null", "/a", "unix-char"),
        (dir, "/file", "device d: /file"),
        (dir, "/file/x", "Not a directory"),
        (dir, "/loop/x", "links"),
        (dir, "/proc/self/root/x", "links"),
    ] {
        container.device("d", &[("type", "disk"), ("source", source), ("path", path)]);
        let reason = start_reason(&container);
        assert!(reason.contains(says), "{source} {path}: {reason}");
        assert_eq!(traces(&container.name, &world), Vec::<String>::new());
    }
    assert!(fs::read_dir(&source).unwrap().count() == 2, "nothing was made on the host");
}
