//! `millstream up`: one command after the other, as a user would type them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail};
use millstream_builder::apt::sources::HostSources;
use millstream_builder::recipe::Resolved;
use millstream_image::Product;
use millstream_runtime::CancelToken;
use rustix::process::{Pid, Signal, kill_process};

use crate::cli::build::{Kind, Resolve};
use crate::cli::server::Serve;
use crate::cli::up::Up;
use crate::commands::{recipe, serve};
use crate::interrupt;
use crate::output;
use crate::paths::Paths;

/// The default recipe comes with the program.
const DEBIAN: &str = include_str!("../../recipes/debian.yaml");

pub fn run(command: &Up, quiet: bool) -> anyhow::Result<()> {
    let paths = Paths::from_env();
    let root = command.root.clone().unwrap_or_else(|| paths.stream());
    fs::create_dir_all(&paths.data).with_context(|| format!("cannot make {}", paths.data.display()))?;
    // Removed with what is in it: the recipe that comes with the program.
    let work = tempfile::Builder::new().prefix("up-").tempdir_in(&paths.data)?;
    let recipe = Recipe::find(command, work.path())?;
    let runner = Runner { quiet, cancel: interrupt::token()? };
    runner.run(&["stream", "init"], &[&root])?;
    let product = recipe.resolve()?.product;
    runner.run(&recipe.build(), &[&root])?;
    drop(work);
    let serve = Serve {
        config: None,
        root: Some(root.clone()),
        listen: Some(command.listen.clone()),
        name: Vec::new(),
        tls_cert: None,
        tls_key: None,
        plain_http: false,
        upstream: crate::cli::upstream::Pull::default(),
    };
    serve::run_and_say(&serve, quiet, &|url| output::print(&what_next(url, &root, &paths, &product)))
}

/// The recipe to build.
struct Recipe {
    file: PathBuf,
    options: Vec<String>,
    host: HostSources,
}

impl Recipe {
    fn find(command: &Up, work: &Path) -> anyhow::Result<Self> {
        let host = HostSources::read().with_settings(&Paths::from_env().config)?;
        let mut options = command.options.clone();
        let file = command.recipe.clone().unwrap_or_else(|| work.join("debian.yaml"));
        if command.recipe.is_none() {
            fs::write(&file, DEBIAN).with_context(|| file.display().to_string())?;
            let given = options.iter().any(|option| option.starts_with("image.release="));
            if !given && host.distribution == "debian" && !host.codename.is_empty() {
                options.insert(0, format!("image.release={}", host.codename));
            }
        }
        Ok(Self { file, options, host })
    }

    /// The image it describes.
    fn resolve(&self) -> anyhow::Result<Resolved> {
        let resolve = Resolve { options: self.options.clone(), kind: Kind::Container };
        recipe::resolve(&self.file, &resolve, &self.host)
    }

    /// The command that builds and publishes it, if it changed; the stream's directory is to follow.
    /// In a process of its own, which for an ordinary user enters a user namespace.
    fn build(&self) -> Vec<String> {
        let mut args = vec!["build".to_owned(), self.file.display().to_string()];
        args.extend(self.options.iter().flat_map(|option| ["-o".to_owned(), option.clone()]));
        args.push("--stream".into());
        args
    }
}

/// Runs commands of this program.
struct Runner {
    quiet: bool,
    cancel: CancelToken,
}

impl Runner {
    /// Runs one to its end. When we are asked to stop, so is it, and it cleans up.
    fn run<A: AsRef<str>>(&self, args: &[A], paths: &[&Path]) -> anyhow::Result<()> {
        let mut command = Command::new("/proc/self/exe");
        command.args(args.iter().map(AsRef::as_ref)).args(paths).stdout(std::io::stderr());
        if self.quiet {
            command.arg("--quiet");
        }
        let mut child = command.spawn()?;
        let mut asked = false;
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if self.cancel.is_cancelled() && !asked {
                asked = true;
                kill_process(Pid::from_child(&child), Signal::TERM)?;
            }
            std::thread::sleep(Duration::from_millis(30));
        };
        self.cancel.check()?;
        if !status.success() {
            let words: Vec<_> = args.iter().take(2).map(AsRef::as_ref).collect();
            bail!("{} failed; see above", words.join(" "));
        }
        Ok(())
    }
}

fn what_next(url: &str, root: &Path, paths: &Paths, product: &Product) -> String {
    let aliases = product.aliases([]);
    let alias = aliases.last().map(ToString::to_string).unwrap_or_default();
    let ca = paths.tls().join("ca.crt");
    let (key, ca) = (root.join("key.asc"), ca.display());
    let host = url.trim_start_matches("https://");
    format!(
        "\nServing {alias} at {url}. In another terminal:\n\n\
         Add it as a remote, pinned to its key, and start a container:\n\
         \x20 millstream remote add home {url} --key {key} --ca {ca}\n\
         \x20 millstream launch home:{alias} c1\n\
         \x20 millstream shell c1\n\n\
         LXC, which has to trust {ca}:\n\
         \x20 echo ca_certificate = {ca} > wgetrc\n\
         \x20 WGETRC=$PWD/wgetrc lxc-create -t download -n c1 -- -d {distribution} -r {release} -a {architecture} \
         --variant {variant} --server {host}\n\n\
         LXD, started with SSL_CERT_FILE={ca}:\n\
         \x20 SSL_CERT_FILE={ca} lxc remote add home {url} --protocol simplestreams\n\
         \x20 lxc launch home:{alias} c1\n\n\
         By hand:\n\
         \x20 curl --cacert {ca} {url}/streams/v1/index.json\n\n\
         Ctrl-C stops the server.\n",
        key = key.display(),
        distribution = product.distribution(),
        release = product.release(),
        architecture = product.architecture(),
        variant = product.variant(),
    )
}
