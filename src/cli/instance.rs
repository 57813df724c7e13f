//! Containers: their life, commands in them, looking at them.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Output;

#[derive(Subcommand)]
pub enum Instance {
    /// Create a container from an image and start it
    #[command(after_help = LAUNCH_HELP)]
    Launch(Create),
    /// Create a container from an image without starting it
    #[command(after_help = LAUNCH_HELP)]
    Create(Create),
    /// Start containers
    ///
    /// Returns when their init runs; services come up after that.
    Start(Start),
    /// Stop containers
    ///
    /// Asks a container's init to shut down. A container that has not done so in time is killed.
    Stop(Stop),
    /// Stop containers and start them again
    Restart(Stop),
    /// Freeze all processes of containers
    Pause(Names),
    /// Let paused containers go on
    Resume(Names),
    /// Delete containers with all their files, or single snapshots
    #[command(visible_alias = "rm")]
    Delete(Delete),
    /// List containers
    #[command(visible_alias = "ls")]
    List(List),
    /// Show everything about containers
    Info(Info),
    /// Run a command in a container
    ///
    /// The exit status is the command's: 128 and the number if a signal ended it, 127 if there is no
    /// such program. The command gets a terminal when standard input and output are one; else it
    /// reads and writes what millstream was given.
    #[command(after_help = EXEC_HELP)]
    Exec(Exec),
    /// Keep what a container is now, to go back to or to copy from
    ///
    /// Takes the same time whatever the size, unless the container runs. Prints the snapshot's name.
    Snapshot(super::storage::TakeSnapshot),
    /// Make a container what it was when a snapshot was taken
    Restore(super::storage::Restore),
    /// Make a container like another one
    ///
    /// Takes the same time whatever the size.
    #[command(visible_alias = "cp")]
    Copy(super::storage::Copy),
    /// Make an image of a container or a snapshot
    ///
    /// It enters the local store, and its fingerprint is printed.
    Publish(super::storage::Publish),
    /// Give a container another name
    #[command(visible_alias = "mv")]
    Rename(super::storage::Rename),
    /// Copy files into containers and out of them
    ///
    /// Containers need not run. No link in a container leads out of it.
    #[command(subcommand)]
    File(super::files::File),
    /// Show what came on a container's console
    Logs(Logs),
    /// Connect the terminal to a container's console
    ///
    /// Ctrl-a q disconnects, Ctrl-a twice is one Ctrl-a for the container. Several terminals may be
    /// connected; all see the same, and the console has the size of the one that changed last.
    Console(Console),
    /// Show, set and unset what a container may use and how it runs
    #[command(subcommand, after_help = super::settings::KEYS)]
    Config(super::settings::Config),
    /// Keep settings that several containers share
    #[command(subcommand)]
    Profile(super::settings::Profile),
    /// Keep networks that containers are on
    #[command(subcommand, after_help = super::network::KEYS)]
    Network(super::network::Network),
    /// Show what this host offers for containers, and what is missing
    ///
    /// Exits with 1 if something is missing without which no container runs.
    Check(Output),
    /// Open a login shell in a container
    ///
    /// Runs the login shell that the container's /etc/passwd gives the user.
    Shell(Shell),
}

const LAUNCH_HELP: &str = "\
IMAGE is an image of the store or of a remote, or a directory as `millstream build` leaves it. A
directory is written with a slash: ./debian or /srv/images/debian.

Examples:
  millstream launch debian/bookworm web1
  millstream launch ./debian-bookworm-amd64-default-20260101_0000 web1";

const EXEC_HELP: &str = "\
Examples:
  millstream exec web1 -- systemctl is-system-running
  millstream exec web1 --env TERM=xterm --cwd /etc -- ls -l
  tar c . | millstream exec web1 -- tar x -C /srv";

#[derive(Args)]
pub struct Create {
    /// Image to make it from
    pub image: String,
    /// Name of the container, also its host name: letters, digits and hyphens [default: a random one]
    pub name: Option<String>,
    /// Set a key of its configuration
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub config: Vec<String>,
    /// Give it a profile instead of `default`; may be repeated
    #[arg(short, long, value_name = "PROFILE")]
    pub profile: Vec<String>,
    /// Delete it when it stops
    #[arg(short, long)]
    pub ephemeral: bool,
    /// Give it a copy of the image instead of sharing the unpacked one
    ///
    /// Slower and larger. Done by itself where kernel or file system cannot map ids.
    #[arg(long)]
    pub copy_image: bool,
}

#[derive(Args)]
pub struct Names {
    /// Containers
    #[arg(required = true, value_name = "NAME")]
    pub names: Vec<String>,
}

#[derive(Args)]
pub struct Start {
    /// Containers
    #[arg(required_unless_present = "all_autostart", value_name = "NAME")]
    pub names: Vec<String>,
    /// All with boot.autostart, in the order of boot.autostart.priority
    #[arg(long, conflicts_with = "names")]
    pub all_autostart: bool,
}

#[derive(Args)]
pub struct Logs {
    /// Container
    pub name: String,
    /// Of the run before this one
    #[arg(long)]
    pub previous: bool,
}

#[derive(Args)]
pub struct Console {
    /// Container
    pub name: String,
    /// Print what came on it so far instead, as `logs` does
    #[arg(long)]
    pub show_log: bool,
}

#[derive(Args)]
pub struct Stop {
    /// Containers
    #[arg(required_unless_present = "all", value_name = "NAME")]
    pub names: Vec<String>,
    /// All that run
    #[arg(long, conflicts_with = "names")]
    pub all: bool,
    /// Kill it at once
    #[arg(short, long, conflicts_with = "timeout")]
    pub force: bool,
    /// Seconds to wait before it is killed
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = clap::value_parser!(u64).range(1..=86400))]
    pub timeout: u64,
}

#[derive(Args)]
pub struct Delete {
    /// Containers, or CONTAINER/SNAPSHOT
    #[arg(required = true, value_name = "NAME")]
    pub names: Vec<String>,
    /// Kill running ones first
    #[arg(short, long)]
    pub force: bool,
}

#[derive(Args)]
pub struct List {
    /// Show only these: how a name begins, a pattern as in 'web*', or key=value as in status=running
    ///
    /// Of several names any fits; every key must. Keys are name, status (or state), type,
    /// architecture, image, ipv4, ipv6 and those of the configuration, which may be shortened:
    /// user.colour=red, u.c=r*, boot.autostart=true. Values may be patterns.
    #[arg(value_name = "FILTER")]
    pub filters: Vec<String>,
    /// Columns of the table: letters, and keys of the configuration as KEY[:HEADING[:WIDTH]], after a comma
    ///
    /// 4 and 6 addresses, a architecture, c created, d description, D disk usage, f and F fingerprint of
    /// the image, i image, l last used, m memory, n name, N processes, p process id, P profiles,
    /// s status, S snapshots, t type, u processor time in seconds. As in: nsm,user.owner:OWNER:12
    #[arg(short, long, default_value = "ns46pci")]
    pub columns: String,
    /// Ask running containers for nothing: the columns nsacPt
    #[arg(long, conflicts_with = "columns")]
    pub fast: bool,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Args)]
pub struct Info {
    #[command(flatten)]
    pub names: Names,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Args)]
pub struct Exec {
    /// Container
    pub name: String,
    /// Program and arguments, after --
    #[arg(required = true, last = true, value_name = "COMMAND")]
    pub command: Vec<String>,
    #[command(flatten)]
    pub how: How,
    /// Give it a terminal (needs one on standard input)
    #[arg(short = 't', long, overrides_with = "no_terminal")]
    pub terminal: bool,
    /// Give it no terminal
    #[arg(short = 'T', long)]
    pub no_terminal: bool,
}

#[derive(Args)]
pub struct Shell {
    /// Container
    pub name: String,
    #[command(flatten)]
    pub how: How,
}

/// As whom and where a command runs.
#[derive(Args)]
pub struct How {
    /// Set an environment variable
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub env: Vec<String>,
    /// User id inside the container, with its group id if another
    #[arg(short, long, value_name = "UID[:GID]", default_value = "0")]
    pub user: String,
    /// Directory to start in [default: the user's home]
    #[arg(long, value_name = "DIR")]
    pub cwd: Option<PathBuf>,
}
