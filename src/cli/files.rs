//! `file`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Subcommand)]
pub enum File {
    /// Copy files out of a container
    Pull(Pull),
    /// Copy files into a container
    Push(Push),
    /// Change a file of a container in an editor
    Edit {
        /// File, as CONTAINER/PATH
        file: String,
    },
}

#[derive(Args)]
pub struct Pull {
    /// Files, as CONTAINER/PATH
    #[arg(required = true, value_name = "CONTAINER/PATH")]
    pub files: Vec<String>,
    /// Where to: a file, a directory to put them in, or - for standard output
    pub target: PathBuf,
    /// Take directories with everything below
    #[arg(short, long)]
    pub recursive: bool,
}

#[derive(Args)]
pub struct Push {
    /// Files, or - for standard input
    #[arg(required = true)]
    pub sources: Vec<PathBuf>,
    /// Where to, as CONTAINER/PATH; a directory gets them in it
    #[arg(value_name = "CONTAINER/PATH")]
    pub target: String,
    /// Whose they become, by the container's numbers
    #[arg(long, value_name = "UID", default_value = "0")]
    pub uid: u32,
    /// Their group
    #[arg(long, value_name = "GID", default_value = "0")]
    pub gid: u32,
    /// Their permissions, as in 0755 [default: those they have; 0644 from standard input]
    #[arg(long, value_parser = mode)]
    pub mode: Option<u32>,
    /// Make missing directories on the way
    #[arg(short = 'p', long)]
    pub create_dirs: bool,
    /// Take directories with everything below
    #[arg(short, long)]
    pub recursive: bool,
}

fn mode(text: &str) -> Result<u32, String> {
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777);
    mode.ok_or_else(|| "should be octal, as in 0755".to_owned())
}
