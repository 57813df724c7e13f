//! Terminals connected to a container's console.

use std::io::Write;
use std::process::Stdio;

use crate::support::terminal::OnTerminal;
use crate::support::{Home, busybox_image, wait_for};

/// Asks for names, and tells the size of its terminal.
const INIT: &str = "#!/bin/sh
trap 'exit 0' PWR
echo ready
while :; do read -r name || sleep 1; echo \"hello $name, $(stty size)\"; done
";

/// A container with that init, deleted at the end.
struct Asking {
    home: Home,
    name: String,
}

impl Asking {
    fn launch(what: &str) -> Self {
        let asking = Self { home: Home::new(), name: format!("k{}-{what}", std::process::id()) };
        let image = busybox_image(&asking.home, INIT);
        asking.home.run(&["launch", image.to_str().unwrap(), &asking.name]);
        asking
    }

    fn connect(&self, rows: u16, columns: u16) -> OnTerminal {
        let mut terminal = OnTerminal::run(self.home.path(), &["console", &self.name], rows, columns);
        terminal.expect("To disconnect, press Ctrl-a q.");
        terminal
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        let _ = self.home.command(&["delete", "--force", &self.name]).status();
    }
}

#[test]
fn several_terminals_share_a_console_and_leave_it_as_they_came() {
    let asking = Asking::launch("share");
    let mut first = asking.connect(20, 70);
    first.type_in("ada\r");
    first.expect("hello ada, 20 70");
    let mut second = asking.connect(30, 90);
    second.type_in("bob\r");
    first.expect("hello bob, 30 90");
    second.expect("hello bob, 30 90");
    first.resize(25, 75);
    wait_for("the console has its size", 20, || {
        first.type_in("eve\r");
        first.expect("hello eve, ");
        first.expect("\n");
        asking.home.run(&["console", "--show-log", &asking.name]).contains("hello eve, 25 75")
    });
    assert!(!first.modes().local_modes.contains(rustix::termios::LocalModes::ICANON), "raw");
    // Ctrl-c is the container's, Ctrl-a twice one Ctrl-a.
    first.type_in("\x01\x01\r");
    first.expect("hello \x01,");
    first.type_in("\x01q");
    assert_eq!(first.child.wait().unwrap().code(), Some(0));
    assert!(first.modes().local_modes.contains(rustix::termios::LocalModes::ICANON), "as before");
    second.type_in("dan\r");
    second.expect("hello dan");
    // A signal ends it as well.
    let pid = rustix::process::Pid::from_raw(second.child.id() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    second.expect("interrupted");
    assert_eq!(second.child.wait().unwrap().code(), Some(1));
    assert!(second.modes().local_modes.contains(rustix::termios::LocalModes::ICANON), "as before");
}

#[test]
fn a_console_outlives_a_reboot_and_ends_with_its_container() {
    let asking = Asking::launch("end");
    let mut terminal = asking.connect(24, 80);
    asking.home.run(&["exec", &asking.name, "--", "busybox", "reboot", "-f"]);
    terminal.expect("ready");
    terminal.type_in("again\r");
    terminal.expect("hello again");
    asking.home.run(&["stop", &asking.name]);
    terminal.expect(&format!("{} has stopped", asking.name));
    assert_eq!(terminal.child.wait().unwrap().code(), Some(0));
    assert!(terminal.modes().local_modes.contains(rustix::termios::LocalModes::ICANON), "as before");
    assert!(asking.home.fail(&["console", &asking.name]).contains("is not running"));
}

#[test]
fn a_console_takes_and_gives_streams() {
    let asking = Asking::launch("stream");
    let mut command = asking.home.command(&["console", &asking.name]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"q\x01q\n").unwrap();
    wait_for("it is answered", 20, || asking.home.run(&["logs", &asking.name]).contains("hello q\x01q"));
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stdout).contains("hello q\x01q"));
}

/// Who has a terminal in hand can type on it for others.
#[test]
fn no_terminal_of_the_host_and_no_false_one_is_used() {
    let asking = Asking::launch("false");
    let script = "n=0; for fd in 0 1 2; do test -t $fd && n=$((n+1)); done; echo terminals: $n.";
    let args = ["exec", "-T", &asking.name, "--", "sh", "-c", script];
    let mut terminal = OnTerminal::run(asking.home.path(), &args, 24, 80);
    terminal.expect("terminals: 0.");
    assert!(terminal.child.wait().unwrap().success());
    let script = "busybox umount -l /dev/pts && touch /dev/pts/ptmx";
    asking.home.run(&["exec", &asking.name, "--", "sh", "-c", script]);
    let args = ["exec", "-t", &asking.name, "--", "true"];
    let mut terminal = OnTerminal::run(asking.home.path(), &args, 24, 80);
    terminal.expect("is not a file system of terminals");
    assert_eq!(terminal.child.wait().unwrap().code(), Some(1));
    assert!(terminal.modes().local_modes.contains(rustix::termios::LocalModes::ICANON), "as before");
}
