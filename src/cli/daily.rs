//! `daily`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::cli::Output;

#[derive(Subcommand)]
#[command(after_help = "\
What to build, and when, stands in server.toml of the configuration directory:

    [[daily]]
    name = \"debian\"
    schedule = \"30 3 * * *\"                 minute hour day month weekday, in UTC
    recipe = \"recipes/debian.yaml\"
    stream = \"/srv/images\"
    matrix = { release = [\"bookworm\", \"trixie\"], variant = [\"default\", \"cloud\"] }
    test = true
    keep = 3

`millstream serve` keeps this schedule as well; docs/daily.md has every setting.")]
pub enum Daily {
    /// Keep the schedule, or build now
    ///
    /// Without --once this builds at the times of the configuration until Ctrl-C or SIGTERM; a time
    /// missed while nothing ran is made up for, once. A build that fails leaves the image before it
    /// published.
    Run {
        #[command(flatten)]
        config: Config,
        /// Only the job of this name
        name: Option<String>,
        /// Build now, once, and return; exits with 1 when a build failed
        #[arg(long)]
        once: bool,
    },
    /// List the jobs of the configuration, and when they are due
    List {
        #[command(flatten)]
        config: Config,
        #[command(flatten)]
        output: Output,
    },
    /// Show what is being built, and what became of each image the last time
    Status {
        /// Only the job of this name
        name: Option<String>,
        /// Show so many of the newest builds instead
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        last: Option<u32>,
        #[command(flatten)]
        output: Output,
    },
}

/// Where it is said what to build.
#[derive(Args)]
pub struct Config {
    /// Settings, TOML [default: server.toml in the configuration directory]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}
