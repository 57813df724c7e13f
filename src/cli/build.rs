//! `recipe` and `build`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

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
