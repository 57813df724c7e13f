//! Containers that behave as badly as they can: others notice nothing, and nothing stays. And commands
//! that get in each other's way.

mod support;

use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};

use millstream_runtime::container::{ExecOptions, Status};
use millstream_runtime::{CancelToken, Error};
use proptest::prelude::*;
use support::{Recipe, World, eventually, traces};

const SOON: Duration = Duration::from_secs(30);

#[test]
fn one_that_forks_without_end_stays_within_its_limit() {
    let world = World::new();
    let image = world
        .image(&Recipe { init: Some("#!/bin/sh\n/bin/probe &\nexec sleep 1000\n"), ..Recipe::default() });
    let quiet = world.launch("calm");
    let container = world.create("bomb", &image);
    container.push_probe("bomb");
    container.set(&[("limits.processes", "40")]);
    world.runtime.start(&container.name).unwrap();
    eventually("it has as many as it may", || container.info().processes >= Some(39));
    for _ in 0..5 {
        assert!(container.info().processes.unwrap() <= 41, "with one of exec's");
        let begin = Instant::now();
        assert_eq!(quiet.sh("true"), 0);
        assert!(begin.elapsed() < SOON, "others notice nothing");
    }
    world.runtime.stop(&container.name, Duration::ZERO).unwrap();
    assert_eq!(traces(&container.name, &world), Vec::<String>::new());
}

/// An init that ignores every signal, blocks them, and stops itself.
#[test]
fn one_that_listens_to_nothing_is_killed() {
    let world = World::new();
    let deaf =
        "#!/bin/sh\ntrap '' PWR TERM INT HUP QUIT USR1 USR2\nkill -STOP $$\nwhile :; do sleep 1; done\n";
    let image = world.image(&Recipe { init: Some(deaf), ..Recipe::default() });
    let container = world.launch_from("deaf", &image);
    world.runtime.stop(&container.name, Duration::from_millis(200)).unwrap();
    assert_eq!(container.info().status, Status::Stopped);
    assert_eq!(traces(&container.name, &world), Vec::<String>::new());
}

/// The file system of the containers is a small one, in a private mount namespace.
#[test]
fn one_that_fills_the_disk_can_be_stopped_and_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let script = "mount -t tmpfs -o size=48m none \"$1\"; export TMPDIR=\"$1\"; shift; \"$@\"";
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "timeout", "400", "sh", "-euc", script, "sh"])
        .arg(dir.path())
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "on_a_small_disk", "--ignored", "--nocapture"])
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(output.status.success() && text[0].contains("1 passed"), "{}", text.concat());
}

#[test]
#[ignore = "run on a small disk, by another"]
fn on_a_small_disk() {
    let world = World::new();
    let container = world.launch("full");
    let other = world.launch("roomy");
    assert_ne!(container.sh("cat /dev/zero > /fill 2>/dev/null"), 0);
    assert_ne!(container.sh("(echo more > /more && cat /dev/zero >> /more) 2>/dev/null"), 0);
    assert_eq!(container.sh("yes > /dev/console & sleep 0.1; kill $!"), 0, "its log as well");
    for container in [&container, &other] {
        assert_eq!(container.sh("true"), 0, "commands run");
        assert_eq!(container.info().status, Status::Running);
    }
    let refused = world.runtime.snapshot(&container.name, None, None).unwrap_err();
    assert!(refused.to_string().contains("No space left"), "{refused}");
    assert_eq!(container.info().status, Status::Running, "it goes on");
    let _ = world.runtime.stop(&container.name, Duration::ZERO);
    assert_eq!(container.info().status, Status::Stopped);
    assert_eq!(traces_of_processes(&container, &world), Vec::<String>::new());
    world.runtime.delete(&container.name, true).unwrap();
    assert!(!container.dir().exists());
    world.runtime.stop(&other.name, SOON).unwrap();
    assert_eq!(other.info().last_exit.unwrap().code, 0, "there is room again");
}

/// The world's own mount is no trace.
fn traces_of_processes(container: &support::Container, world: &World) -> Vec<String> {
    traces(&container.name, world).into_iter().filter(|trace| !trace.starts_with("mount")).collect()
}

type Act<'a> = Box<dyn Fn() -> Result<(), Error> + Send + Sync + 'a>;

#[test]
fn commands_at_once_wait_for_each_other_or_say_why_not() {
    let world = World::new();
    let container = world.launch("race");
    let copy = support::Container { world: &world, name: support::name("race-copy") };
    let end = Instant::now() + Duration::from_secs(3);
    let (runtime, name) = (&world.runtime, &container.name);
    let check = |what: &str, result: Result<(), Error>| match result {
        Ok(())
        | Err(
            Error::Busy { .. }
            | Error::Running { .. }
            | Error::NotRunning { .. }
            | Error::NotFound { .. }
            | Error::Exists { .. }
            | Error::NoSnapshot { .. }
            | Error::SnapshotExists { .. },
        ) => {}
        // It was stopped while the command came in.
        Err(Error::Exec { reason, .. }) if what == "exec" => assert!(!reason.is_empty()),
        Err(error) => panic!("{what}: {error}"),
    };
    let snapshot = "one".parse().unwrap();
    let true_ = ExecOptions { argv: vec!["true".into()], ..ExecOptions::default() };
    let acts: [(&str, Act<'_>); 8] = [
        ("start", Box::new(|| runtime.start(name))),
        ("stop", Box::new(|| runtime.stop(name, Duration::ZERO).map(drop))),
        ("snapshot", Box::new(|| runtime.snapshot(name, Some(&snapshot), None).map(drop))),
        ("forget", Box::new(|| runtime.delete_snapshot(name, &snapshot))),
        ("copy", Box::new(|| runtime.copy(name, Some(&snapshot), &copy.name))),
        ("delete", Box::new(|| runtime.delete(&copy.name, true))),
        ("list", Box::new(|| runtime.list().map(drop))),
        ("exec", Box::new(|| runtime.exec(name, &true_).map(drop))),
    ];
    std::thread::scope(|scope| {
        for (what, act) in &acts {
            scope.spawn(move || {
                while Instant::now() < end {
                    check(what, act());
                }
            });
        }
    });
    check("stop", runtime.stop(name, Duration::ZERO).map(drop));
    assert_eq!(traces(name, &world), Vec::<String>::new());
    runtime.start(name).unwrap();
    assert_eq!(container.sh("true"), 0);
}

#[test]
fn values_arrive_as_they_were_set_whatever_is_in_them() {
    let world = World::new();
    let container = world.launch("values");
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 8,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let any = "[^=\\x00-\\x1f\\x7f-\\x9f]{1,30}";
    let pairs = proptest::collection::btree_map(any, "[^\\x00]{0,200}", 1..20);
    runner
        .run(&pairs, |pairs: BTreeMap<String, String>| {
            let mut new = world.runtime.configuration(&container.name).unwrap();
            new.config =
                pairs.iter().map(|(key, value)| (format!("environment.{key}"), value.clone())).collect();
            world.runtime.configure(&container.name, &new).unwrap();
            assert_eq!(world.runtime.configuration(&container.name).unwrap().config, new.config);
            let argv = vec!["cat".to_owned(), "/proc/self/environ".to_owned()];
            let options = ExecOptions { argv, ..ExecOptions::default() };
            let (code, said) =
                world.runtime.exec_captured(&container.name, &options, SOON, &CancelToken::new()).unwrap();
            assert_eq!(code, 0);
            let said: BTreeMap<_, _> = said
                .split(|byte| *byte == 0)
                .filter_map(|pair| std::str::from_utf8(pair).ok()?.split_once('='))
                .collect();
            for (key, value) in &pairs {
                assert_eq!(said.get(key.as_str()), Some(&value.as_str()), "{key:?}");
            }
            Ok(())
        })
        .unwrap();
    // Init gets them too.
    world.runtime.stop(&container.name, Duration::ZERO).unwrap();
    world.runtime.start(&container.name).unwrap();
    assert_eq!(container.sh("true"), 0);
}
