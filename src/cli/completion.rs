//! `completion` and `man`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

pub const EXAMPLES: &str = "\
Examples:
  source <(millstream completion bash)
  millstream completion zsh > /usr/local/share/zsh/site-functions/_millstream
  millstream completion fish > ~/.config/fish/completions/millstream.fish";

#[derive(Args)]
pub struct Completion {
    /// The shell
    #[arg(value_enum)]
    pub shell: Shell,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum Shell {
    Bash,
    Zsh,
    Fish,
}

impl Shell {
    pub fn name(self) -> &'static str {
        match self {
            Self::Bash => "bash",
            Self::Zsh => "zsh",
            Self::Fish => "fish",
        }
    }
}

#[derive(Args)]
pub struct Man {
    /// Made if missing; files of those names are replaced
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
}
