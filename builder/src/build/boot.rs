//! Starts a fresh image and looks whether it comes up, works and shuts down.
//!
//! What "up" means depends on the init: systemd says itself when it is done and which units failed;
//! OpenRC and runit are asked by their own tools; of any other it is known only that it keeps running.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use millstream_image::Sha256Digest;
use millstream_runtime::container::{ExecOptions, ImageUse, Stopped};
use millstream_runtime::{CancelToken, ContainerName, ImageFiles, Runtime};

use crate::{Error, Result};

/// Longest script, in bytes; it is handed over as an argument.
const MAX_SCRIPT: usize = 96 << 10;
/// An init that does not say when it is up counts as up after it has run this long.
const SETTLED: Duration = Duration::from_secs(3);
/// How long any look at the system may take.
const LOOK: Duration = Duration::from_secs(30);
/// How long a network that is there may take to be configured.
const NETWORK: Duration = Duration::from_mins(1);
/// Begins the names of containers that are tests.
const PREFIX: &str = "boot-test-";

/// How to test.
#[derive(Clone, Debug)]
pub struct BootTest {
    /// The directory of containers, see [`Runtime`].
    pub containers: PathBuf,
    /// Run by `/bin/sh` inside when the system is up; it must exit with 0.
    pub script: Option<String>,
    /// How long the system may take to come up, and again the script to run.
    pub limit: Duration,
}

impl BootTest {
    /// What passing it means.
    pub fn digest(&self) -> Sha256Digest {
        Sha256Digest::of(self.script.as_deref().unwrap_or_default().as_bytes())
    }

    /// Looks whether this process may start containers, and removes what an interrupted test left.
    ///
    /// # Errors
    /// When it may not, or the script is too long.
    pub fn prepare(&self) -> Result<()> {
        if !rustix::process::geteuid().is_root() || millstream_runtime::sandbox::userns::inside() {
            return Err(Error::Refused(
                "a boot test starts the image in a container, which needs root for now; \
                 run this with sudo, or without --test"
                    .into(),
            ));
        }
        if self.script.as_ref().is_some_and(|script| script.len() > MAX_SCRIPT) {
            return Err(Error::Refused(format!("the test script is longer than {MAX_SCRIPT} bytes")));
        }
        let runtime = Runtime::open(&self.containers)?;
        for container in runtime.list()? {
            let owner =
                container.name.as_str().strip_prefix(PREFIX).and_then(|rest| rest.parse::<u32>().ok());
            let gone = owner.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists());
            if gone {
                discard(&runtime, &container.name)?;
            }
        }
        Ok(())
    }
}

/// Starts the image in `dir` and tests it. `log` gets what there is to read when it fails. Returns
/// what was found, in a line.
pub(super) fn test(
    dir: &Path,
    test: &BootTest,
    cancel: &CancelToken,
    log: &dyn Fn(&str) -> Result<()>,
) -> Result<String> {
    test.prepare()?;
    let runtime = Runtime::open(&test.containers)?;
    let name: ContainerName = format!("{PREFIX}{}", std::process::id()).parse()?;
    let files = ImageFiles::in_directory(dir)?;
    if runtime.info(&name).is_ok() {
        // A number used again: its owner is this very process, so the other one is gone.
        discard(&runtime, &name)?;
    }
    runtime.launch_owned(&name, &files, ImageUse::Automatic)?;
    let machine = Machine { runtime: &runtime, name: &name, cancel };
    let found = machine.examine(test);
    if let Err(error) = &found
        && !matches!(error, Error::Runtime(millstream_runtime::Error::Cancelled))
    {
        log(&machine.evidence())?;
    }
    discard(&runtime, &name)?;
    found
}

/// Deletes a test's container, and the image it was the only one to use.
fn discard(runtime: &Runtime, name: &ContainerName) -> Result<()> {
    let image = runtime.info(name)?.image;
    runtime.delete(name, true)?;
    match runtime.remove_image(image) {
        Err(millstream_runtime::Error::ImageInUse { .. }) | Ok(()) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn failed(reason: impl Into<String>) -> Error {
    Error::BootTest { reason: reason.into() }
}

struct Machine<'a> {
    runtime: &'a Runtime,
    name: &'a ContainerName,
    cancel: &'a CancelToken,
}

impl Machine<'_> {
    fn examine(&self, test: &BootTest) -> Result<String> {
        let begin = Instant::now();
        let init = self.come_up(test.limit)?;
        let mut found = format!("{init} came up in {:.1} s", begin.elapsed().as_secs_f64());
        if self.network()? {
            found += ", network configured";
        }
        if let Some(script) = &test.script {
            let (code, output) = self.sh_within(script, test.limit)?;
            if code != 0 {
                return Err(failed(format!("its script exited with {code}:\n  {}", tail(&output))));
            }
            found += ", script passed";
        }
        let begin = Instant::now();
        match self.runtime.stop(self.name, test.limit)? {
            Stopped::Cleanly => {}
            Stopped::Killed => {
                let limit = test.limit.as_secs();
                return Err(failed(format!("it did not shut down within {limit} seconds when asked to")));
            }
        }
        let exit = self.runtime.info(self.name)?.last_exit;
        if let Some(exit) = exit.filter(|exit| exit.code != 0) {
            return Err(failed(format!("its init ended with status {} when it was shut down", exit.code)));
        }
        Ok(format!("{found}, shut down in {:.1} s", begin.elapsed().as_secs_f64()))
    }

    /// Waits for init to be done, by its own account.
    fn come_up(&self, limit: Duration) -> Result<&'static str> {
        if self.has("systemctl") {
            self.systemd(limit)?;
            return Ok("systemd");
        }
        if self.has("rc-status") {
            self.openrc(limit)?;
            return Ok("OpenRC");
        }
        std::thread::sleep(SETTLED);
        if self.runtime.info(self.name)?.pid.is_none() {
            return Err(failed("its init ended by itself"));
        }
        if self.has("sv") {
            let (_, output) =
                self.sh("for d in /etc/service/*/ /service/*/; do [ -d \"$d\" ] && sv status \"$d\"; done")?;
            let down: Vec<_> = output.lines().filter(|line| !line.starts_with("run:")).collect();
            return if down.is_empty() {
                Ok("runit")
            } else {
                Err(failed(format!("services are not up: {}", down.join("; "))))
            };
        }
        Ok("init")
    }

    fn systemd(&self, limit: Duration) -> Result<()> {
        let begin = Instant::now();
        loop {
            let (_, state) = self.sh("systemctl is-system-running 2>&1")?;
            match state.trim() {
                "running" => return Ok(()),
                "degraded" => {
                    let (_, units) = self.sh("systemctl --failed --no-legend --plain")?;
                    let units = units.lines().filter_map(|line| line.split_whitespace().next());
                    let units = units.collect::<Vec<_>>().join(", ");
                    return Err(failed(format!("these units failed: {units}")));
                }
                "maintenance" | "stopping" => return Err(failed(format!("systemd is {}", state.trim()))),
                state if begin.elapsed() > limit => {
                    let (_, jobs) = self.sh("systemctl list-jobs --no-legend --plain")?;
                    let (state, jobs) = (state.lines().next().unwrap_or_default(), jobs.trim());
                    let limit = limit.as_secs();
                    return Err(failed(format!(
                        "it was not up after {limit} seconds ({state}); still to do:\n  {jobs}"
                    )));
                }
                _ => std::thread::sleep(Duration::from_millis(250)),
            }
        }
    }

    fn openrc(&self, limit: Duration) -> Result<()> {
        let begin = Instant::now();
        while self.sh("rc-status --runlevel")?.1.trim() != "default" {
            if begin.elapsed() > limit {
                return Err(failed(format!(
                    "runlevel default was not reached within {} seconds",
                    limit.as_secs()
                )));
            }
            std::thread::sleep(Duration::from_millis(250));
        }
        let (_, crashed) = self.sh("rc-status --nocolor --crashed 2>/dev/null")?;
        let crashed = crashed.split_whitespace().collect::<Vec<_>>().join(" ");
        if crashed.is_empty() { Ok(()) } else { Err(failed(format!("these services crashed: {crashed}"))) }
    }

    /// Waits for an address, where the container has an interface for it; false when it has none.
    fn network(&self) -> Result<bool> {
        let Some(pid) = self.runtime.info(self.name)?.pid else {
            return Err(failed("its init ended by itself"));
        };
        let read =
            |file: &str| std::fs::read_to_string(format!("/proc/{pid}/net/{file}")).unwrap_or_default();
        let interfaces = read("dev");
        let mut names = interfaces.lines().skip(2).filter_map(|line| Some(line.split_once(':')?.0.trim()));
        if !names.any(|name| name != "lo" && !is_template(name)) {
            return Ok(false);
        }
        let begin = Instant::now();
        // A route that leads somewhere: the first line is a heading.
        while read("route").lines().count() < 2
            && !read("ipv6_route").lines().any(|line| !line.ends_with(" lo"))
        {
            self.cancel.check()?;
            if begin.elapsed() > NETWORK {
                return Err(failed(format!(
                    "its network has no address after {} seconds",
                    NETWORK.as_secs()
                )));
            }
            std::thread::sleep(Duration::from_millis(250));
        }
        Ok(true)
    }

    fn has(&self, program: &str) -> bool {
        self.sh(&format!("command -v {program}")).is_ok_and(|(code, _)| code == 0)
    }

    fn sh(&self, script: &str) -> Result<(i32, String)> {
        self.sh_within(script, LOOK)
    }

    fn sh_within(&self, script: &str, limit: Duration) -> Result<(i32, String)> {
        let argv = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
        let options = ExecOptions { argv, ..ExecOptions::default() };
        let (code, output) = self.runtime.exec_captured(self.name, &options, limit, self.cancel)?;
        Ok((code, String::from_utf8_lossy(&output).into_owned()))
    }

    /// What the system says about itself.
    fn evidence(&self) -> String {
        let script = "systemctl --failed --no-pager 2>/dev/null
            systemctl --failed --no-legend --plain 2>/dev/null | while read -r unit rest; do
                systemctl status --no-pager --lines=50 \"$unit\"
            done
            journalctl -b --no-pager -p warning -n 100 2>/dev/null";
        let (_, said) = self.sh(script).unwrap_or_default();
        let console = self.runtime.info(self.name).ok().map(|info| info.directory.join("console.log"));
        let console = console.and_then(|file| std::fs::read(file).ok()).unwrap_or_default();
        format!("the system under test:\n{said}\n==> its console:\n{}", String::from_utf8_lossy(&console))
    }
}

/// Interfaces the kernel puts into every network namespace, where its modules are loaded.
fn is_template(name: &str) -> bool {
    ["tunl", "sit", "gre", "gretap", "erspan", "ip_vti", "ip6_vti", "ip6tnl", "ip6gre"]
        .iter()
        .any(|prefix| name.strip_prefix(prefix).is_some_and(|rest| rest == "0"))
}

fn tail(output: &str) -> String {
    let lines: Vec<_> = output.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n  ")
}
