//! The first program of a container: which one it is, and how it is asked to shut down.
//!
//! It is looked at while it runs, by what the kernel shows of it: `/sbin/init` may be a script that
//! becomes another program, and may have been replaced since.

use std::fs;
use std::path::{Path, PathBuf};

/// The property of an image that names the signal its init shuts down on, as LXC's configuration has it.
pub const HALT_SIGNAL: &str = "lxc.signal.halt";

/// Inits that are told apart, as each is stopped in a way of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Init {
    /// systemd.
    Systemd,
    /// System V's, `sysvinit`, which listens on `initctl`.
    SysV,
    /// runit.
    Runit,
    /// `openrc-init`; OpenRC may also run below others.
    OpenRc,
    /// busybox' own.
    Busybox,
    /// Any other.
    Other,
}

/// How an init is asked to shut down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shutdown {
    /// By a signal.
    Signal(i32),
    /// By a command inside, and by the signal where that fails.
    Command(&'static [&'static str], i32),
}

impl Init {
    /// The one that is process `pid` of the host.
    pub fn of(pid: i32) -> Self {
        let proc = PathBuf::from(format!("/proc/{pid}"));
        let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let program = fs::read_link(proc.join("exe")).map(|path| name(&path)).unwrap_or_default();
        match program.trim_end_matches(" (deleted)") {
            "systemd" => Self::Systemd,
            "runit" | "runit-init" => Self::Runit,
            "openrc-init" => Self::OpenRc,
            // Its shell is the same program.
            "busybox" if name(&first_argument(&proc)) == "init" => Self::Busybox,
            _ if listens_on(&proc, "initctl") => Self::SysV,
            _ => Self::Other,
        }
    }

    /// How the init that is process `pid` is asked. `wanted` is the signal the image names.
    pub(super) fn shutdown(self, pid: i32, wanted: Option<i32>) -> Shutdown {
        let signal = |number| Shutdown::Signal(wanted.unwrap_or(number));
        match self {
            Self::Systemd => signal(libc::SIGRTMIN() + 3),
            // Powers off; what others take that signal for differs.
            Self::Busybox => signal(libc::SIGUSR2),
            // What they do at SIGPWR is up to a configuration that few distributions have.
            Self::SysV => Shutdown::Command(&["/sbin/init", "0"], wanted.unwrap_or(libc::SIGPWR)),
            // SIGCONT counts only once a file says so, which its own command sees to.
            Self::Runit => Shutdown::Command(&["/sbin/init", "0"], wanted.unwrap_or(libc::SIGCONT)),
            Self::OpenRc => {
                Shutdown::Command(&["openrc-shutdown", "--poweroff", "now"], wanted.unwrap_or(libc::SIGTERM))
            }
            Self::Other => {
                let known = [libc::SIGPWR, libc::SIGRTMIN() + 3, libc::SIGTERM];
                let handled = handled(&PathBuf::from(format!("/proc/{pid}")));
                signal(known.into_iter().find(|number| handled.has(*number)).unwrap_or(libc::SIGPWR))
            }
        }
    }
}

fn first_argument(proc: &Path) -> PathBuf {
    let line = fs::read(proc.join("cmdline")).unwrap_or_default();
    let first = line.split(|byte| *byte == 0).next().unwrap_or_default();
    PathBuf::from(String::from_utf8_lossy(first).into_owned())
}

/// Whether a process has a file of this name open.
fn listens_on(proc: &Path, name: &str) -> bool {
    let open = fs::read_dir(proc.join("fd")).into_iter().flatten().flatten();
    let mut targets = open.filter_map(|entry| fs::read_link(entry.path()).ok());
    targets.any(|target| target.file_name().is_some_and(|file| file == name))
}

/// Signals a process catches, or keeps for a descriptor to tell it of.
struct Handled(u64);

impl Handled {
    fn has(&self, signal: i32) -> bool {
        (1..=64).contains(&signal) && self.0 & (1 << (signal - 1)) != 0
    }
}

fn handled(proc: &Path) -> Handled {
    let status = fs::read_to_string(proc.join("status")).unwrap_or_default();
    let masks = status.lines().filter_map(|line| {
        let mask = line.strip_prefix("SigCgt:").or_else(|| line.strip_prefix("SigBlk:"))?;
        u64::from_str_radix(mask.trim(), 16).ok()
    });
    Handled(masks.fold(0, |all, mask| all | mask))
}

/// A signal's number from its name as LXC reads it: `SIGRTMIN+4`, `RTMAX-1`, `PWR`, `20`.
pub fn signal(text: &str) -> Option<i32> {
    let name = text.trim().to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    let (lowest, highest) = (libc::SIGRTMIN(), libc::SIGRTMAX());
    let offset = |text: &str| text.parse::<i32>().ok().filter(|number| *number >= 0);
    let number = if let Some(rest) = name.strip_prefix("RTMIN") {
        lowest.checked_add(rest.strip_prefix('+').map_or(Some(0).filter(|_| rest.is_empty()), offset)?)?
    } else if let Some(rest) = name.strip_prefix("RTMAX") {
        highest.checked_sub(rest.strip_prefix('-').map_or(Some(0).filter(|_| rest.is_empty()), offset)?)?
    } else if let Some(number) = offset(name) {
        number
    } else {
        return format!("SIG{name}").parse::<nix::sys::signal::Signal>().ok().map(|signal| signal as i32);
    };
    let real_time = name.starts_with("RT");
    (number >= if real_time { lowest } else { 1 } && number <= highest).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn signals_are_written_as_lxc_has_them() {
        let lowest = libc::SIGRTMIN();
        for (text, number) in [
            ("SIGPWR", Some(libc::SIGPWR)),
            (" sigcont ", Some(libc::SIGCONT)),
            ("USR2", Some(libc::SIGUSR2)),
            ("SIGRTMIN+4", Some(lowest + 4)),
            ("RTMIN", Some(lowest)),
            ("SIGRTMAX-1", Some(libc::SIGRTMAX() - 1)),
            ("20", Some(20)),
            ("0", None),
            ("65", None),
            ("SIGRTMIN+99", None),
            ("SIGRTMAX-99", None),
            ("RTMIN+-1", None),
            ("SIGRTMINX", None),
            ("SIGNOTHING", None),
            ("", None),
        ] {
            assert_eq!(signal(text), number, "{text}");
        }
    }

    #[test]
    fn an_init_that_says_nothing_is_asked_by_what_it_handles() {
        let pid = std::process::id() as i32;
        assert_eq!(Init::of(pid), Init::Other, "this test");
        // A test catches none of them.
        assert_eq!(Init::Other.shutdown(pid, None), Shutdown::Signal(libc::SIGPWR));
        assert_eq!(Init::Other.shutdown(pid, Some(20)), Shutdown::Signal(20), "the image's word counts");
        assert!(Handled(1 << (libc::SIGTERM - 1)).has(libc::SIGTERM) && !Handled(0).has(libc::SIGPWR));
    }

    proptest! {
        #[test]
        fn any_text_is_a_signal_or_none(text in "(SIG)?(RTMIN|RTMAX)?[+-]?\\PC{0,12}") {
            prop_assert!(signal(&text).is_none_or(|number| (1..=64).contains(&number)));
        }
    }
}
