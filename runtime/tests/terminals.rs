//! A container that types for its caller: what it pushes into the terminals it has reaches no shell of
//! the host. Needs gcc, libc6-dev and util-linux.

mod support;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command};

use millstream_runtime::container::ExecOptions;
use millstream_runtime::{CancelToken, ContainerName, Runtime};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use support::{Recipe, World};

/// Types on the console again and again, once it has what to type with.
const INIT: &str = "#!/bin/sh
trap 'exit 0' PWR
while :; do sleep 0.2; test ! -e /marker || /bin/probe \"touch $(cat /marker)\"; done
";

/// A shell of the host on a terminal of its own.
struct Shell {
    child: Child,
    master: OwnedFd,
    seen: String,
}

impl Shell {
    fn start() -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let slave = ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        let child = Command::new("setsid")
            .args(["--wait", "--ctty", "sh", "-i"])
            .stdin(slave.try_clone().unwrap())
            .stdout(slave.try_clone().unwrap())
            .stderr(slave)
            .spawn()
            .unwrap();
        Self { child, master, seen: String::new() }
    }

    fn keys(&self, keys: &str) {
        File::from(self.master.try_clone().unwrap()).write_all(keys.as_bytes()).unwrap();
    }

    /// Reads until this comes; what came before.
    fn expect(&mut self, what: &str) -> String {
        let mut master = File::from(self.master.try_clone().unwrap());
        loop {
            if let Some(at) = self.seen.find(what) {
                return self.seen.drain(..at + what.len()).collect();
            }
            let limit = Timespec { tv_sec: 60, tv_nsec: 0 };
            let ready = poll(&mut [PollFd::new(&self.master, PollFlags::IN)], Some(&limit)).unwrap();
            assert_eq!(ready, 1, "no {what:?} in {:?}", self.seen);
            let mut buffer = [0; 4096];
            let count = master.read(&mut buffer).unwrap();
            self.seen += &String::from_utf8_lossy(&buffer[..count]);
        }
    }

    /// Runs a command; how many characters were typed in it, once the shell has read all there were. One
    /// that is connected to a container has `leave` typed, and says that it has ended.
    fn typed(&mut self, command: &str, leave: Option<&str>) -> u32 {
        self.keys(&format!("{command}\n"));
        self.expect("characters typed: ");
        let number = self.expect("\n").trim().parse().unwrap();
        if let Some(keys) = leave {
            self.keys(keys);
            self.expect("test result: ok");
        }
        self.keys("\necho done-$((40+2))\n");
        self.expect("done-42");
        number
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        self.keys("\nexit\n");
        let _ = self.child.wait();
    }
}

#[test]
fn nothing_is_typed_for_the_host() {
    let world = World::new();
    let container =
        world.launch_from("types", &world.image(&Recipe { init: Some(INIT), ..Recipe::default() }));
    container.push_probe("type");
    let mut shell = Shell::start();
    let markers = ["control", "exec", "console"].map(|name| world.dir.path().join(name));
    // What it is about: a program on the shell's own terminal, where the kernel lets it.
    let probe = world.dir.path().join("type");
    let typed = shell.typed(&format!("{} 'touch {}'", probe.display(), markers[0].display()), None);
    assert_eq!(typed > 0, markers[0].exists(), "{typed}");
    let this = std::env::current_exe().unwrap();
    for marker in &markers[1..] {
        let mode = marker.file_name().unwrap().to_str().unwrap();
        assert_eq!(container.sh(&format!("echo {} > /marker", marker.display())), 0);
        let command = format!(
            "TYPES='{mode} {} {} {}' {} --exact on_a_terminal --ignored --nocapture",
            world.runtime.images().parent().unwrap().display(),
            container.name,
            marker.display(),
            this.display()
        );
        let own = shell.typed(&command, Some(if mode == "console" { "\u{1}q" } else { "" }));
        // Its own terminal is its own affair: there it may, if any may.
        assert_eq!(own > 0, typed > 0, "{mode}");
        assert!(!marker.exists(), "{mode}: a shell of the host read what a container typed");
    }
}

#[test]
#[ignore = "run by another, on a terminal"]
fn on_a_terminal() {
    let text = std::env::var("TYPES").unwrap();
    let [mode, dir, name, marker] = text.split(' ').collect::<Vec<_>>()[..] else { panic!("{text}") };
    let (runtime, name): (_, ContainerName) = (Runtime::open(Path::new(dir)).unwrap(), name.parse().unwrap());
    if mode == "console" {
        runtime.console(&name, &CancelToken::new()).unwrap();
        return;
    }
    let argv = ["/bin/probe".to_owned(), format!("touch {marker}")].to_vec();
    runtime.exec(&name, &ExecOptions { argv, terminal: true, ..ExecOptions::default() }).unwrap();
}
