//! When a system is up, and that nothing of it failed, by its own account.
//!
//! systemd says both. OpenRC and System V's scripts are done when their processes are, and tell on the
//! console what failed. runit's services must stay up for a moment. Of any other init it is known that it keeps
//! running, that it does not start the same again and again, and what it complains about on the console.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use millstream_runtime::container::Init;

use super::machine::{Machine, failed};
use crate::Result;

/// An init that does not say when it is up counts as up after it has run this long.
const SETTLED: Duration = Duration::from_secs(3);
/// A service that is supervised is up after it has run this long.
const STEADY: Duration = Duration::from_secs(2);
/// How long all services together may take for that.
const STEADY_LIMIT: Duration = Duration::from_secs(12);

impl Machine<'_> {
    /// Waits for the system to be up; the error says what is not. Returns what it is run by.
    pub(super) fn come_up(&self) -> Result<&'static str> {
        let init = self.init()?;
        let what = match init {
            Init::Systemd => return self.systemd().map(|()| "systemd"),
            Init::Runit => self.runit().map(|()| "runit")?,
            _ if self.has("rc-status") => self.openrc().map(|()| "OpenRC")?,
            Init::SysV => self.sysv().map(|()| "sysvinit")?,
            Init::Busybox => self.settle().map(|()| "busybox")?,
            _ => self.settle().map(|()| "init")?,
        };
        let complaints = complaints(&self.console());
        if complaints.is_empty() { Ok(what) } else { Err(failed(complaints.join("; "))) }
    }

    fn systemd(&self) -> Result<()> {
        let look = || {
            let (_, state) = self.sh("systemctl is-system-running 2>&1")?;
            match state.trim() {
                "running" => Ok(Some(())),
                "degraded" => {
                    let (_, units) = self.sh("systemctl --failed --no-legend --plain")?;
                    let units = units.lines().filter_map(|line| line.split_whitespace().next());
                    Err(failed(format!("these units failed: {}", units.collect::<Vec<_>>().join(", "))))
                }
                "maintenance" | "stopping" => Err(failed(format!("systemd is {}", state.trim()))),
                _ => Ok(None),
            }
        };
        self.wait(self.limit, look, || {
            let (_, jobs) = self.sh("systemctl list-jobs --no-legend --plain")?;
            Ok(format!("{}; still to do:\n  {}", self.late("systemd is not done"), jobs.trim()))
        })
    }

    fn late(&self, what: &str) -> String {
        format!("{what} after {} seconds", self.limit.as_secs())
    }

    fn openrc(&self) -> Result<()> {
        let up = || {
            let (_, level) = self.sh("rc-status --runlevel")?;
            Ok((level.trim() == "default" && !self.runs(&["openrc", "rc", "rcS"])?).then_some(()))
        };
        self.wait(self.limit, up, || {
            let (_, starting) = self.sh("ls /run/openrc/starting")?;
            Ok(format!("{}: {}", self.late("OpenRC's runlevel default is not reached"), words(&starting)))
        })?;
        // What failed to start it says on the console and then forgets.
        let (_, crashed) = self.sh("rc-status --nocolor --crashed 2>/dev/null")?;
        let crashed = words(&crashed);
        if crashed.is_empty() { Ok(()) } else { Err(failed(format!("these services crashed: {crashed}"))) }
    }

    fn sysv(&self) -> Result<()> {
        let up = || {
            let (_, level) = self.sh("runlevel")?;
            let reached = level.trim().ends_with(|c: char| ('2'..='5').contains(&c));
            Ok((reached && !self.runs(&["rc", "rcS", "startpar"])?).then_some(()))
        };
        self.wait(self.limit, up, || Ok(self.late("its runlevel is not reached")))?;
        self.settle()
    }

    /// Whether a script or program of such a name runs.
    fn runs(&self, names: &[&str]) -> Result<bool> {
        let name = |word: &String| word.rsplit('/').next().is_some_and(|name| names.contains(&name));
        // As program, or as what a shell was given.
        let words = self.words()?;
        Ok(words.split(String::is_empty).any(|process| process.iter().take(3).any(name)))
    }

    fn runit(&self) -> Result<()> {
        let directory = || Ok(services_directory(&self.words()?));
        let directory =
            self.wait(self.limit, directory, || Ok(self.late("runit's stage 2 is not reached")))?;
        let quoted = directory.replace('\'', "'\\''");
        let status = || self.sh(&format!("cd '{quoted}' && sv status ./*")).map(|(_, text)| text);
        let mut since: BTreeMap<String, Instant> = BTreeMap::new();
        let mut unsteady = Vec::new();
        let look = || {
            let now = services(&status()?);
            since.retain(|line, _| now.contains_key(line));
            unsteady = Vec::new();
            for (line, up) in now {
                let first = *since.entry(line.clone()).or_insert_with(Instant::now);
                if !up || first.elapsed() < STEADY {
                    unsteady.push(line);
                }
            }
            Ok(unsteady.is_empty().then_some(()))
        };
        let limit = self.limit.min(STEADY_LIMIT);
        let steady = self.wait(limit, look, || Ok(String::new()));
        steady.map_err(|error| match &error {
            crate::Error::BootTest { reason, .. } if reason.is_empty() => {
                failed(format!("these services do not stay up: {}", unsteady.join(", ")))
            }
            _ => error,
        })
    }

    /// Waits until it has run for a while, and init has nothing to clear up any more: that keeps on
    /// where a program ends whenever it is started.
    fn settle(&self) -> Result<()> {
        let begin = Instant::now();
        let (mut reaped, mut quiet_since) = (None, Instant::now());
        let look = || {
            let now = reaped_faults(self.pid()?);
            if reaped.replace(now) != Some(now) {
                quiet_since = Instant::now();
            }
            Ok((begin.elapsed() >= SETTLED && quiet_since.elapsed() >= STEADY).then_some(()))
        };
        self.wait(self.limit.max(SETTLED * 2), look, || {
            let (_, inittab) = self.sh("cat /etc/inittab 2>/dev/null")?;
            let programs = missing(&inittab, &self.words()?);
            Ok(format!("what its init starts ends again and again{programs}"))
        })
    }
}

/// Page faults of the children that a process has waited for: no other count of the kernel grows with
/// each of them.
fn reaped_faults(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(8)?.parse().ok()
}

/// What an inittab wants to run for ever and does not.
fn missing(inittab: &str, words: &[String]) -> String {
    let entries = inittab.lines().filter(|line| !line.trim_start().starts_with('#'));
    let wanted = entries.filter_map(|line| line.split_once(":respawn:")).map(|(_, command)| command.trim());
    let runs = |command: &&str| {
        let program = command.trim_start_matches(['-', '+']).split_whitespace().next().unwrap_or_default();
        words.split(String::is_empty).any(|process| process.first().is_some_and(|first| first == program))
    };
    let missing: Vec<_> = wanted.filter(|command| !runs(command)).collect();
    if missing.is_empty() { String::new() } else { format!("; these do not run: {}", missing.join(", ")) }
}

fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The directory that `runsvdir` was started with.
fn services_directory(words: &[String]) -> Option<String> {
    let mut arguments = words.iter().skip_while(|word| word.rsplit('/').next() != Some("runsvdir")).skip(1);
    arguments.find(|word| !word.starts_with('-')).filter(|word| word.starts_with('/')).cloned()
}

/// What `sv status` says: each service, with its process, and whether it is as it should be.
fn services(status: &str) -> BTreeMap<String, bool> {
    let service = |line: &str| {
        let own = line.split("; ").next().unwrap_or(line);
        let (state, rest) = own.split_once(": ")?;
        let (name, about) = rest.split_once(": ")?;
        let name = name.trim_start_matches("./");
        // One that was taken down on purpose is not wanted up.
        let good = state == "run" || state == "down" && !about.contains("want up");
        let process = about.split_once(')').filter(|_| state == "run").map_or("", |(process, _)| process);
        Some((
            format!("{name} ({})", if state == "run" { process.trim_start_matches('(') } else { state }),
            good,
        ))
    };
    status.lines().filter_map(service).collect()
}

/// What inits and their scripts say on the console about what failed.
fn complaints(console: &str) -> Vec<String> {
    let plain = without_escapes(console);
    let mut found = Vec::new();
    for line in plain.lines().map(str::trim) {
        // Of OpenRC, of sysvinit's startpar, and its own.
        if let Some((_, service)) = line.split_once("ERROR: ")
            && let Some((service, _)) = service.split_once(" failed to start")
        {
            found.push(format!("these services failed: {service}"));
        } else if let Some((_, services)) = line.split_once("service(s) returned failure:") {
            let services = services.split("...").next().unwrap_or(services).trim();
            found.push(format!("these services failed: {services}"));
        } else if line.contains("respawning too fast") {
            found.push(line.trim_start_matches("INIT: ").to_owned());
        }
    }
    found.sort();
    found.dedup();
    found
}

/// A text without what steers a terminal.
fn without_escapes(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        if char == '\x1b' {
            if chars.next() == Some('[') {
                let _end = chars.find(|c| ('@'..='~').contains(c));
            }
        } else if char == '\n' || !char.is_control() {
            out.push(char);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_inits_complain_about_is_found() {
        let console = "INIT: Entering runlevel: 2\r\nstartpar: service(s) returned failure: broken worse ...\x1b[31mfailed!\x1b[39;49m\r\n\
                       \x1b[1m\x1b[31m*\x1b[m ERROR: third failed to start\x1b[K\r\n\
                       INIT: Id \"1\" respawning too fast: disabled for 5 minutes\r\n";
        assert_eq!(
            complaints(console),
            [
                "Id \"1\" respawning too fast: disabled for 5 minutes",
                "these services failed: broken worse",
                "these services failed: third"
            ]
        );
        assert!(complaints("Activating swap...\x1b[31mfailed.\x1b[0m\r\n").is_empty());
    }

    #[test]
    fn services_of_runit_are_up_down_or_neither() {
        let status = "run: ./log: (pid 607) 25s\ndown: ./off: 25s, normally up\n\
                      down: ./dies: 0s, normally up, want up\nfinish: ./ends: (pid 5) 1s\n\
                      run: ./both: (pid 9) 3s; run: log: (pid 8) 3s\nfail: ./x: unable to open\nbroken\n";
        let found = services(status);
        let good = |name: &str| found.iter().find(|(line, _)| line.starts_with(name)).map(|(_, good)| *good);
        assert_eq!(found.len(), 6, "{found:?}");
        for (name, expected) in [
            ("log (pid 607", true),
            ("off", true),
            ("dies", false),
            ("ends", false),
            ("both (pid 9", true),
            ("x", false),
        ] {
            assert_eq!(good(name), Some(expected), "{name} of {found:?}");
        }
    }

    #[test]
    fn what_an_inittab_wants_and_does_not_run_is_named() {
        let inittab =
            "# x:2:respawn:/no\n::once:/bin/once\n::respawn:-/bin/sh\n1:2:respawn:/sbin/getty tty1\n";
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(
            missing(inittab, &words("/sbin/init  /bin/sh -c x")),
            "; these do not run: /sbin/getty tty1"
        );
        assert_eq!(missing(inittab, &words("/bin/sh  /sbin/getty tty1")), "");
        assert!(reaped_faults(std::process::id() as i32).is_some());
    }

    #[test]
    fn the_directory_of_services_is_what_runsvdir_got() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let found = services_directory(&words("sh  /usr/bin/runsvdir -P /etc/service log: ..."));
        assert_eq!(found.as_deref(), Some("/etc/service"));
        assert_eq!(services_directory(&words("sh -c x")), None);
        assert_eq!(services_directory(&words("runsvdir -P")), None);
    }

    proptest! {
        #[test]
        fn any_output_is_read(text in "(run: |INIT: |\\x1b\\[)?\\PC{0,60}\\n?\\PC{0,20}") {
            complaints(&text);
            services(&text);
        }
    }
}
