//! Whether snapshots and copies take the same time whatever a container's size.

use std::time::Instant;

use anyhow::bail;

use crate::compare::{Bench, Measurement, median, prefix, time};
use crate::lxc;

/// Own files of the two containers, in MiB.
const SIZES: [usize; 2] = [10, 1000];
/// What counts as constant: the larger one's time, of the smaller one's.
const TARGET: f64 = 1.5;

pub const COPIES: Measurement = Measurement {
    name: "copies",
    about: "snapshot and copy of containers with 10 MB and 1 GB of their own files",
    run,
};

pub const COPIES_BTRFS: Measurement = Measurement {
    name: "copies-btrfs",
    about: "the same on btrfs, in an image file",
    run: |bench, rounds| {
        bench.run(
            "truncate -s 12G disk && mkfs.btrfs -q disk && mkdir -p state && mount -o loop disk state",
        )?;
        bench.at_end("umount state");
        run(bench, rounds)
    },
};

fn run(bench: &Bench, rounds: usize) -> anyhow::Result<()> {
    lxc::containers(bench, SIZES.len())?;
    for what in ["snapshot", "copy", "snapshot of one that runs"] {
        let running = what.ends_with("runs");
        let mut times = [Vec::new(), Vec::new()];
        for round in 0..rounds.max(1) {
            for (number, size) in SIZES.into_iter().enumerate() {
                let name = format!("{}{}", prefix(), number + 1);
                fill(bench, &name, size, round, running)?;
                let started = Instant::now();
                match what {
                    "copy" => bench.run(&format!("$MILLSTREAM -q copy {name} ${{C}}9"))?,
                    _ => bench.run(&format!("$MILLSTREAM -q snapshot {name} kept"))?,
                };
                times[number].push(started.elapsed().as_secs_f64());
                if what == "copy" {
                    check(bench, "${C}9", size)?;
                    bench.run("$MILLSTREAM -q delete ${C}9")?;
                } else {
                    bench.run(&format!("$MILLSTREAM -q delete {name}/kept"))?;
                }
            }
        }
        let [small, large] = times.each_mut().map(|times| median(times));
        let ratio = large / small;
        let verdict = if ratio <= TARGET { "constant" } else { "not constant" };
        println!(
            "  {what}: {} MiB in {}, {} MiB in {}, ratio {ratio:.2} ({verdict})",
            SIZES[0],
            time(small),
            SIZES[1],
            time(large)
        );
    }
    Ok(())
}

/// Gives a container so many MiB of its own, all written since the last snapshot. It ends as it shall be.
fn fill(bench: &Bench, name: &str, size: usize, round: usize, running: bool) -> anyhow::Result<()> {
    bench.run(&format!(
        "$MILLSTREAM -q start {name} 2>/dev/null || true
         $MILLSTREAM exec {name} -- dd if=/dev/urandom of=/root/file bs=1M count={size} < /dev/null 2>/dev/null
         $MILLSTREAM exec {name} -- sh -c 'echo {round} > /root/round' < /dev/null
         {}
         sync",
        if running { "" } else { "$MILLSTREAM -q stop -f $NAME" }.replace("$NAME", name)
    ))?;
    Ok(())
}

fn check(bench: &Bench, name: &str, size: usize) -> anyhow::Result<()> {
    let script = format!(
        "$MILLSTREAM -q start {name}
         $MILLSTREAM exec {name} -- ls -l /root/file < /dev/null
         $MILLSTREAM -q stop --force {name}"
    );
    let shown = bench.run(&script)?;
    if !shown.contains(&(size << 20).to_string()) {
        bail!("the copy has {shown}");
    }
    Ok(())
}
