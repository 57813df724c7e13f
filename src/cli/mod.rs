//! The command line: names, arguments and help, nothing else. One module a group of commands.

pub mod build;
pub mod client;
pub mod completion;
pub mod daily;
pub mod files;
pub mod instance;
pub mod lxc_template;
pub mod mirror;
pub mod network;
pub mod pack;
pub mod push;
pub mod server;
pub mod settings;
pub mod storage;
pub mod store;
pub mod token;
pub mod up;
pub mod upstream;

use clap::{Parser, Subcommand};

use crate::output::Format;

/// Build, sign, serve, fetch and run Linux system-container images
#[derive(Parser)]
#[command(
    name = "millstream",
    version,
    max_term_width = 100,
    after_help = "\
Files: root keeps settings in /etc/millstream, images and containers in /var/lib/millstream,
packages in /var/cache/millstream; other users in the XDG directories. MILLSTREAM_DIR=DIR puts
all three under DIR.

Exit status: 0 done, 1 failed, 2 wrong usage."
)]
pub struct Cli {
    /// Print errors and results only
    #[arg(short, long, global = true)]
    pub quiet: bool,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    /// Build, sign, publish and serve in one go; says what to type next
    Up(up::Up),
    /// Check and show image recipes
    #[command(subcommand)]
    Recipe(build::Recipe),
    /// Build an image from a recipe
    ///
    /// Makes a directory with rootfs.tar.xz, meta.tar.xz (LXC), lxd.tar.xz and incus.tar.xz
    /// (metadata for LXD and Incus), manifest.json, SHA256SUMS, sbom.spdx.json and build.log, or
    /// what --format says. It appears complete or not at all. Nothing but the kernel is needed on the host: packages are verified, unpacked
    /// and configured without its tools. An ordinary user needs subordinate ids (/etc/subuid) and
    /// the package uidmap, nothing else; the image has the same bytes.
    #[command(after_help = build::BUILD_EXAMPLES)]
    Build(build::Build),
    /// Make an image from a root file system that exists already
    ///
    /// Reads a directory or an archive and makes what `build` would have made of it. Neither is
    /// written to. As an ordinary user, whose own files are root's in the image.
    #[command(after_help = pack::PACK_EXAMPLES)]
    Pack(pack::Pack),
    /// Show what images are made of, and what changed between two
    #[command(subcommand)]
    Manifest(pack::Manifest),
    /// Keep a tree of signed images: add, list, verify, sign
    #[command(subcommand)]
    Stream(server::Stream),
    /// Make, list and export signing keys
    #[command(subcommand)]
    Key(server::Key),
    /// Make tokens for private areas
    #[command(subcommand)]
    Token(token::Token),
    /// Serve a stream over HTTPS
    Serve(server::Serve),
    /// Build images at set times, as the configuration says
    #[command(subcommand)]
    Daily(daily::Daily),
    /// Fill a stream with what another server offers, signed with a key of your own
    Mirror(mirror::Mirror),
    /// Manage the servers images come from
    #[command(subcommand)]
    Remote(client::Remote),
    /// Find, fetch and keep images
    #[command(subcommand)]
    Image(client::Image),
    /// Look after the place where images are kept
    #[command(subcommand)]
    Store(store::Store),
    /// Print the script that completes commands and names in a shell
    ///
    /// `cargo xtask install` puts it where the shells look. Remotes, aliases, fingerprints and containers
    /// are completed as they are at that moment.
    #[command(after_help = completion::EXAMPLES)]
    Completion(completion::Completion),
    /// Write the man pages into a directory
    Man(completion::Man),
    #[command(flatten)]
    Instance(instance::Instance),
}

/// How lists and objects are printed.
#[derive(Clone, Copy, clap::Args)]
pub struct Output {
    /// How to print it
    #[arg(long, value_enum, default_value = "table")]
    pub format: Format,
}
