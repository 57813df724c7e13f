//! Debian system containers run from images built here, through the command line.

use std::fs;
use std::io::Write;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::support::terminal::OnTerminal;
use crate::support::{PROGRAM, image_of};

/// A container of one release, deleted at the end.
struct Container {
    dir: TempDir,
    name: String,
}

impl Container {
    fn launch(release: &str, what: &str) -> Self {
        let container = Self::nothing(what);
        let image = image_of(release);
        let launched = container.millstream(&["launch", image.to_str().unwrap(), &container.name]);
        assert!(launched.status.success(), "{}", text(&launched.stderr));
        container
    }

    /// A name and a directory without a container.
    fn nothing(what: &str) -> Self {
        Self { dir: tempfile::tempdir().unwrap(), name: format!("e{}-{what}", std::process::id()) }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command.args(args).env("MILLSTREAM_DIR", self.dir.path()).stdin(Stdio::null());
        command
    }

    fn millstream(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    fn exec(&self, argv: &[&str]) -> Output {
        self.millstream(&[&["exec", self.name.as_str(), "--"], argv].concat())
    }

    /// Waits until everything is up; what systemd says then.
    fn system_state(&self) -> String {
        let begin = Instant::now();
        loop {
            let state = text(&self.exec(&["systemctl", "is-system-running"]).stdout);
            let coming_up = ["", "initializing", "starting"].contains(&state.as_str());
            if !coming_up || begin.elapsed() > Duration::from_mins(2) {
                return state;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn console(&self) -> String {
        let log = self.dir.path().join("data/containers").join(&self.name).join("console.log");
        text(&fs::read(log).unwrap_or_default())
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        self.millstream(&["delete", "--force", &self.name]);
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end().to_owned()
}

fn boots_to_running(release: &str) {
    let container = Container::launch(release, release);
    assert_eq!(container.system_state(), "running", "{}", container.console());
    let failed = container.exec(&["systemctl", "--failed", "--no-legend", "--plain"]);
    assert_eq!(text(&failed.stdout), "");
    assert_eq!(text(&container.exec(&["hostname"]).stdout), container.name);
    assert_eq!(text(&container.exec(&["systemd-detect-virt", "--container"]).stdout), "container-other");
    assert_eq!(text(&container.exec(&["cat", "/etc/hostname"]).stdout), container.name, "its template");
    let stopped = container.millstream(&["stop", &container.name]);
    assert!(stopped.status.success() && stopped.stderr.is_empty(), "{}", text(&stopped.stderr));
    assert!(container.console().contains("Halting system"), "{}", container.console());
    let list = text(&container.millstream(&["list", "--format", "csv"]).stdout);
    assert!(list.contains(&format!("{},STOPPED,", container.name)), "{list}");
    let started = container.millstream(&["start", &container.name]);
    assert!(started.status.success(), "{}", text(&started.stderr));
    assert_eq!(container.system_state(), "running", "a second time: {}", container.console());
}

#[test]
fn debian_bookworm_boots_to_running() {
    boots_to_running("bookworm");
}

#[test]
fn debian_trixie_boots_to_running() {
    boots_to_running("trixie");
}

/// Their files are on a tmpfs inside, as an overlay cannot stand on the outer container's.
#[test]
fn a_container_runs_inside_a_container() {
    let container = Container::nothing("nest");
    let image = image_of("bookworm");
    let image = image.to_str().unwrap();
    let run = |args: &[&str]| {
        let output = container.millstream(args);
        assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
        text(&output.stdout)
    };
    run(&["launch", image, &container.name, "-c", "security.nesting=true"]);
    run(&["file", "push", PROGRAM, &format!("{}/usr/local/bin/millstream", container.name)]);
    run(&["file", "push", "-r", image, &format!("{}/root/image", container.name)]);
    let script = "mount -t tmpfs tmpfs /mnt
        export MILLSTREAM_DIR=/mnt
        millstream --quiet launch /root/image inner
        millstream exec inner -- hostname
        until millstream exec inner -- systemctl is-system-running --wait; do sleep 1; done
        millstream delete --force inner
        ls /sys/fs/cgroup/millstream 2>/dev/null";
    assert_eq!(text(&container.exec(&["timeout", "120", "sh", "-c", script]).stdout), "inner\nrunning");
}

#[test]
fn exec_passes_streams_and_exit_codes_through() {
    let container = Container::launch("bookworm", "streams");
    let mut child = container
        .command(&["exec", &container.name, "--", "sh", "-c", "tr a-z A-Z; echo oops >&2; exit 7"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let large = "abcdefghij".repeat(100_000);
    let mut stdin = child.stdin.take().unwrap();
    let output = std::thread::scope(|scope| {
        scope.spawn(|| {
            stdin.write_all(large.as_bytes()).unwrap();
            drop(stdin);
        });
        child.wait_with_output().unwrap()
    });
    assert_eq!(output.status.code(), Some(7));
    assert_eq!(text(&output.stdout), large.to_uppercase());
    assert_eq!(text(&output.stderr), "oops");
    assert_eq!(container.exec(&["sh", "-c", "kill -9 $$"]).status.code(), Some(137));
    let missing = container.exec(&["no-such-program"]);
    assert_eq!(missing.status.code(), Some(127));
    assert_eq!(text(&missing.stderr), "no-such-program: No such file or directory");
}

/// What it has for itself; the program's pages are shared. Linked as libraries are it has several times that.
#[test]
fn a_supervisor_takes_little_memory() {
    let container = Container::launch("bookworm", "memory");
    let state = container.dir.path().join("data/containers").join(&container.name).join("state.json");
    let state: serde_json::Value = serde_json::from_slice(&fs::read(state).unwrap()).unwrap();
    let pid = state["running"]["supervisor"]["pid"].as_i64().unwrap();
    let used = || {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("Anonymous:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u32>().unwrap()
    };
    // It gives back what the start took once it has said that the container runs.
    wait_for(|| used() < 350);
}

#[test]
fn an_interrupted_exec_takes_its_command_along() {
    let container = Container::launch("bookworm", "interrupt");
    let command = &["exec", &container.name, "--", "sleep", "4711"];
    let child = container.command(command).spawn().unwrap();
    // The pattern does not match itself.
    let script = "grep -la '[4]711' /proc/[0-9]*/cmdline | wc -l";
    let count = || text(&container.exec(&["sh", "-c", script]).stdout);
    wait_for(|| count() == "1");
    kill(&child, rustix::process::Signal::KILL);
    let mut child = child;
    child.wait().unwrap();
    wait_for(|| count() == "0");
}

#[test]
fn exec_on_a_terminal_gives_the_command_one() {
    let container = Container::launch("bookworm", "terminal");
    let script = "tty; stty size; trap 'echo interrupted; stty size; exit 9' INT; \
        trap 'echo resized' WINCH; echo ready; while :; do sleep 0.1; done";
    let args = ["exec", container.name.as_str(), "--", "bash", "-c", script];
    let mut terminal = OnTerminal::run(container.dir.path(), &args, 33, 77);
    terminal.expect("/dev/pts/");
    terminal.expect("33 77");
    terminal.expect("ready");
    terminal.resize(44, 88);
    terminal.expect("resized");
    terminal.type_in("\x03");
    terminal.expect("interrupted");
    terminal.expect("44 88");
    assert_eq!(terminal.child.wait().unwrap().code(), Some(9));
}

#[test]
fn a_closed_terminal_ends_the_command() {
    let container = Container::launch("bookworm", "hangup");
    let args = ["exec", container.name.as_str(), "--", "sh", "-c", "echo ready; sleep 4711"];
    let mut terminal = OnTerminal::run(container.dir.path(), &args, 24, 80);
    terminal.expect("ready");
    let mut child = terminal.hang_up();
    assert_eq!(child.wait().unwrap().code(), Some(128 + 1), "SIGHUP");
}

#[test]
fn shell_is_a_login_shell() {
    let container = Container::launch("bookworm", "shell");
    let mut terminal = OnTerminal::run(container.dir.path(), &["shell", &container.name], 24, 80);
    terminal.type_in("echo $0-$USER-$HOME; exit 5\n");
    terminal.expect("-bash-root-/root");
    assert_eq!(terminal.child.wait().unwrap().code(), Some(5));
}

#[test]
fn mistakes_get_one_clear_line() {
    let container = Container::nothing("mistakes");
    let image = image_of("bookworm");
    let image = image.to_str().unwrap();
    let cases: [(&[&str], i32, &str); 7] = [
        (&["launch", image, "no_name"], 1, "only letters, digits and hyphens"),
        (&["launch", "./no-such-directory", "c1"], 1, "./no-such-directory is no image directory"),
        (&["start", "c1"], 1, "there is no container c1"),
        (&["exec", "c1", "--", "true"], 1, "there is no container c1"),
        (&["list", "colour=red"], 1, "containers have no colour"),
        (&["exec", "c1"], 2, "<COMMAND>"),
        (&["stop", "--timeout", "0", "c1"], 2, "0"),
    ];
    for (args, code, expected) in cases {
        let output = container.millstream(args);
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {error}");
        assert!(error.contains(expected), "{args:?}: {error}");
        assert!(code == 2 || error.lines().count() == 1, "{args:?}: {error}");
        assert!(output.stdout.is_empty());
    }
}

fn kill(child: &Child, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(child.id() as i32).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

fn wait_for(mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < Duration::from_mins(1), "not within a minute");
        std::thread::sleep(Duration::from_millis(50));
    }
}
