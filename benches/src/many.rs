//! Many containers at once: what each costs in memory, and how fast they start.

use std::collections::BTreeMap;
use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::compare::{Bench, Measurement, median, prefix};
use crate::lxc;

const COUNT: usize = 300;
/// Ours of theirs.
const MEMORY: f64 = 0.7;
const RATE: f64 = 1.0;

pub const MANY: Measurement = Measurement { name: "many", about: "300 busybox containers at once; LXC", run };

/// What one container takes, in KiB.
#[derive(Clone, Copy)]
struct Memory {
    /// Its supervisor's share of memory.
    supervisor: f64,
    /// That of its own processes.
    inside: f64,
    /// What the kernel keeps for it, as its control group counts it.
    kernel: f64,
}

impl Memory {
    fn processes(self) -> f64 {
        self.supervisor + self.inside
    }
}

/// One side.
struct Side {
    name: &'static str,
    start: String,
    stop: String,
    /// What a supervisor's command line begins with.
    supervisor: String,
    /// What the names of control groups of memory begin with, below the hierarchy's root.
    group: String,
    rates: Vec<f64>,
    memory: Vec<Memory>,
}

fn run(bench: &Bench, rounds: usize) -> anyhow::Result<()> {
    lxc::containers(bench, COUNT)?;
    let mut sides = [
        Side {
            name: "ours",
            start: lxc::start_ours(COUNT),
            stop: lxc::stop_ours(COUNT),
            supervisor: format!("ms:{}", prefix()),
            group: format!("millstream/{}", prefix()),
            rates: Vec::new(),
            memory: Vec::new(),
        },
        Side {
            name: "theirs",
            start: lxc::start_theirs(COUNT),
            stop: lxc::stop_theirs(COUNT),
            supervisor: format!("[lxc monitor] {} ", bench.path("lxc").display()),
            group: format!("lxc.payload.{}", prefix()),
            rates: Vec::new(),
            memory: Vec::new(),
        },
    ];
    for round in 0..rounds.max(1) {
        // Whoever goes first changes.
        for turn in 0..2 {
            sides[(round + turn) % 2].measure(bench)?;
        }
    }
    let [ours, theirs] = &mut sides;
    let rate = median(&mut theirs.rates) / median(&mut ours.rates);
    let memory = ours.processes() / theirs.processes();
    let verdict = |ratio: f64, target: f64| if ratio <= target { "met" } else { "missed" };
    println!("  time of a start: ratio {rate:.2} (target {RATE}: {})", verdict(rate, RATE));
    println!("  memory of processes: ratio {memory:.2} (target {MEMORY}: {})", verdict(memory, MEMORY));
    Ok(())
}

impl Side {
    fn measure(&mut self, bench: &Bench) -> anyhow::Result<()> {
        let started = Instant::now();
        bench.run(&self.start)?;
        let rate = COUNT as f64 / started.elapsed().as_secs_f64();
        let memory = self.memory()?;
        bench.run(&self.stop)?;
        eventually(|| self.supervisors(), <[i32]>::is_empty)
            .with_context(|| format!("{}: some did not stop", self.name))?;
        println!(
            "  {}: {rate:.0} starts a second; each {:.0} KiB, of which its supervisor {:.0}; \
             and {:.0} KiB of the kernel's",
            self.name,
            memory.processes(),
            memory.supervisor,
            memory.kernel
        );
        self.rates.push(rate);
        self.memory.push(memory);
        Ok(())
    }

    fn processes(&self) -> f64 {
        median(&mut self.memory.iter().map(|memory| memory.processes()).collect::<Vec<_>>())
    }

    fn supervisors(&self) -> anyhow::Result<Vec<i32>> {
        let mut found = Vec::new();
        for process in processes()? {
            let read = |file: &str| fs::read(format!("/proc/{process}/{file}")).unwrap_or_default();
            let named = |text: Vec<u8>| String::from_utf8_lossy(&text).starts_with(&self.supervisor);
            // LXC's write over their command line, ours have a title.
            if named(read("cmdline")) || named(read("comm")) {
                found.push(process);
            }
        }
        Ok(found)
    }

    fn memory(&self) -> anyhow::Result<Memory> {
        let supervisors = self.supervisors()?;
        if supervisors.len() != COUNT {
            bail!("{}: {} run", self.name, supervisors.len());
        }
        let inside = eventually(|| descendants(&supervisors), |inside| inside.len() == 2 * COUNT)
            .with_context(|| format!("{}: not init and one other in each", self.name))?;
        let each = |all: u64| all as f64 / COUNT as f64;
        let sum = |processes: &[i32]| -> anyhow::Result<f64> {
            Ok(each(processes.iter().map(|process| share(*process)).sum::<anyhow::Result<u64>>()?))
        };
        let kernel = each(self.kernel()? / 1024);
        Ok(Memory { supervisor: sum(&supervisors)?, inside: sum(&inside)?, kernel })
    }

    /// Bytes of all their groups.
    fn kernel(&self) -> anyhow::Result<u64> {
        let (directory, prefix) = self.group.rsplit_once('/').unwrap_or(("", &self.group));
        let root = ["/sys/fs/cgroup/memory", "/sys/fs/cgroup"].into_iter().find(|root| {
            ["memory.kmem.usage_in_bytes", "cgroup.controllers"]
                .iter()
                .any(|file| fs::exists(format!("{root}/{file}")).unwrap_or(false))
        });
        let Some(root) = root else { return Ok(0) };
        let mut bytes = 0;
        for entry in fs::read_dir(format!("{root}/{directory}"))? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(prefix) {
                let v1 = fs::read_to_string(entry.path().join("memory.kmem.usage_in_bytes"));
                let v2 = fs::read_to_string(entry.path().join("memory.stat"));
                let v2 =
                    v2.iter().flat_map(|text| text.lines()).find_map(|line| line.strip_prefix("kernel "));
                let text = v1.ok().or_else(|| v2.map(str::to_owned)).unwrap_or_default();
                bytes += text.trim().parse::<u64>().unwrap_or(0);
            }
        }
        Ok(bytes)
    }
}

fn processes() -> anyhow::Result<Vec<i32>> {
    let entries = fs::read_dir("/proc")?.flatten();
    Ok(entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
}

/// Looks again for a while until what is found is as it should be.
fn eventually(
    look: impl Fn() -> anyhow::Result<Vec<i32>>,
    is_right: impl Fn(&[i32]) -> bool,
) -> anyhow::Result<Vec<i32>> {
    let begin = Instant::now();
    loop {
        let found = look()?;
        if is_right(&found) {
            return Ok(found);
        }
        if begin.elapsed() > Duration::from_mins(1) {
            bail!("after a minute there were {} processes", found.len());
        }
        sleep(Duration::from_millis(200));
    }
}

/// All processes that these have started, and so on.
fn descendants(of: &[i32]) -> anyhow::Result<Vec<i32>> {
    let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    for process in processes()? {
        let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")?.trim().parse().ok());
        if let Some(parent) = parent {
            children.entry(parent).or_default().push(process);
        }
    }
    let mut found = of.to_vec();
    let mut next = 0;
    while let Some(process) = found.get(next) {
        found.extend(children.remove(process).unwrap_or_default());
        next += 1;
    }
    Ok(found.split_off(of.len()))
}

/// Memory of a process in KiB, of what is shared its part.
fn share(process: i32) -> anyhow::Result<u64> {
    let path = format!("/proc/{process}/smaps_rollup");
    let text = fs::read_to_string(&path).with_context(|| path.clone())?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:")?.trim().strip_suffix(" kB"));
    line.and_then(|number| number.parse().ok()).with_context(|| format!("{path} has no Pss"))
}
