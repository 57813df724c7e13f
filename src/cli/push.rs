//! `stream add --to`.

use std::path::PathBuf;

use clap::Args;

/// A server to push to.
#[derive(Args)]
pub struct Destination {
    /// Push to this server instead: its URL, or the name of a remote, whose certificates and token then count
    #[arg(long, value_name = "URL|REMOTE", conflicts_with_all = ["key", "valid"])]
    pub to: Option<String>,
    /// File with a bearer token to show to the server, mode 0600
    #[arg(long, value_name = "FILE", requires = "to")]
    pub token_file: Option<PathBuf>,
    /// File with this builder's certificate and private key, PEM, mode 0600
    #[arg(long, value_name = "FILE", requires = "to")]
    pub client_certificate: Option<PathBuf>,
    /// Certificates of a private authority to trust, PEM
    #[arg(long, value_name = "FILE", requires = "to")]
    pub ca: Option<PathBuf>,
    /// Proxy, http://HOST:PORT, or "direct" for none [default: HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and
    /// NO_PROXY of the environment]
    #[arg(long, value_name = "URL", requires = "to")]
    pub proxy: Option<String>,
}
