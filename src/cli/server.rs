//! `stream`, `key` and `serve`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use crate::cli::Output;

#[derive(Subcommand)]
#[command(after_help = "\
A stream is a directory of signed images that any static web server can serve:

    millstream stream init /srv/images
    millstream build recipes/debian.yaml --out image
    millstream stream add /srv/images image
    millstream serve --root /srv/images

Images may be published while the stream is served; readers see the old set or the new one.
In place of the directory s3://BUCKET/PREFIX keeps the stream in a bucket, for several publishers and
servers, with the usual AWS_* variables.")]
pub enum Stream {
    /// Make a directory a stream
    ///
    /// Makes the signing key `default` when there is no key yet. Clients pin this key: keep a copy
    /// of its secret file in a safe place.
    Init {
        /// Directory, new or empty
        root: PathBuf,
        #[command(flatten)]
        signing: Signing,
    },
    /// Publish images that `millstream build` made
    ///
    /// With --to they go to a server, which checks, signs and publishes them with its own key; what was cut
    /// off goes on when the same is typed again. Otherwise every file is checked against the image's manifest, signed and put into the tree; then all
    /// documents change together. An image that the stream has already is passed over. Where the
    /// file system allows it the tree shares its files with DIR: remove DIR when you like, but do
    /// not change files in it.
    #[command(
        override_usage = "millstream stream add [OPTIONS] <ROOT> <DIR>...\n       \
            millstream stream add [OPTIONS] --to <URL|REMOTE> <DIR>...",
        after_help = "\
Examples:
  millstream stream add /srv/images image
  millstream stream add --to https://images.example.org --token-file token image"
    )]
    Add {
        /// The stream; left out with --to
        root: PathBuf,
        /// Directories of finished builds
        #[arg(required_unless_present = "to", value_name = "DIR")]
        images: Vec<PathBuf>,
        #[command(flatten)]
        to: super::push::Destination,
        /// Make deltas from this many serials before; 0 for none
        ///
        /// A client that has one of them fetches the delta instead of the image. Each takes some
        /// seconds and at most two minutes; those that would not save half are left out. For
        /// squashfs images the tool xdelta3 makes deltas that LXD and Incus read.
        #[arg(long, value_name = "N", default_value_t = 3, conflicts_with = "to")]
        deltas: usize,
        /// Make a unified archive of metadata and root file system, unless DIR brings one
        ///
        /// `lxc image import https://HOST/direct/ALIAS` and Incus' take nothing else. It is as large as the
        /// root file system again and takes as long to compress; LXD and Incus then launch from it, too.
        #[arg(long, conflicts_with = "unsigned")]
        unified: bool,
        /// Leave signing to a machine that has the key
        ///
        /// The image is checked and waits in the tree, where readers do not see it, until `stream sign`
        /// signs and publishes it. ROOT needs no key and may be new: `stream init` completes it later.
        #[arg(long, conflicts_with_all = ["key", "valid", "to"])]
        unsigned: bool,
        #[command(flatten)]
        signing: Signing,
    },
    /// List a stream's images
    List {
        /// The stream
        root: PathBuf,
        #[command(flatten)]
        output: Output,
    },
    /// Show one image with its files, sources and digests
    Show {
        /// The stream
        root: PathBuf,
        /// Image: DIST/RELEASE/ARCH/VARIANT[/SERIAL], an alias, or the first digits of a fingerprint
        image: String,
        #[command(flatten)]
        output: Output,
    },
    /// Take images out of the documents; their files go after a grace period
    #[command(visible_alias = "rm")]
    Remove {
        /// The stream
        root: PathBuf,
        /// Images: DIST/RELEASE/ARCH/VARIANT/SERIAL, an alias, or the first digits of a fingerprint
        #[arg(required = true, value_name = "IMAGE")]
        images: Vec<String>,
        #[command(flatten)]
        grace: Grace,
        #[command(flatten)]
        signing: Signing,
    },
    /// Retire old images, and clear away image directories that nothing lists
    ///
    /// The newest image of each product always stays; any other stays that --keep or --days keeps.
    /// Without both, only what left the documents earlier is cleared away. Downloads under way may
    /// finish: files stay for the grace period, then the next command that publishes removes them.
    #[command(after_help = "\
Examples:
  millstream stream prune /srv/images --keep 3 --days 14 --dry-run
  millstream stream prune /srv/images --keep 3 --days 14")]
    Prune {
        /// The stream
        root: PathBuf,
        /// Keep so many of the newest images of each product
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        keep: Option<u32>,
        /// Keep images made within so many days
        #[arg(long, value_name = "D")]
        days: Option<u32>,
        /// Only say what would be done
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        grace: Grace,
        #[command(flatten)]
        signing: Signing,
        #[command(flatten)]
        output: Output,
    },
    /// Check every hash, signature and reference, and look for stray files
    ///
    /// Exits with 1 when anything is wrong; each problem is printed with its path. With --repair the
    /// documents are then published anew from what is there and whole: damaged images leave them,
    /// their files stay. What is still wrong after that is printed.
    Verify {
        /// The stream
        root: PathBuf,
        /// Publish documents that say what is there and whole
        #[arg(long)]
        repair: bool,
        #[command(flatten)]
        signing: Signing,
        #[command(flatten)]
        output: Output,
    },
    /// Sign what waits for it, and the documents anew, so that they expire later
    ///
    /// Clients refuse documents that have expired, as a frozen mirror would show them. Run this daily
    /// with --if-due, or let `serve` do it (resign = true in server.toml). Images that came with
    /// `stream add --unsigned` are checked, signed and published. After `key rotate` this makes the
    /// new key sign as well; after `key revoke` it leaves the old one out.
    Sign {
        /// The stream
        root: PathBuf,
        /// Do nothing unless images wait, or half of the documents' time is over
        #[arg(long)]
        if_due: bool,
        /// Make deltas from this many serials before for images that waited; 0 for none
        #[arg(long, value_name = "N", default_value_t = 3)]
        deltas: usize,
        /// Make unified archives for images that waited, as `stream add --unified`
        #[arg(long)]
        unified: bool,
        #[command(flatten)]
        signing: Signing,
    },
    /// Print a configuration by which another web server serves the stream
    ///
    /// Types, compression and caching are as `millstream serve` has them, and /direct/ALIAS says where LXD
    /// and Incus find an image to import. The configuration's first lines say where it goes, and when to
    /// load it again.
    #[command(after_help = "\
Examples:
  millstream stream export-config nginx /srv/images --host images.example >/etc/nginx/conf.d/images.conf
  millstream stream export-config caddy /srv/images --host images.example >>/etc/caddy/Caddyfile")]
    ExportConfig(ExportConfig),
}

/// What `stream export-config` takes.
#[derive(Args)]
pub struct ExportConfig {
    /// The web server
    pub server: WebServer,
    /// The stream
    pub root: PathBuf,
    /// Name by which clients call the server [default: what each request says]
    #[arg(long, value_name = "NAME")]
    pub host: Option<String>,
    /// Address and port to listen on [default: port 443]
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<String>,
    /// Certificate chain, PEM [default: certbot's; Caddy gets its own]
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// Its private key, PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
}

/// A web server that `stream export-config` knows.
#[derive(Clone, Copy, ValueEnum)]
pub enum WebServer {
    /// nginx
    Nginx,
    /// Apache's httpd
    Apache,
    /// Caddy
    Caddy,
}

/// How long the files of retired images stay.
#[derive(Args)]
pub struct Grace {
    /// Hours the files of an image stay after documents list it no more; 0 removes them at once
    #[arg(long, value_name = "HOURS", default_value = "24", value_parser = clap::value_parser!(u32).range(..=8760))]
    pub grace: u32,
}

/// Who signs, and for how long.
#[derive(Args)]
pub struct Signing {
    /// Name of the signing key [default: the one that signs the stream; for a new one, `default`]
    #[arg(long, value_name = "NAME")]
    pub key: Option<String>,
    /// Days until the documents expire [default: as before, at first 30]
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=3650))]
    pub valid: Option<u32>,
}

#[derive(Subcommand)]
#[command(after_help = "\
Keys are OpenPGP keys in the configuration directory, under keys/: NAME.key is the secret (mode
0600) and NAME.asc the public key.")]
pub enum Key {
    /// Make a signing key
    ///
    /// An Ed25519 key, unless --rsa asks for one that very old verifiers know. A key is never
    /// replaced.
    Generate {
        /// Name of the key
        #[arg(default_value = "default")]
        name: String,
        /// Make an RSA key of 4096 bits instead
        #[arg(long)]
        rsa: bool,
        /// Who the key belongs to, as gpg shows it
        #[arg(long, value_name = "TEXT")]
        user_id: Option<String>,
    },
    /// Take in a secret key that was made elsewhere
    ///
    /// An OpenPGP key that can sign, armored or binary, without a passphrase, as
    /// `gpg --export-secret-keys` writes it.
    Import {
        /// Its file
        file: PathBuf,
        /// Name of the key
        #[arg(default_value = "default")]
        name: String,
    },
    /// Have a new key take over from a key
    ///
    /// From the next `stream sign ROOT` on both keys sign. Clients that trust the old key then learn the
    /// new one by themselves, from documents that the old key signed. When all had time to do so, type
    /// `key revoke NAME`, and `stream sign ROOT` again.
    Rotate {
        /// Name of the key
        #[arg(default_value = "default")]
        name: String,
        /// Name of the key that takes over, made if missing [default: NAME with a number]
        #[arg(long, value_name = "NEW")]
        to: Option<String>,
    },
    /// Let a key sign no more, once another took over
    ///
    /// The next `stream sign ROOT` leaves it out, and clients forget it. Clients that have not read the
    /// stream since the new key signs must then be told: `remote set-key`.
    Revoke {
        /// Name of the key
        name: String,
    },
    /// List signing keys
    List {
        #[command(flatten)]
        output: Output,
    },
    /// Print a public key, for `remote add --key` and gpg
    Export {
        /// Name of the key
        #[arg(default_value = "default")]
        name: String,
        /// Write it to this file instead
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
}

#[derive(Args)]
#[command(after_help = "\
Without --tls-cert a local certificate authority is made on first use; its certificate is what
clients have to trust, and its path is printed. Ctrl-C or SIGTERM stops the server; downloads
under way may finish for 30 seconds.

    curl --cacert CA https://127.0.0.1:8443/
    SSL_CERT_FILE=CA lxd ...        (LXD reads CAs when it starts)")]
pub struct Serve {
    /// Settings, TOML; what the command line says comes first [default: server.toml in the
    /// configuration directory, if it is there]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The stream to serve, a directory or s3://BUCKET/PREFIX [default: the one of `millstream up`]
    #[arg(long, value_name = "ROOT")]
    pub root: Option<PathBuf>,
    /// Address and port to listen on [default: 127.0.0.1:8443]
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<String>,
    /// A further name that clients call this server by, for its certificate
    #[arg(long, value_name = "NAME", conflicts_with = "tls_cert")]
    pub name: Vec<String>,
    /// Certificate chain, PEM, instead of the local authority's
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// Its private key, PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// No encryption: behind a proxy that has it
    #[arg(long, conflicts_with_all = ["tls_cert", "name"])]
    pub plain_http: bool,
    #[command(flatten)]
    pub upstream: super::upstream::Pull,
}
