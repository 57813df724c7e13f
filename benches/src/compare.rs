//! One comparison: two commands in turns.

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use anyhow::{Context, bail};

/// Where a comparison works: a directory that goes with it, and the binary.
pub struct Bench {
    dir: tempfile::TempDir,
    servers: RefCell<Vec<Child>>,
    endings: RefCell<Vec<String>>,
    /// The binary to measure, as an absolute path.
    pub binary: PathBuf,
}

impl Bench {
    pub fn new(binary: &Path) -> anyhow::Result<Self> {
        let binary = fs::canonicalize(binary)
            .with_context(|| format!("{}; build it with: cargo build --release", binary.display()))?;
        let dir = tempfile::Builder::new().prefix("millstream-bench-").tempdir()?;
        Ok(Self { dir, servers: RefCell::default(), endings: RefCell::default(), binary })
    }

    /// A path in the directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A command for the shell, run in the directory. `$MILLSTREAM` is the binary, which keeps all
    /// its files in `state` here; `$C` is what names of containers begin with.
    pub fn shell(&self, script: &str) -> Command {
        let mut command = Command::new("sh");
        command
            .args(["-eu", "-c", script])
            .current_dir(self.dir.path())
            .env("MILLSTREAM", &self.binary)
            .env("MILLSTREAM_DIR", self.path("state"))
            .env("C", prefix());
        command
    }

    /// Starts a server that ends with the comparison.
    pub fn keep(&self, script: &str) -> anyhow::Result<()> {
        let server = self.shell(script).stdin(Stdio::null()).spawn()?;
        self.servers.borrow_mut().push(server);
        Ok(())
    }

    /// Runs a script when the comparison is over, whether it failed or not; the last one given first.
    pub fn at_end(&self, script: impl Into<String>) {
        self.endings.borrow_mut().push(script.into());
    }

    /// Runs a script and returns what it prints; its failure is an error with its messages.
    pub fn run(&self, script: &str) -> anyhow::Result<String> {
        let output = self.shell(script).output()?;
        if !output.status.success() {
            bail!("{script}\n{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        while let Some(script) = self.endings.get_mut().pop() {
            if let Err(error) = self.run(&script) {
                eprintln!("left behind: {error:#}");
            }
        }
        for server in self.servers.get_mut() {
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

/// What names of containers begin with, so that others on the machine have none of these.
pub fn prefix() -> String {
    format!("b{}x", std::process::id())
}

/// What is no race between two scripts.
pub struct Measurement {
    /// For the command line.
    pub name: &'static str,
    /// One line.
    pub about: &'static str,
    /// Measures in so many rounds, and prints figures and verdicts.
    pub run: fn(&Bench, usize) -> anyhow::Result<()>,
}

/// Two ways to the same result.
pub struct Comparison {
    /// For the command line.
    pub name: &'static str,
    /// One line.
    pub about: &'static str,
    /// The ratio that is promised.
    pub target: f64,
    /// Makes what both sides need, once, and returns their scripts.
    pub setup: fn(&Bench) -> anyhow::Result<Sides>,
    /// Looks whether both made the same, after the first round; what it returns is printed.
    pub check: fn(&Bench) -> anyhow::Result<String>,
}

/// Shell scripts. What is compared is the time they take; or, when the last line one prints is
/// `= NUMBER UNIT`, that.
pub struct Sides {
    /// Ours.
    pub ours: String,
    /// The other program's.
    pub theirs: String,
    /// Before every run of ours, not timed.
    pub before_ours: String,
    /// Before every run of theirs, not timed.
    pub before_theirs: String,
}

impl Comparison {
    /// Runs both in turns and prints medians and the ratio.
    pub fn run(&self, bench: &Bench, rounds: usize) -> anyhow::Result<()> {
        println!("{}: {}", self.name, self.about);
        let sides = (self.setup)(bench)?;
        println!("  ours:   {}\n  theirs: {}", sides.ours.trim(), sides.theirs.trim());
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        let unit = RefCell::new("s".to_owned());
        let timed = |before: &str, script: &str, values: &mut Vec<f64>| -> anyhow::Result<()> {
            bench.run(before)?;
            let started = Instant::now();
            let printed = bench.run(script)?;
            let elapsed = started.elapsed().as_secs_f64();
            values.push(match measured(&printed) {
                Some((value, of)) => {
                    of.clone_into(&mut unit.borrow_mut());
                    value
                }
                None => elapsed,
            });
            Ok(())
        };
        for round in 0..rounds.max(1) {
            // Whoever goes first changes, so that neither always finds the other's cache.
            if round % 2 == 0 {
                timed(&sides.before_theirs, &sides.theirs, &mut theirs)?;
                timed(&sides.before_ours, &sides.ours, &mut ours)?;
            } else {
                timed(&sides.before_ours, &sides.ours, &mut ours)?;
                timed(&sides.before_theirs, &sides.theirs, &mut theirs)?;
            }
            if round == 0 {
                println!("  {}", (self.check)(bench)?.trim());
            }
            println!(
                "  round {}: ours {}, theirs {}",
                round + 1,
                shown(ours[round], &unit.borrow()),
                shown(theirs[round], &unit.borrow())
            );
        }
        let (ours, theirs) = (median(&mut ours), median(&mut theirs));
        let ratio = ours / theirs;
        let verdict = if ratio <= self.target { "met" } else { "missed" };
        println!(
            "  medians: ours {}, theirs {}, ratio {ratio:.3} (target {}: {verdict})",
            shown(ours, &unit.borrow()),
            shown(theirs, &unit.borrow()),
            self.target
        );
        Ok(())
    }
}

/// What a script measured by itself, and its unit.
fn measured(printed: &str) -> Option<(f64, &str)> {
    let (value, unit) = printed.lines().last()?.strip_prefix("= ")?.split_once(' ')?;
    Some((value.parse().ok()?, unit))
}

fn shown(value: f64, unit: &str) -> String {
    if unit == "s" { time(value) } else { format!("{value:.3} {unit}") }
}

/// A time for people.
pub fn time(seconds: f64) -> String {
    if seconds < 1.0 { format!("{:.1} ms", seconds * 1000.0) } else { format!("{seconds:.2} s") }
}

/// The middle one.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_scripts_print() {
        assert_eq!(measured("x\n= 1.5 MiB\n"), Some((1.5, "MiB")));
        assert_eq!(measured("= 1.5 MiB\nx"), None);
        assert_eq!(measured(""), None);
    }

    #[test]
    fn medians() {
        assert!((median(&mut [3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((median(&mut [4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < 1e-9);
    }
}
