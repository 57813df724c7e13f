//! The command line: names, arguments and help, nothing else.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Build, sign, publish, serve, fetch and run Linux system-container images.
#[derive(Parser)]
#[command(name = "millstream", version, max_term_width = 100, after_help = "\
Image names: [REMOTE:]ALIAS, [REMOTE:]DIST/RELEASE[/VARIANT][/ARCH], a fingerprint, or at least six of its first digits.

Files: root keeps configuration in /etc/millstream, data in /var/lib/millstream and caches in /var/cache/millstream;
other users in the XDG directories. MILLSTREAM_DIR=DIR puts all of it under DIR.

Exit status: 0 done, 1 failed, 2 wrong usage; `exec` returns the command's own.

To begin: `millstream up` builds, signs and serves a Debian image and says what to type next.")]
pub struct Cli {
    /// Say more about what is being done (repeat for details)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Print errors and results only
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    /// Build, sign, publish and serve an image in one go, then say what to type next
    ///
    /// Makes a signing key and a local certificate authority on first use. Running it again
    /// re-uses both, and the image when recipe and packages are unchanged.
    Up(Up),
    /// Check and show image recipes
    #[command(subcommand)]
    Recipe(Recipe),
    /// Build an image from a recipe
    ///
    /// Needs nothing on the host but the kernel; an ordinary user needs a range in /etc/subuid
    /// and /etc/subgid and the programs newuidmap and newgidmap.
    Build(Build),
    /// Make and check trees of signed images
    #[command(subcommand)]
    Stream(Stream),
    /// Make and show signing keys
    #[command(subcommand)]
    Key(Key),
    /// Serve a tree over HTTPS
    Serve(Serve),
    /// Manage the servers images come from
    #[command(subcommand)]
    Remote(Remote),
    /// Find, fetch and delete images
    #[command(subcommand)]
    Image(Image),
    /// Create a container from an image and start it
    Launch(Launch),
    /// Create a container from an image without starting it
    Create(Launch),
    /// Start containers
    Start(Names),
    /// Stop containers, cleanly or by force
    Stop(Stop),
    /// Stop containers and start them again
    Restart(Stop),
    /// Delete containers
    Delete(Delete),
    /// List containers
    #[command(visible_alias = "ls")]
    List(ListContainers),
    /// Run a command inside a container and return its exit status
    Exec(Exec),
    /// Open a root shell inside a container
    Shell(Shell),
}

/// How lists and objects are printed.
#[derive(Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Columns for people
    #[default]
    Table,
    /// One JSON document
    Json,
    /// One YAML document
    Yaml,
    /// Comma-separated values without a header
    Csv,
}

#[derive(Args)]
pub struct FormatArg {
    /// How to print the result
    #[arg(short, long, value_enum, default_value = "table")]
    pub format: Format,
}

#[derive(Args)]
pub struct Up {
    /// Recipe to build [default: Debian, the release of this host's apt configuration]
    pub recipe: Option<PathBuf>,
    /// Override a recipe value, as in -o image.release=trixie
    #[arg(short = 'o', value_name = "KEY=VALUE")]
    pub options: Vec<String>,
    /// Directory of the tree [default: `tree` in the data directory]
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// Address and port to serve on
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8443")]
    pub listen: SocketAddr,
    /// Build and publish, but do not serve
    #[arg(long)]
    pub no_serve: bool,
}

#[derive(Subcommand)]
pub enum Recipe {
    /// Report every problem in recipes, with line numbers
    Validate {
        /// Recipe files
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Print a recipe as it will be built: after defaults, overrides and filters
    Show {
        /// Recipe file
        file: PathBuf,
        #[command(flatten)]
        resolve: Resolve,
    },
}

/// What picks one image out of a recipe.
#[derive(Args)]
pub struct Resolve {
    /// Override a recipe value, as in -o image.release=trixie or -o source.url=URL
    #[arg(short = 'o', value_name = "KEY=VALUE")]
    pub options: Vec<String>,
    /// Kind of image
    #[arg(long = "type", value_enum, default_value = "container")]
    pub kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// System container
    Container,
    /// Virtual machine
    Vm,
}

#[derive(Args)]
pub struct Build {
    /// Recipe file
    pub file: PathBuf,
    #[command(flatten)]
    pub resolve: Resolve,
    /// Directory that gets the image's files [default: DIST-RELEASE-ARCH-VARIANT-SERIAL here]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Add the finished image to this tree, signed with the default key
    #[arg(long, value_name = "ROOT")]
    pub stream: Option<PathBuf>,
    /// What to make: lxc and incus images, or only the root file system as a directory
    #[arg(long, value_enum, value_delimiter = ',', default_value = "lxc,incus")]
    pub format: Vec<BuildFormat>,
    /// Worker threads [default: one per processor]
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// Serial of the image, YYYYMMDD_HHMM in UTC [default: now]
    #[arg(long)]
    pub serial: Option<String>,
    /// Stop a script of the recipe after this many seconds
    #[arg(long, value_name = "SECONDS", default_value = "1800")]
    pub script_timeout: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BuildFormat {
    /// rootfs.tar.xz and LXC's meta.tar.xz
    Lxc,
    /// rootfs.tar.xz with incus.tar.xz and lxd.tar.xz
    #[value(alias = "lxd")]
    Incus,
    /// The root file system as a directory
    Dir,
}

#[derive(Subcommand)]
pub enum Stream {
    /// Make an empty, signed tree
    Init {
        /// Directory of the tree
        root: PathBuf,
        #[command(flatten)]
        key: SigningKeyArg,
    },
    /// Add built images to a tree and sign it
    Add {
        /// Directory of the tree
        root: PathBuf,
        /// Output directories of `millstream build`
        #[arg(required = true)]
        images: Vec<PathBuf>,
        #[command(flatten)]
        key: SigningKeyArg,
    },
    /// List the images of a tree
    List {
        /// Directory of the tree
        root: PathBuf,
        #[command(flatten)]
        format: FormatArg,
    },
    /// Check every hash, signature, reference and stray file of a tree
    Verify {
        /// Directory of the tree
        root: PathBuf,
        /// Public key or keys to check against [default: the keys in the key directory]
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
        #[command(flatten)]
        format: FormatArg,
    },
    /// Sign the documents of a tree anew, with a new expiry
    Sign {
        /// Directory of the tree
        root: PathBuf,
        #[command(flatten)]
        key: SigningKeyArg,
    },
}

#[derive(Args)]
pub struct SigningKeyArg {
    /// Fingerprint of the key to sign with [default: the newest; one is made when there is none]
    #[arg(long = "sign-key", value_name = "FINGERPRINT")]
    pub sign_key: Option<String>,
}

#[derive(Subcommand)]
pub enum Key {
    /// Make a signing key
    Generate {
        /// Who signs, shown to those who verify
        #[arg(long, value_name = "NAME", default_value = "Millstream image signing")]
        name: String,
        /// Kind of key
        #[arg(long, value_enum, default_value = "ed25519")]
        algorithm: KeyAlgorithm,
    },
    /// List signing keys
    List {
        #[command(flatten)]
        format: FormatArg,
    },
    /// Print a public key, armored
    Export {
        /// Fingerprint, or its last digits [default: the newest key]
        fingerprint: Option<String>,
    },
    /// Take over a secret key, armored and without a passphrase
    Import {
        /// Key file
        file: PathBuf,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum KeyAlgorithm {
    /// Small, fast and constant-time
    Ed25519,
    /// For verifiers older than 2017
    Rsa4096,
}

#[derive(Args)]
pub struct Serve {
    /// Directory of the tree
    #[arg(long, value_name = "DIR")]
    pub root: PathBuf,
    /// Address and port to listen on; port 0 picks a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8443")]
    pub listen: SocketAddr,
    /// Certificate chain, PEM [default: one from the local certificate authority]
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// Its private key, PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
}

#[derive(Subcommand)]
pub enum Remote {
    /// Add a server and pin the key it signs with
    ///
    /// Without --key the server's key is shown and confirmed once. Nothing is trusted silently.
    Add {
        /// Name for the server
        name: String,
        /// Its address: https://HOST[:PORT][/PATH]
        url: String,
        /// Key to trust: a file, or the full fingerprint of the server's key
        #[arg(long, value_name = "FILE|FINGERPRINT")]
        key: Option<String>,
        /// Certificate authority to trust for this server, PEM
        #[arg(long, value_name = "FILE")]
        ca: Option<PathBuf>,
        /// Use a server that does not sign; remembered and shown
        #[arg(long, conflicts_with = "key")]
        insecure_no_signature: bool,
    },
    /// List servers
    List {
        #[command(flatten)]
        format: FormatArg,
    },
    /// Make a server the one that names without REMOTE: mean
    SetDefault {
        /// Its name
        name: String,
    },
    /// Forget a server
    Remove {
        /// Its name
        name: String,
    },
}

#[derive(Subcommand)]
pub enum Image {
    /// List images, in the store or on a server
    List {
        /// [REMOTE:] and filters: KEY=VALUE on properties, or words matched against alias and fingerprint
        #[arg(value_name = "[REMOTE:] [FILTER]")]
        filters: Vec<String>,
        /// Show images of every architecture, not only this host's
        #[arg(long)]
        all_architectures: bool,
        #[command(flatten)]
        format: FormatArg,
    },
    /// Show one image, in the store or on a server
    Info {
        /// Image
        image: String,
        #[command(flatten)]
        format: FormatArg,
    },
    /// Fetch an image, verify it and keep it in the store
    Copy {
        /// Image on a server: REMOTE:NAME
        image: String,
        /// Further names for it here
        #[arg(long)]
        alias: Vec<String>,
        /// Take over the server's aliases
        #[arg(long)]
        copy_aliases: bool,
        /// Replace it when the server has a newer one
        #[arg(long)]
        auto_update: bool,
    },
    /// Delete images from the store
    #[command(visible_alias = "rm")]
    Delete {
        /// Images
        #[arg(required = true)]
        images: Vec<String>,
    },
}

#[derive(Args)]
pub struct Launch {
    /// Image: [REMOTE:]NAME, or a fingerprint in the store
    pub image: String,
    /// Name for the container
    pub name: String,
}

#[derive(Args)]
pub struct Names {
    /// Containers
    #[arg(required = true)]
    pub names: Vec<String>,
}

#[derive(Args)]
pub struct Stop {
    /// Containers
    #[arg(required = true)]
    pub names: Vec<String>,
    /// Do not ask init to shut down; end it
    #[arg(long)]
    pub force: bool,
    /// Seconds to wait for a clean shutdown
    #[arg(long, value_name = "SECONDS", default_value = "60")]
    pub timeout: u64,
}

#[derive(Args)]
pub struct Delete {
    /// Containers
    #[arg(required = true)]
    pub names: Vec<String>,
    /// Also when running
    #[arg(long)]
    pub force: bool,
}

#[derive(Args)]
pub struct ListContainers {
    #[command(flatten)]
    pub format: FormatArg,
}

#[derive(Args)]
pub struct Exec {
    /// Container
    pub name: String,
    /// Set an environment variable
    #[arg(long, value_name = "KEY=VALUE")]
    pub env: Vec<String>,
    /// User inside: a name or UID[:GID]
    #[arg(long)]
    pub user: Option<String>,
    /// Directory inside to run in
    #[arg(long, value_name = "DIR")]
    pub cwd: Option<String>,
    /// Give the command a terminal [default: when there is one here]
    #[arg(short = 't', long, overrides_with = "no_tty")]
    pub tty: bool,
    /// Give the command no terminal
    #[arg(short = 'T', long)]
    pub no_tty: bool,
    /// Command and its arguments
    #[arg(required = true, last = true)]
    pub command: Vec<String>,
}

#[derive(Args)]
pub struct Shell {
    /// Container
    pub name: String,
}
