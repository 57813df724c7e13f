//! `pack` and `manifest`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::build::Formats;
use crate::output::Format;

/// Shown below the options of `pack`.
pub const PACK_EXAMPLES: &str = "\
Examples:
  millstream pack /srv/rootfs --out image
  millstream pack rootfs.tar.zst --out image -o image.distribution=mine -o image.release=1
  millstream pack /srv/rootfs --out image --format unified,oci --compression zstd

What the image is comes from -o, else from the recipe given with --metadata, else from os-release
and the programs inside. SOURCE_DATE_EPOCH is honoured; without it the newest file's time is used.";

#[derive(Args)]
pub struct Pack {
    /// Directory or archive of a root file system; only read
    #[arg(value_name = "DIR|TAR")]
    pub source: PathBuf,
    /// Directory that gets the image's files
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Recipe that describes the image; its packages, actions and files but templates are left aside
    #[arg(long, value_name = "RECIPE")]
    pub metadata: Option<PathBuf>,
    /// What the image is, as in -o image.release=bookworm; may be given several times
    ///
    /// Often used: image.distribution, image.release, image.architecture, image.variant,
    /// image.description, image.serial.
    #[arg(short = 'o', value_name = "KEY=VALUE")]
    pub options: Vec<String>,
    #[command(flatten)]
    pub formats: Formats,
    /// Worker threads [default: one per processor]
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
}

#[derive(Subcommand)]
pub enum Manifest {
    /// Show what an image is made of
    Show {
        /// manifest.json, an image's directory, or the directory of its serials in a stream (the newest)
        image: PathBuf,
        /// How to print it
        #[arg(long, value_enum, default_value = "table")]
        format: Format,
    },
    /// Show what changed between two images: packages added, removed, updated; files and their sizes
    Diff {
        /// The older image: manifest.json, an image's directory, or the directory of its serials in a
        /// stream (the newest)
        from: PathBuf,
        /// The newer image; left out, the two newest serials of the first are compared
        to: Option<PathBuf>,
        /// How to print it
        #[arg(long, value_enum, default_value = "table")]
        format: Format,
    },
}
