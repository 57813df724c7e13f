//! `mirror`.

use std::path::PathBuf;

use clap::{Args, value_parser};

use super::client::Reach;
use crate::output::Format;

#[derive(Args)]
#[command(after_help = "\
Patterns are DIST[/RELEASE[/ARCH[/VARIANT]]] with * ? [...] and {a,b}. Exit status 1 when an image
did not come; what did is published, and the next run tries the rest again.

Examples:
  millstream mirror https://images.example.org /srv/images --key example-key.asc
  millstream mirror https://images.example.org /srv/images --include 'debian/*/amd64' --latest 2
  millstream mirror lab /srv/images --exclude '*/*/*/cloud' --type squashfs --dry-run")]
pub struct Mirror {
    /// The server: the URL or name of a remote, or any other URL with --key or
    /// --insecure-no-signature. It has simplestreams, or LXC's index. With --config the name of a
    /// [[mirror]]
    #[arg(required_unless_present = "config")]
    pub url: Option<String>,
    /// The stream to fill; made when it is not there
    #[arg(required_unless_present = "config", conflicts_with = "config")]
    pub root: Option<PathBuf>,
    /// Do now what [[mirror]] of this configuration asks for at its times, which `serve` keeps: all of
    /// it, or the one named
    #[arg(long, value_name = "FILE", conflicts_with_all = ["include", "exclude", "latest", "types", "key",
        "ca", "insecure_no_signature", "sign_with", "unified", "jobs", "limit_rate", "grace", "dry_run", "format"])]
    pub config: Option<PathBuf>,
    /// Take only what one of these patterns matches
    #[arg(long, value_name = "PATTERN")]
    pub include: Vec<String>,
    /// Leave out what one of these patterns matches
    #[arg(long, value_name = "PATTERN")]
    pub exclude: Vec<String>,
    /// Take, and keep, so many of the newest images of each product
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..))]
    pub latest: Option<u32>,
    /// Take only these root file systems: rootfs, squashfs
    #[arg(long = "type", value_name = "TYPE", value_delimiter = ',')]
    pub types: Vec<String>,
    /// Public key to believe: a file, or the full fingerprint of the key the server offers
    #[arg(long, value_name = "FILE|FINGERPRINT", conflicts_with = "insecure_no_signature")]
    pub key: Option<String>,
    /// Certificates of a private authority to trust, PEM
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    #[command(flatten)]
    pub reach: Reach,
    /// Believe documents that nobody signed, over https
    #[arg(long)]
    pub insecure_no_signature: bool,
    /// Name of the key that signs the copy [default: the one that signs ROOT, or `default`]
    #[arg(long, value_name = "NAME")]
    pub sign_with: Option<String>,
    /// Make unified archives of what comes without, as `stream add --unified`
    #[arg(long)]
    pub unified: bool,
    /// Images fetched at once
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = value_parser!(u8).range(1..=32))]
    pub jobs: u8,
    /// Bytes a second that all downloads together may take, as 10MB
    #[arg(long, value_name = "SIZE", value_parser = rate)]
    pub limit_rate: Option<u64>,
    /// Hours the files of retired images stay
    #[arg(long, value_name = "HOURS", default_value = "24", value_parser = value_parser!(u32).range(..=8760))]
    pub grace: u32,
    /// Only say what would be done
    #[arg(long)]
    pub dry_run: bool,
    /// How to print the summary
    #[arg(long, value_enum, default_value = "table")]
    pub format: Format,
}

fn rate(text: &str) -> Result<u64, String> {
    let bytes = millstream_image::size::parse(text).filter(|bytes| *bytes > 0);
    bytes.ok_or_else(|| millstream_image::size::EXPECTED.to_owned())
}
