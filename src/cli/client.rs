//! `remote` and `image`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use millstream_client::remotes::Protocol;
use millstream_image::Sha256Digest;

use crate::cli::Output;

#[derive(Subcommand)]
pub enum Remote {
    /// Add a server to fetch images from
    ///
    /// The server's catalogue is read and verified at once, so a wrong URL or key fails here. The
    /// first remote becomes the default.
    #[command(after_help = "\
Every stream is pinned to an OpenPGP key: what it does not sign is refused. Without --key, the key
the server offers is shown and confirmed once, on a terminal; compare its fingerprint with one
that you have from elsewhere. LXD, Incus and registries sign nothing: there the server's certificate
is confirmed in the same way, or --insecure-no-signature says that any trusted one will do.

Examples:
  millstream remote add home https://images.example.org
  millstream remote add home https://images.example.org --key 0123456789ABCDEF0123456789ABCDEF01234567
  millstream remote add lab https://10.0.0.5:8443 --ca ca.crt --key lab-key.asc
  millstream remote add disk /srv/stream --key /srv/stream/key.asc
  millstream remote add lxd https://10.0.0.5:8443
  millstream remote add apps https://registry.example.org --insecure-no-signature")]
    Add {
        /// Name for it here, as in NAME:debian/bookworm
        name: String,
        /// Root of its tree: https://..., http://... (signed only), or a directory's absolute path; or an LXD,
        /// an Incus, a registry of OCI images
        url: String,
        /// Public key to pin: a file, or the full fingerprint of the key the server offers
        #[arg(long, value_name = "FILE|FINGERPRINT", conflicts_with = "insecure_no_signature")]
        key: Option<String>,
        /// Certificates of a private authority to trust for this remote, PEM
        #[arg(long, value_name = "FILE")]
        ca: Option<PathBuf>,
        #[command(flatten)]
        reach: Box<Reach>,
        /// Accept documents that nobody signed: then whoever controls the server, or its TLS
        /// certificate, chooses your images. Remembered, and shown in lists
        #[arg(long)]
        insecure_no_signature: bool,
        /// What the server speaks [default: found out by asking]
        #[arg(long, value_enum)]
        protocol: Option<Speaks>,
    },
    /// List remotes
    #[command(visible_alias = "ls")]
    List {
        #[command(flatten)]
        output: Output,
    },
    /// Show a remote, with the keys it is pinned to
    Show {
        /// Its name
        name: String,
        #[command(flatten)]
        output: Output,
    },
    /// Trust another key of a remote, and no longer the ones before
    ///
    /// A key that takes over from another is learned without this, from documents that the old key
    /// signed. This is for keys that were lost or stolen: what was seen under the old key is forgotten.
    SetKey {
        /// Its name
        name: String,
        /// File of the public key, or full fingerprint of the key the server offers
        #[arg(value_name = "FILE|FINGERPRINT")]
        key: String,
    },
    /// Choose the remote that names without a remote mean
    SetDefault {
        /// Its name
        name: String,
    },
    /// Remove remotes; images that came from them stay
    #[command(visible_alias = "rm")]
    Remove {
        /// Their names
        #[arg(required = true)]
        names: Vec<String>,
    },
}

/// How a remote is reached.
#[derive(Args, Default)]
pub struct Reach {
    /// Another server with the same tree, asked when the first fails and beside it for large files. May
    /// be given several times
    #[arg(long, value_name = "URL")]
    pub mirror: Vec<String>,
    /// Proxy for this remote, http://HOST:PORT, or "direct" for none [default: HTTPS_PROXY, HTTP_PROXY,
    /// ALL_PROXY and NO_PROXY of the environment]
    #[arg(long, value_name = "URL")]
    pub proxy: Option<String>,
    /// File with this client's certificate and private key, PEM, mode 0600
    #[arg(long, value_name = "FILE")]
    pub client_certificate: Option<PathBuf>,
    /// File with a bearer token to show to the server, mode 0600
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// File with USER:PASSWORD for a registry or web server that wants a login, mode 0600
    #[arg(long, value_name = "FILE", conflicts_with = "token_file")]
    pub login_file: Option<PathBuf>,
    /// SHA-256 of the one certificate this server may show, as `lxc info` of LXD shows it: for servers that
    /// no authority vouches for
    #[arg(long, value_name = "FINGERPRINT")]
    pub accept_certificate: Option<Sha256Digest>,
}

/// What a remote speaks.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Speaks {
    /// Stream trees: ours, and those of image servers
    Simplestreams,
    /// LXC's index
    Lxc,
    /// The public API of LXD and Incus
    #[value(alias = "incus")]
    Lxd,
    /// A registry of OCI or Docker images
    Oci,
}

impl From<Speaks> for Protocol {
    fn from(speaks: Speaks) -> Self {
        match speaks {
            Speaks::Simplestreams => Self::Simplestreams,
            Speaks::Lxc => Self::Lxc,
            Speaks::Lxd => Self::Lxd,
            Speaks::Oci => Self::Oci,
        }
    }
}

const NAMES: &str = "\
Names: [REMOTE:]ALIAS, [REMOTE:]DIST/RELEASE[/VARIANT][/ARCH], or 6 and more digits of a
fingerprint. Without a remote the local store is asked for an alias or fingerprint, then the
default remote; local: asks the store only. In a registry: REMOTE:REPOSITORY[:TAG][@sha256:HEX].";

#[derive(Subcommand)]
pub enum Image {
    /// List the images of the local store, or those a remote offers
    #[command(
        visible_alias = "ls",
        after_help = "\
Examples:
  millstream image list                              what is here
  millstream image list home:                        what a remote offers for this machine
  millstream image list home: debian variant=default
  millstream image list home: arch=arm64 --format json"
    )]
    List {
        /// REMOTE: (with its colon), then filters: KEY=VALUE on a property, with * for anything, or
        /// a word that is part of an alias or begins a fingerprint
        #[arg(value_name = "REMOTE: | FILTER")]
        filters: Vec<String>,
        /// Of a remote: every architecture and every serial, not only the newest for this machine
        #[arg(short, long)]
        all: bool,
        /// Columns of the table, a letter each: l alias, L all aliases, f and F fingerprint, o os, r release,
        /// v variant, a architecture, n serial, s size, p public, d description, t type, u when it came
        #[arg(short, long, default_value = "lforvans")]
        columns: String,
        #[command(flatten)]
        output: Output,
    },
    /// Change what is said of an image of the local store in an editor, or by YAML on standard input
    Edit {
        /// Image
        image: String,
    },
    /// Show one image
    #[command(visible_alias = "show", after_help = NAMES)]
    Info {
        /// Image
        image: String,
        #[command(flatten)]
        output: Output,
    },
    /// Fetch an image into the local store, verified; prints its fingerprint
    #[command(after_help = NAMES)]
    Copy(CopyImage),
    /// Bring an image into the local store that no remote offers; prints its fingerprint
    #[command(after_help = "\
Examples:
  millstream image import unified.tar.xz --alias mine
  millstream image import lxd.tar.xz rootfs.squashfs os=Mine release=1
  millstream image import ./debian-bookworm-amd64 --alias debian
  millstream image import https://images.example.org/debian/bookworm")]
    Import(ImportImage),
    /// Delete images from the local store, with their aliases
    #[command(visible_alias = "rm")]
    Delete {
        /// Aliases, fingerprints, or 6 and more digits of one
        #[arg(required = true, value_name = "IMAGE")]
        images: Vec<String>,
    },
    /// Give images of the local store names of your own
    #[command(subcommand)]
    Alias(Alias),
    /// Write an image's files into a directory, its fingerprint checked
    #[command(after_help = NAMES)]
    Export {
        /// Image; fetched first if need be
        image: String,
        /// Directory for lxd.tar.xz and rootfs.tar.xz [default: here]
        #[arg(value_name = "DIR", default_value = ".", hide_default_value = true)]
        dir: PathBuf,
    },
    /// Set properties of an image of the local store
    Set {
        /// Image
        image: String,
        /// Properties: an empty value is a value
        #[arg(required = true, value_name = "KEY=VALUE")]
        properties: Vec<String>,
    },
    /// Take properties of an image of the local store away
    Unset {
        /// Image
        image: String,
        /// Their names
        #[arg(required = true, value_name = "KEY")]
        keys: Vec<String>,
    },
    /// Fetch newer serials of images: of those that follow newer ones and are due, or of those named
    ///
    /// A newer image takes over the names of the old one, which goes unless a container was made from
    /// it. Images follow newer ones that were copied with --auto-update, and those that came because
    /// something was started from them, unless images.auto_update_cached is false. They are due
    /// images.auto_update_interval hours after the last look. The systemd timer in systemd/ does this.
    Refresh {
        /// Aliases, fingerprints, or 6 and more digits of one
        #[arg(value_name = "IMAGE", conflicts_with = "all")]
        images: Vec<String>,
        /// All that follow newer ones, also those that are not due
        #[arg(long)]
        all: bool,
    },
    /// Delete images that came only because something was started from them, and lie unused
    ///
    /// Images that containers were made from stay.
    Prune {
        /// Unused for so many days [default: images.remote_cache_expiry, which is 10 unless set; 0 there
        /// keeps all]
        #[arg(long, value_name = "N")]
        days: Option<u32>,
        /// Only say which
        #[arg(long)]
        dry_run: bool,
    },
    /// Hash the images of the local store again, all of them or those named
    Verify {
        /// Aliases, fingerprints, or 6 and more digits of one
        #[arg(value_name = "IMAGE")]
        images: Vec<String>,
    },
}

#[derive(Args)]
pub struct CopyImage {
    /// Image to fetch
    pub source: String,
    /// Where to: the local store
    #[arg(default_value = "local:", hide_default_value = true)]
    pub target: String,
    /// Name for it here; taken from the image that has it. May be given several times
    #[arg(long, value_name = "NAME")]
    pub alias: Vec<String>,
    /// Give it the remote's names as well
    #[arg(long)]
    pub copy_aliases: bool,
    /// Let `image refresh` follow newer serials of it
    #[arg(long)]
    pub auto_update: bool,
    /// It may go when unused
    #[arg(long, hide = true)]
    pub cached: bool,
}

#[derive(Args)]
pub struct ImportImage {
    /// A unified image; a metadata archive; a directory that a build made, or an OCI layout; or https://,
    /// where LXD-Image-URL and LXD-Image-Hash are answered
    pub source: String,
    /// The root file system, where the source is a metadata archive; properties
    #[arg(value_name = "ROOTFS | KEY=VALUE")]
    pub more: Vec<String>,
    /// Name for it here; taken from the image that has it. May be given several times
    #[arg(long, value_name = "NAME")]
    pub alias: Vec<String>,
    /// Mark it as one that everybody may see
    #[arg(long)]
    pub public: bool,
}

#[derive(Subcommand)]
pub enum Alias {
    /// Give an image a name
    Create {
        /// The name
        alias: String,
        /// Image of the local store
        image: String,
    },
    /// Give a name another name
    Rename {
        /// The name
        from: String,
        /// What it is to be
        to: String,
    },
    /// List names
    #[command(visible_alias = "ls")]
    List {
        #[command(flatten)]
        output: Output,
    },
    /// Take names away; the images stay
    #[command(visible_alias = "rm")]
    Delete {
        /// The names
        #[arg(required = true, value_name = "ALIAS")]
        aliases: Vec<String>,
    },
}
