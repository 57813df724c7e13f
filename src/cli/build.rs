//! `recipe` and `build`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

/// Shown below the options of `build`.
pub const BUILD_EXAMPLES: &str = "\
Examples:
  millstream build recipes/debian.yaml
  millstream build recipes/debian.yaml -o image.release=trixie -o image.variant=minimal --out trixie
  millstream build mine.yaml -o source.url=http://mirror.example/debian --format dir --out tree

Without source.url the mirror is the one in the host's apt configuration. Fetched packages are kept
in the cache directory and hashed at every use. SOURCE_DATE_EPOCH is honoured.";

#[derive(Subcommand)]
pub enum Recipe {
    /// Report every problem in recipes, with line numbers and the valid choices
    ///
    /// Recipes are distrobuilder's image definitions. What looks like a slip but may be meant is
    /// reported too, without making the recipe invalid.
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
#[derive(Clone, Args)]
pub struct Resolve {
    /// Override a value of the recipe, as in -o image.release=trixie; may be given several times
    ///
    /// Often used: image.release, image.architecture, image.variant, image.serial, source.url,
    /// source.suite, packages.update. The value may itself hold "=".
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
    /// What to make: the image, or only its root file system for a look
    #[arg(long, value_enum, default_value = "image")]
    pub format: BuildFormat,
    /// Worker threads [default: one per processor]
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// Serial of the image, YYYYMMDD_HHMM in UTC; also -o image.serial= [default: now]
    #[arg(long)]
    pub serial: Option<String>,
    /// End a script, with everything it started, after this many seconds
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
