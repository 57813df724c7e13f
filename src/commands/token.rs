//! `millstream token`.

use anyhow::{Context, bail};
use millstream_image::atomic;
use millstream_server::token;

use crate::cli::token::Token;
use crate::output;

pub fn run(command: &Token, quiet: bool) -> anyhow::Result<()> {
    let Token::Create { name, out } = command;
    if name.chars().any(char::is_control) {
        bail!("a token's name is one line of text");
    }
    let (token, digest) = token::create();
    match out {
        Some(path) if path.exists() => {
            bail!("{}: there is such a file already; choose another", path.display())
        }
        Some(path) => atomic::write_with_mode(path, format!("{token}\n").as_bytes(), 0o600)
            .with_context(|| format!("cannot write {}", path.display()))?,
        None => {
            output::say(quiet, "keep the token; it is shown this once:");
            output::print(&format!("{token}\n"))?;
        }
    }
    output::say(quiet, "for server.toml:");
    output::print(&format!("tokens = [\"{digest}\"]  # {name}\n"))
}
