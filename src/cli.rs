//! The command line: names, arguments and help, nothing else.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Build Linux system-container images.
#[derive(Parser)]
#[command(
    name = "millstream",
    version,
    max_term_width = 100,
    after_help = "\
Files: packages are cached in /var/cache/millstream; MILLSTREAM_DIR=DIR puts that under DIR.

Exit status: 0 done, 1 failed, 2 wrong usage."
)]
pub struct Cli {
    /// Print errors and results only
    #[arg(short, long, global = true)]
    pub quiet: bool,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    /// Check and show image recipes
    #[command(subcommand)]
    Recipe(Recipe),
    /// Build an image from a recipe
    ///
    /// Needs nothing on the host but the kernel, and root.
    Build(Build),
}

#[derive(Subcommand)]
pub enum Recipe {
    /// Report every problem in recipes, with line numbers
    Validate {
        /// Recipe files
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Print a recipe as it will be built: after defaults, overrides and filters
    Show {
        /// Recipe file
        file: PathBuf,
        #[command(flatten)]
        resolve: Resolve,
    },
}

/// What picks one image out of a recipe.
#[derive(Args)]
pub struct Resolve {
    /// Override a recipe value, as in -o image.release=trixie or -o source.url=URL
    #[arg(short = 'o', value_name = "KEY=VALUE")]
    pub options: Vec<String>,
    /// Kind of image
    #[arg(long = "type", value_enum, default_value = "container")]
    pub kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// System container
    Container,
    /// Virtual machine
    Vm,
}

#[derive(Args)]
pub struct Build {
    /// Recipe file
    pub file: PathBuf,
    #[command(flatten)]
    pub resolve: Resolve,
    /// Directory that gets the image's files [default: DIST-RELEASE-ARCH-VARIANT-SERIAL here]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// What to make
    #[arg(long, value_enum, default_value = "image")]
    pub format: BuildFormat,
    /// Worker threads [default: one per processor]
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// Serial of the image, YYYYMMDD_HHMM in UTC [default: now]
    #[arg(long)]
    pub serial: Option<String>,
    /// Stop a script of the recipe after this many seconds
    #[arg(long, value_name = "SECONDS", default_value = "1800")]
    pub script_timeout: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BuildFormat {
    /// rootfs.tar.xz with the metadata of LXC, LXD and Incus
    Image,
    /// The root file system as a directory
    Dir,
}
