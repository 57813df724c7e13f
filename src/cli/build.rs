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
    #[command(flatten)]
    pub formats: Formats,
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

/// What is made of a root file system.
#[derive(Args)]
pub struct Formats {
    /// What to make; several with commas
    ///
    /// image: what a stream holds, that is lxc, lxd and incus;
    /// lxc: rootfs.tar.xz and meta.tar.xz;
    /// lxd, incus: rootfs.tar.xz and lxd.tar.xz or incus.tar.xz;
    /// squashfs: rootfs.squashfs, lxd.tar.xz and incus.tar.xz (needs mksquashfs on the host);
    /// unified: unified.tar.xz for LXD and Incus;
    /// oci, oci-tar: an OCI image layout in oci/ or in oci.tar;
    /// tar: rootfs.tar.xz;
    /// dir: rootfs/
    #[arg(long, value_name = "FORMAT", value_delimiter = ',', default_value = "image")]
    #[arg(value_parser = ["image", "lxc", "lxd", "incus", "squashfs", "unified", "oci", "oci-tar", "tar", "dir"])]
    pub format: Vec<String>,
    /// Compression of archives: none, gzip, zstd or xz, each with :LEVEL [default: xz; gzip for OCI]
    ///
    /// Files are named by it: rootfs.tar.zst. Streams hold xz only.
    #[arg(long, value_name = "NAME[:LEVEL]")]
    pub compression: Option<millstream_builder::format::Setting>,
}
