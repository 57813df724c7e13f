//! Commands of the host that go with a container's life. Needs root, busybox-static.

mod support;

use std::fs;
use std::time::{Duration, Instant};

use millstream_runtime::Error;
use millstream_runtime::container::Status;
use support::{Recipe, World, eventually, traces};

#[test]
fn hooks_run_around_a_run() {
    let world = World::new();
    let container = world.create("hooks", &world.image(&Recipe::default()));
    let log = world.dir.path().join("log");
    let say = |text: &str| format!("echo $MILLSTREAM_HOOK {text} >> {}", log.display());
    container.set(&[
        (
            "hooks.pre-start",
            &say("$MILLSTREAM_NAME $(test -d $MILLSTREAM_DIRECTORY && echo there) $MILLSTREAM_PID"),
        ),
        (
            "hooks.post-start",
            &say("$(readlink $MILLSTREAM_ROOT/sbin/init) $(grep -c pid $MILLSTREAM_DIRECTORY/state.json)"),
        ),
        (
            "hooks.post-stop",
            &say("$(grep -c \"$MILLSTREAM_NAME\" /proc/self/cgroup) $(cat /proc/self/status | grep SigBlk)"),
        ),
    ]);
    world.runtime.start(&container.name).unwrap();
    assert_eq!(container.info().notes, Vec::<String>::new());
    let text = fs::read_to_string(&log).unwrap();
    let expected = format!("pre-start {} there\npost-start ../bin/busybox 2\n", container.name);
    assert_eq!(text, expected);
    world.runtime.stop(&container.name, Duration::ZERO).unwrap();
    let stop = "post-stop 0 SigBlk: 0000000000000000\n";
    assert_eq!(fs::read_to_string(&log).unwrap(), expected.clone() + stop);
    // A reboot from inside ends a run and begins another, with what was set meanwhile.
    world.runtime.start(&container.name).unwrap();
    container.set(&[("hooks.pre-start", &say("again")), ("limits.processes", "77")]);
    container.device("new", &[("type", "disk"), ("source", "/etc"), ("path", "/new")]);
    fs::write(&log, "").unwrap();
    let first = container.info().pid;
    container.sh("reboot");
    eventually("it runs again", || container.info().pid.is_some_and(|pid| Some(pid) != first));
    let expected = format!("{stop}pre-start again\npost-start ../bin/busybox 2\n");
    eventually("all hooks ran", || fs::read_to_string(&log).unwrap() == expected);
    assert_eq!(container.group_file(&["pids.max"]), "77");
    assert_eq!(container.sh("test -e /new/passwd"), 0);
    world.runtime.stop(&container.name, Duration::ZERO).unwrap();
    assert_eq!(traces(&container.name, &world), Vec::<String>::new());
}

#[test]
fn one_that_fails_says_why() {
    let world = World::new();
    let container = world.create("fail", &world.image(&Recipe::default()));
    let mark = world.dir.path().join("mark");
    container.set(&[
        ("hooks.pre-start", "echo no licence >&2; exit 3"),
        ("hooks.post-stop", &format!("touch {}", mark.display())),
    ]);
    match world.runtime.start(&container.name) {
        Err(Error::Start { reason, .. }) => {
            assert_eq!(reason, "hooks.pre-start: it ended with status 3: no licence");
        }
        other => panic!("{other:?}"),
    }
    assert!(!mark.exists(), "nothing had begun");
    assert_eq!(container.info().status, Status::Stopped);
    // One that leaves something running is not waited for.
    container.set(&[("hooks.pre-start", "sleep 5 & exit 0"), ("hooks.post-start", "kill -9 $$")]);
    let begin = Instant::now();
    world.runtime.start(&container.name).unwrap();
    assert!(begin.elapsed() < Duration::from_secs(4));
    let notes = container.info().notes;
    assert!(
        notes.len() == 1 && notes[0].starts_with("hooks.post-start: it was ended by SIGKILL"),
        "{notes:?}"
    );
    container.set(&[("hooks.post-stop", "exit 1")]);
    world.runtime.stop(&container.name, Duration::ZERO).unwrap();
    assert!(mark.exists(), "this run still had the one it began with");
    // A start that fails later is undone.
    fs::remove_file(&mark).unwrap();
    container.set(&[("hooks.post-stop", &format!("touch {}", mark.display()))]);
    container.device("d", &[("type", "disk"), ("source", "/no/such"), ("path", "/d")]);
    world.runtime.start(&container.name).unwrap_err();
    assert!(mark.exists());
    assert_eq!(traces(&container.name, &world), Vec::<String>::new());
}

#[test]
fn one_that_hangs_is_ended() {
    let world = World::new();
    let container = world.create("hang", &world.image(&Recipe::default()));
    container.set(&[("hooks.timeout", "1")]);
    container
        .set(&[("hooks.pre-start", "echo waiting; sleep 1000 & echo $! > $MILLSTREAM_DIRECTORY/pid; wait")]);
    match world.runtime.start(&container.name) {
        Err(Error::Start { reason, .. }) => {
            assert_eq!(reason, "hooks.pre-start: it was ended after 1 seconds: waiting");
        }
        other => panic!("{other:?}"),
    }
    let pid = fs::read_to_string(container.dir().join("pid")).unwrap();
    let status = format!("/proc/{}/status", pid.trim());
    eventually("what it started is gone", || {
        fs::read_to_string(&status).map_or(true, |text| text.contains("State:\tZ"))
    });
}
