//! Compares Millstream with other programs: `cargo run -p millstream-benches -- NAME`.
//!
//! Both sides run in turns on the same machine in the same minutes, so what is worth keeping is the
//! ratio. Build the release binary first: `cargo build --release`.

mod builds;
mod catalogue;
mod compare;
mod delta;
mod fetch;
mod incus;
mod layers;
mod lxc;
mod many;
mod publish;
mod run;
mod serve;

use std::path::PathBuf;

use anyhow::bail;
use clap::Parser;

use compare::Bench;

/// Run comparisons and print medians and ratios
#[derive(Parser)]
struct Arguments {
    /// Which; without names, they are listed
    names: Vec<String>,
    /// Rounds of each
    #[arg(long, short, default_value_t = 3)]
    rounds: usize,
    /// The binary to measure
    #[arg(long, default_value = "target/release/millstream")]
    binary: PathBuf,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let all: Vec<_> = [
        builds::all(),
        fetch::all(),
        delta::all(),
        catalogue::all(),
        publish::all(),
        serve::all(),
        run::all(),
    ]
    .into_iter()
    .flatten()
    .collect();
    let others = [many::MANY, layers::COPIES, layers::COPIES_BTRFS];
    let lines = all.iter().map(|one| (one.name, one.about));
    let known: Vec<_> = lines.chain(others.iter().map(|one| (one.name, one.about))).collect();
    if arguments.names.is_empty() {
        for (name, about) in known {
            println!("{name:16} {about}");
        }
        return Ok(());
    }
    for name in &arguments.names {
        // Each its own, which goes with what it started.
        let bench = Bench::new(&arguments.binary)?;
        if let Some(comparison) = all.iter().find(|one| one.name == name) {
            comparison.run(&bench, arguments.rounds)?;
        } else if let Some(measurement) = others.iter().find(|one| one.name == name) {
            println!("{name}: {}", measurement.about);
            (measurement.run)(&bench, arguments.rounds)?;
        } else {
            let known: Vec<_> = known.iter().map(|(name, _)| *name).collect();
            bail!("unknown comparison {name:?} (valid: {})", known.join(", "));
        }
    }
    Ok(())
}
