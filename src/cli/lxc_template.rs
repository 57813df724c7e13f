//! The arguments of an LXC template: those of LXC's own `download`, and those LXC adds.

use std::path::{Path, PathBuf};

use clap::Parser;

/// Create an LXC container from a verified image
#[derive(Parser)]
#[command(
    name = "lxc-millstream",
    version,
    max_term_width = 100,
    override_usage = "lxc-create -t millstream -n NAME -- [OPTIONS]",
    after_help = "\
The server is a remote of `millstream remote list`, by name, host or URL: so its images are those
that the pinned key signed. An unknown server is added: on a terminal after its key was shown and
confirmed, else with --key; a server without signatures only with --no-validate. That is asked once.

Examples:
  lxc-create -t millstream -n web1 -- -d debian -r bookworm -a amd64
  lxc-create -t millstream -n web1 -- --server home -d debian -r bookworm
  lxc-create -t millstream -n web1 -- --server images.example.org --list"
)]
pub struct LxcTemplate {
    /// Distribution, asked for when missing
    #[arg(short, long)]
    pub dist: Option<String>,
    /// Release, asked for when missing
    #[arg(short, long)]
    pub release: Option<String>,
    /// Architecture, asked for when missing
    #[arg(short, long)]
    pub arch: Option<String>,
    /// Variant of the image
    #[arg(long, default_value = "default")]
    pub variant: String,
    /// Image server: a remote's name, a host, or a URL [default: the default remote]
    #[arg(long)]
    pub server: Option<String>,
    /// List the images and exit
    #[arg(short, long)]
    pub list: bool,
    /// Remove the copy here first, and fetch the image again
    #[arg(long)]
    pub flush_cache: bool,
    /// Use the copy here even if it has expired, without asking the server
    #[arg(long, conflicts_with = "flush_cache")]
    pub force_cache: bool,
    /// Of a server that is not known yet: its public key, a file or a full fingerprint
    #[arg(long, value_name = "FILE|FINGERPRINT", conflicts_with = "no_validate")]
    pub key: Option<String>,
    /// Of a server that is not known yet: accept images that nobody signed. Remembered
    #[arg(long)]
    pub no_validate: bool,

    /// Container's name
    #[arg(long, help_heading = "Passed by LXC")]
    pub name: Option<String>,
    /// Container's directory
    #[arg(long, help_heading = "Passed by LXC")]
    pub path: Option<PathBuf>,
    /// Directory of its root file system
    #[arg(long, help_heading = "Passed by LXC")]
    pub rootfs: Option<PathBuf>,
    /// The caller's user id within the container's user namespace
    #[arg(long, help_heading = "Passed by LXC", allow_negative_numbers = true)]
    pub mapped_uid: Option<i64>,
    /// The caller's group id within the container's user namespace
    #[arg(long, help_heading = "Passed by LXC", allow_negative_numbers = true)]
    pub mapped_gid: Option<i64>,
    /// Only fetch, and print where the files are
    #[arg(long, hide = true)]
    pub fetch_only: bool,
}

impl LxcTemplate {
    /// Whether the program was called by the name of a template.
    pub fn is_called() -> bool {
        Self::called_as().is_some_and(|name| name.file_name().is_some_and(|name| name == "lxc-millstream"))
    }

    /// The directory that LXC keeps beside its templates: `config` and `hooks` are in it.
    pub fn share() -> Option<PathBuf> {
        let templates = Self::called_as()?.parent()?.to_owned();
        let share = templates.parent().map(Path::to_owned)?;
        (templates.ends_with("templates") && share.join("config").is_dir()).then_some(share)
    }

    fn called_as() -> Option<PathBuf> {
        std::env::args_os().next().map(PathBuf::from)
    }
}
