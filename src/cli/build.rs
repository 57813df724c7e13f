//! `recipe` and `build`.

use std::path::PathBuf;

use super::server::Signing;
use clap::{Args, Subcommand, ValueEnum};

/// Shown below the options of `build`.
pub const BUILD_EXAMPLES: &str = "\
Examples:
  millstream build recipes/debian.yaml
  millstream build recipes/debian.yaml -o image.release=trixie -o image.variant=minimal --out trixie
  millstream build mine.yaml -o source.url=http://mirror.example/debian --format dir --out tree

  millstream build mine.yaml --test --stream /srv/images
  millstream build --verify 20260701_0000 --stream /srv/images

Without source.url the mirror is the one in the host's apt configuration. The cache directory keeps
fetched packages, bootstrapped bases, finished images and logs of failed builds, each up to 8 GiB (50
logs); what is damaged there is made again. Times are clamped to SOURCE_DATE_EPOCH or, without it, to
the time of the newest package.";

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
    #[arg(required_unless_present = "verify")]
    pub file: Option<PathBuf>,
    #[command(flatten)]
    pub resolve: Resolve,
    /// Directory that gets the image's files [default: DIST-RELEASE-ARCH-VARIANT-SERIAL here, or none
    /// with --stream]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    #[command(flatten)]
    pub formats: Formats,
    /// Publish the image into this stream when it is done
    #[arg(long, value_name = "ROOT")]
    pub stream: Option<PathBuf>,
    #[command(flatten)]
    pub signing: Signing,
    /// Tell a program on standard output what happens, and stop when it is gone
    #[arg(long, hide = true, requires = "stream")]
    pub events: bool,
    /// Build also when nothing changed
    ///
    /// Without it an image whose recipe, packages and copied files are the same is used again, from
    /// the cache or the stream, with the serial it has. What scripts fetch themselves is not known to
    /// the builder: use this when that changed.
    #[arg(long)]
    pub force: bool,
    /// Start the image in a container before it appears: init must come up with nothing failed, and
    /// shut down
    ///
    /// systemd, OpenRC, sysvinit, runit and busybox say themselves when they are up and what failed; of
    /// another init it is known that it runs.
    /// A script beside the recipe, named as it with .test.sh in place of .yaml, is run inside by
    /// /bin/sh when the system is up; the test fails unless it exits with 0. An image that fails is
    /// neither kept nor published.
    #[arg(long)]
    pub test: bool,
    /// Give it a network for the test, which eth0 must get an address from
    ///
    /// A bridge of its own with DHCP, gone after the test; for ordinary users, pasta.
    #[arg(long, requires = "test")]
    pub test_network: bool,
    /// Another script for the test
    #[arg(long, value_name = "FILE", requires = "test")]
    pub test_script: Option<PathBuf>,
    /// Seconds the system may take to come up, the script to run, and the system to shut down
    #[arg(long, value_name = "SECONDS", default_value = "120", requires = "test")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=86400))]
    pub test_timeout: u64,
    /// Build nothing; show what would be done and why
    #[arg(long, conflicts_with = "verify")]
    pub explain: bool,
    /// Build an image again from its manifest and compare
    ///
    /// IMAGE is a manifest.json, an image directory, or with --stream the serial of an image there
    /// (and the recipe, if the stream has several of that serial). Packages are taken in the versions
    /// the manifest names as long as the mirror or the cache has them. Exits with 1 when anything
    /// differs.
    #[arg(long, value_name = "IMAGE", conflicts_with_all = ["out", "test", "serial"])]
    pub verify: Option<String>,
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
