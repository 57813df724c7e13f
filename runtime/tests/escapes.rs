//! Known ways out of containers, tried from inside as root. Needs the Debian packages gcc and libc6-dev.

mod support;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use millstream_runtime::container::{ExecOptions, Status};
use millstream_runtime::{CancelToken, Error};
use support::{Recipe, World, traces};

#[test]
fn calls_that_reach_the_host_are_refused() {
    let world = World::new();
    let container = world.launch("calls");
    container.push_probe("calls");
    let told = container.output("/bin/probe");
    assert!(told.lines().count() >= 14, "{told}");
    for line in told.lines() {
        let (call, errno) = line.split_once(' ').unwrap();
        assert!(
            [libc::EPERM, libc::ENOSYS].contains(&errno.parse().unwrap()),
            "{call}: {errno}, should be refused"
        );
    }
}

/// A program of the image whose interpreter is the program that is being executed: the runtime's own.
#[test]
fn the_runtime_cannot_be_overwritten_through_itself() {
    let world = World::new();
    let overwrite = "#!/bin/sh
        i=0; while [ $i -lt 100 ]; do
            for p in /proc/[0-9]*; do (echo x >> $p/exe) 2>/dev/null && echo written; done
            i=$((i+1))
        done";
    let files = [("bin/self", "#!/proc/self/exe\n"), ("bin/overwrite", overwrite)];
    let image = world.image(&Recipe { files: &files, ..Recipe::default() });
    let container = world.launch_from("self", &image);
    let program = std::env::current_exe().unwrap();
    let before = fs::metadata(&program).unwrap();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| container.output("/bin/overwrite"));
        while !writer.is_finished() {
            // Whatever becomes of it; the runtime's program may be unable to run in there.
            let argv = vec!["/bin/self".to_owned()];
            let options = ExecOptions { argv, ..ExecOptions::default() };
            let limit = Duration::from_secs(20);
            let _ = world.runtime.exec_captured(&container.name, &options, limit, &CancelToken::new());
        }
        assert_eq!(writer.join().unwrap(), "");
    });
    let after = fs::metadata(&program).unwrap();
    assert_eq!(
        (before.len(), before.mtime_nsec(), before.ino()),
        (after.len(), after.mtime_nsec(), after.ino())
    );
}

/// Descriptors that a command starts with lead nowhere: neither by its working directory nor by /proc.
#[test]
fn no_working_directory_leads_out() {
    let world = World::new();
    let container = world.launch("cwd");
    let marker = world.dir.path().join("marker");
    fs::write(&marker, "").unwrap();
    for number in 0..16 {
        for path in
            [format!("/proc/self/fd/{number}"), format!("/proc/self/fd/{number}/../../../../../../..")]
        {
            let argv = ["sh", "-c", &format!("test -e ./{} && exit 42; exit 0", marker.display())];
            let argv = argv.map(str::to_owned).to_vec();
            let options = ExecOptions { argv, cwd: Some(path.clone().into()), ..ExecOptions::default() };
            let (code, said) = world
                .runtime
                .exec_captured(&container.name, &options, Duration::from_secs(20), &CancelToken::new())
                .unwrap();
            assert_eq!(code, 126, "{path}: {}", String::from_utf8_lossy(&said));
        }
    }
    assert_eq!(container.output("readlink /proc/1/cwd; readlink /proc/1/root; pwd"), "/\n/\n/root");
}

/// Files in place of those of /proc that a runtime writes to.
#[test]
fn nothing_is_written_into_a_false_proc() {
    let world = World::new();
    let container = world.launch("proc");
    let script = "mkdir /false && mount -t tmpfs none /false && cd /false && mkdir -p self/attr/apparmor self/fd thread-self/attr sys
        for i in 1 2 3 4 5 6 7 8 9 $(seq 10 60); do mkdir -p $i/attr; : > $i/attr/exec; : > $i/uid_map; done
        : > self/attr/exec; : > self/attr/apparmor/exec; : > thread-self/attr/exec; : > self/uid_map; : > self/oom_score_adj
        mount --bind /false /proc";
    assert_eq!(container.sh(script), 0);
    assert_eq!(container.sh("true"), 0, "commands run all the same");
    assert_eq!(container.output("find /false -type f -size +0"), "");
}

/// Its terminal is out of the container's own devpts, not something put in its place.
#[test]
fn devices_replaced_while_it_ran_are_not_used() {
    let world = World::new();
    let container = world.launch("dev");
    // What was put under the mounts comes up with the next start.
    let script = "umount -l /dev && rm -rf /dev && ln -s /etc /dev";
    assert_eq!(container.sh(&format!("({script}) >/tmp/x 2>&1")), 0);
    world.runtime.stop(&container.name, Duration::ZERO).unwrap();
    let refused = world.runtime.start(&container.name).unwrap_err();
    assert!(refused.to_string().contains("/dev is not a directory"), "{refused}");
    assert_eq!(traces(&container.name, &world), Vec::<String>::new());
    assert_eq!(container.info().status, Status::Stopped);
}

#[test]
fn links_in_the_image_lead_to_nothing_of_ours() {
    let world = World::new();
    for (link, target) in [("dev", "etc"), ("proc", "etc"), ("sys", "/"), ("run", "tmp")] {
        let image = world.image(&Recipe { links: &[(link, target)], ..Recipe::default() });
        let container = world.create(&format!("link-{link}"), &image);
        let refused = world.runtime.start(&container.name);
        assert!(
            matches!(&refused, Err(Error::Start { reason, .. }) if reason.contains(&format!("/{link} is not a directory"))),
            "{refused:?}"
        );
        assert_eq!(traces(&container.name, &world), Vec::<String>::new());
    }
    // Below /dev all is covered.
    let links = [
        ("dev/null", "/etc/passwd"),
        ("dev/pts", "/etc"),
        ("dev/console", "/etc/passwd"),
        ("dev/shm", "/etc"),
    ];
    let image = world.image(&Recipe { links: &links, ..Recipe::default() });
    let container = world.launch_from("links", &image);
    assert_eq!(
        container.output("echo x > /dev/null; cat /dev/null; stat -c %F /dev/pts /dev/shm"),
        "directory\ndirectory"
    );
    assert_eq!(container.output("head -c 4 /etc/passwd; ls /etc | grep -c ptmx"), "root0");
}

#[test]
fn the_host_is_not_reached_through_mounts() {
    let world = World::new();
    let container = world.launch("mounts");
    for attempt in [
        "mount -t ext4 /dev/vda /mnt",
        "mount -t devtmpfs none /tmp/d",
        "mount -t debugfs none /tmp/d",
        "mount -t securityfs none /tmp/d",
        "mount -t tracefs none /tmp/d",
        "test -e /proc/1/root/../etc/debian_version",
        "mount -t proc none /tmp/d && echo x > /tmp/d/sysrq-trigger",
        "mount -t cgroup -o devices none /tmp/d && echo a > /tmp/d/release_agent",
    ] {
        let script = format!(
            "mkdir -p /tmp/d /mnt; ({attempt}) >/dev/null 2>&1 && echo worked; umount -l /tmp/d 2>/dev/null"
        );
        assert_eq!(container.output(&script), "", "{attempt}");
    }
}
