//! A start whose processes are killed at any step: in one system call after the other, whichever of
//! them makes it first. Needs the Debian packages strace and iproute2.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use millstream_runtime::Runtime;
use millstream_runtime::container::Status;
use support::{Container, Recipe, World, eventually, traces};

/// Where the one who starts finds the containers, and which.
const START: &str = "MILLSTREAM_TEST_START";

/// The call, and the how-manieth of a process it is killed in: making processes, id maps, layers,
/// namespaces, mounts, control groups, interfaces, the new root, and becoming init.
const POINTS: &[(&str, u32)] = &[
    ("clone", 1),
    ("clone", 2),
    ("setsid", 1),
    ("prctl", 1),
    ("mkdir", 1),
    ("mkdir", 4),
    ("write", 2),
    ("write", 5),
    ("write", 9),
    ("unshare", 1),
    ("setns", 1),
    ("open_tree", 1),
    ("open_tree", 3),
    ("mount_setattr", 1),
    ("fsopen", 1),
    ("fsmount", 1),
    ("move_mount", 1),
    ("move_mount", 4),
    ("sendmsg", 1),
    ("sendmsg", 2),
    ("setresuid", 1),
    ("sethostname", 1),
    ("mount", 2),
    ("mount", 7),
    ("pivot_root", 1),
    ("umount2", 1),
    ("seccomp", 1),
    ("rename", 1),
    ("execve", 1),
    ("execve", 2),
];

#[test]
fn nothing_is_left_wherever_a_start_is_killed() {
    let script =
        "ip link add uplink type veth peer name beyond; ip link set uplink up; ip link set beyond up; \"$@\"";
    let output = Command::new("unshare")
        .args(["--net", "timeout", "480", "sh", "-euc", script, "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "sweep", "--ignored", "--nocapture"])
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(output.status.success() && text[0].contains("1 passed"), "{}", text.concat());
}

#[test]
#[ignore = "run in a network namespace, by the other"]
fn sweep() {
    let world = World::new();
    let container = world.create("kill", &world.image(&Recipe::default()));
    let mut new = world.runtime.configuration(&container.name).unwrap();
    let nic = [("type", "nic"), ("nictype", "macvlan"), ("parent", "uplink")];
    new.devices.insert("eth0".into(), nic.map(|(key, value)| (key.to_owned(), value.to_owned())).into());
    world.runtime.configure(&container.name, &new).unwrap();
    let before = (interfaces(), mounts());
    let mut killed = 0;
    for (call, number) in POINTS {
        killed += u32::from(start_killed(&world, &container, call, *number));
        if container.info().status != Status::Stopped {
            world.runtime.stop(&container.name, Duration::ZERO).unwrap();
        }
        let what = format!("nothing is left after {call} {number}");
        eventually(&what, || {
            traces(&container.name, &world).is_empty() && (interfaces(), mounts()) == before
        });
    }
    assert!(killed as usize > POINTS.len() * 2 / 3, "only {killed} of {} were reached", POINTS.len());
    world.runtime.start(&container.name).unwrap();
    assert_eq!(container.sh("ip link show eth0 >/dev/null"), 0);
}

/// Whether something was killed.
fn start_killed(world: &World, container: &Container, call: &str, number: u32) -> bool {
    let done = world.dir.path().join("done");
    let caller = done.with_extension("pid");
    for file in [&done, &caller] {
        let _ = fs::remove_file(file);
    }
    let containers = world.runtime.images().parent().unwrap().to_path_buf();
    let log = world.dir.path().join("strace");
    let mut strace = Command::new("strace")
        .args(["-f", "-q", "--interruptible=2", "-e", &format!("trace={call}")])
        .args(["-e", &format!("inject={call}:signal=SIGKILL:when={number}")])
        .arg("-o")
        .arg(&log)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "start_once", "--ignored"])
        .env(START, format!("{}|{}|{}", containers.display(), container.name, done.display()))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let gone = || {
        let pid = fs::read_to_string(&caller).unwrap_or_default();
        !pid.is_empty() && !Path::new("/proc").join(pid).exists()
    };
    wait(&mut strace, || done.exists() || gone());
    fs::read_to_string(&log).unwrap_or_default().contains("SIGKILL")
}

/// Until the start has returned or all of it has been killed. Whoever is still traced goes on alone.
fn wait(strace: &mut Child, over: impl Fn() -> bool) {
    let begin = Instant::now();
    while strace.try_wait().unwrap().is_none() {
        if over() || begin.elapsed() > Duration::from_secs(30) {
            let pid = rustix::process::Pid::from_raw(strace.id() as i32).unwrap();
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            strace.wait().unwrap();
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
#[ignore = "run under strace, by another"]
fn start_once() {
    let text = std::env::var(START).unwrap();
    let [containers, name, done] = text.split('|').collect::<Vec<_>>()[..] else { panic!("{text}") };
    fs::write(Path::new(done).with_extension("pid"), std::process::id().to_string()).unwrap();
    let _ = Runtime::open(Path::new(containers)).and_then(|runtime| runtime.start(&name.parse()?));
    fs::write(done, "").unwrap();
}

fn interfaces() -> BTreeSet<String> {
    let text = fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    text.lines().filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned())).collect()
}

fn mounts() -> usize {
    fs::read_to_string("/proc/self/mountinfo").unwrap().lines().count()
}
