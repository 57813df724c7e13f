//! `token`.

use std::path::PathBuf;

use clap::Subcommand;

#[derive(Subcommand)]
#[command(after_help = "\
The server keeps the token's SHA-256 alone, in server.toml:

    [[access]]
    path = \"/images/debian\"     # \"/\" is everything
    right = \"read\"
    tokens = [\"SHA-256\"]         # certificates = [\"SHA-256\"] takes client certificates")]
pub enum Token {
    /// Make a token; prints it once, and the line for server.toml
    Create {
        /// What it is for, as a remark in the configuration
        name: String,
        /// Write the token to this file (mode 0600) instead of printing it
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
}
