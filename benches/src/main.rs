//! Compares Millstream with other programs: `cargo run -p millstream-benches -- NAME`.
//!
//! Both sides run in turns on the same machine in the same minutes, so what is worth keeping is the
//! ratio. Build the release binary first: `cargo build --release`.

mod builds;
mod catalogue;
mod compare;
mod delta;
mod fetch;
mod publish;
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
    let all: Vec<_> =
        [builds::all(), fetch::all(), delta::all(), catalogue::all(), publish::all(), serve::all()]
            .into_iter()
            .flatten()
            .collect();
    if arguments.names.is_empty() {
        for comparison in &all {
            println!("{:16} {}", comparison.name, comparison.about);
        }
        return Ok(());
    }
    let bench = Bench::new(&arguments.binary)?;
    for name in &arguments.names {
        let Some(comparison) = all.iter().find(|comparison| comparison.name == name) else {
            let known: Vec<_> = all.iter().map(|comparison| comparison.name).collect();
            bail!("unknown comparison {name:?} (valid: {})", known.join(", "));
        };
        comparison.run(&bench, arguments.rounds)?;
    }
    Ok(())
}
