//! `serve --upstream`.

use std::path::PathBuf;

use clap::Args;

/// Where images come from that are not here yet.
#[derive(Args, Default)]
pub struct Pull {
    /// Offer what this server has, signed anew, and fetch each file when it is first asked for. ROOT
    /// must be an empty stream, is made when it is not there, and holds what came
    #[arg(long, value_name = "URL")]
    pub upstream: Option<String>,
    /// Public key to believe it by: a file, or the full fingerprint of the key it offers
    #[arg(long, value_name = "FILE|FINGERPRINT", conflicts_with = "upstream_insecure_no_signature")]
    pub upstream_key: Option<String>,
    /// Certificates of a private authority to trust for it, PEM
    #[arg(long, value_name = "FILE")]
    pub upstream_ca: Option<PathBuf>,
    /// Believe documents of it that nobody signed, over https
    #[arg(long)]
    pub upstream_insecure_no_signature: bool,
    /// Most bytes of its files kept, as 50GB; the longest unused leave first [default: no limit]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub cache_size: Option<u64>,
}

fn size(text: &str) -> Result<u64, String> {
    let bytes = millstream_image::size::parse(text).filter(|bytes| *bytes > 0);
    bytes.ok_or_else(|| millstream_image::size::EXPECTED.to_owned())
}
