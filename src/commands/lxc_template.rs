//! The program as LXC's template: `lxc-create -t millstream`.
//!
//! An ordinary user's template is run by LXC as root of the container's namespace. The image is
//! then fetched by a second run of this program as the user, whose remotes and store are used.

use std::io::{BufRead, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, bail};
use clap::Parser;
use millstream_client::lxc::relay::{self, Relayed};
use millstream_client::lxc::{self, CacheUse, Came, Container, Files, Listed, Mode, Unpacking, Wanted};
use millstream_client::{Client, RemoteName};
use millstream_image::Architecture;

use crate::cli::client::Reach;
use crate::cli::lxc_template::LxcTemplate;
use crate::commands::client;
use crate::commands::remote::Add;
use crate::output;
use crate::progress::Bar;

/// What the fetching process says at its end, in bytes.
const MAX_ANSWER: u64 = 1 << 20;

/// Does what the arguments say. Listing ends with a failure when LXC called, for it would take a
/// container without files for finished.
pub fn run() -> anyhow::Result<ExitCode> {
    let args = LxcTemplate::parse();
    let caller = Caller::of(&args)?;
    if args.fetch_only || (args.list && !caller.is_other()) {
        return fetch_or_list(&args);
    }
    if args.list {
        finished(caller.start(Stdio::inherit())?)?;
        return Ok(ExitCode::FAILURE);
    }
    let (Some(name), Some(path), Some(rootfs)) = (&args.name, &args.path, &args.rootfs) else {
        bail!(
            "this is an LXC template; call it with: lxc-create -t millstream -n NAME -- -d debian -r bookworm -a amd64"
        );
    };
    let unpacked = Arc::new(AtomicBool::new(false));
    let files = if caller.is_other() {
        let (files, done) = caller.fetch(rootfs)?;
        unpacked.store(done, Ordering::SeqCst);
        files
    } else {
        let (target, done) = (rootfs.clone(), unpacked.clone());
        let sink: Unpacking =
            Box::new(move |archive| done.store(lxc::unpack(archive, &target), Ordering::SeqCst));
        fetch(&args, Some(sink))?
    };
    let unpacked = unpacked.load(Ordering::SeqCst);
    match files.came {
        Came::Fetched => {}
        Came::Cached => eprintln!("Using the image from the local store"),
        Came::Unasked => eprintln!("The server is out of reach; using the image from the local store"),
    }
    if !unpacked {
        eprintln!("Unpacking the rootfs");
    }
    let container = Container {
        name: name.clone(),
        path: path.clone(),
        rootfs: rootfs.clone(),
        mode: Mode::here(),
        owner: (caller.uid, caller.gid),
        share: LxcTemplate::share(),
    };
    let message = lxc::create(&container, &files, unpacked)?;
    output::print(&format!("\n---\n{}", output::text(&message)))?;
    Ok(ExitCode::SUCCESS)
}

/// Who called `lxc-create`.
struct Caller {
    uid: Option<u32>,
    gid: Option<u32>,
}

impl Caller {
    fn of(args: &LxcTemplate) -> anyhow::Result<Self> {
        let id = |id: Option<i64>| id.and_then(|id| u32::try_from(id).ok());
        let caller = Self { uid: id(args.mapped_uid), gid: id(args.mapped_gid) };
        if args.mapped_uid == Some(-1) && Mode::here() == Mode::User {
            bail!("the container's user namespace has no id for whoever called lxc-create");
        }
        Ok(caller)
    }

    /// Whether this process runs as somebody else.
    fn is_other(&self) -> bool {
        self.uid.is_some_and(|uid| uid != rustix::process::geteuid().as_raw())
    }

    /// Fetches the image, unpacked as it comes; tells whether that went well.
    fn fetch(&self, rootfs: &Path) -> anyhow::Result<(Files, bool)> {
        let mut child = self.start(Stdio::piped())?;
        let mut relayed = Relayed::new(child.stdout.take().context("the program has no output")?);
        let unpacked = lxc::unpack(&mut relayed, rootfs);
        let answer = relayed.rest(MAX_ANSWER);
        finished(child)?;
        let files = serde_json::from_slice(&answer?).context("the image could not be fetched")?;
        Ok((files, unpacked))
    }

    /// Starts this program once more with the same arguments, as the caller.
    fn start(&self, stdout: Stdio) -> anyhow::Result<Child> {
        let mut command = Command::new("/proc/self/exe");
        command.arg0("lxc-millstream").args(std::env::args_os().skip(1)).arg("--fetch-only").stdout(stdout);
        if let Some(gid) = self.gid {
            command.gid(gid);
        }
        if let Some(uid) = self.uid {
            command.uid(uid);
        }
        command.spawn().context("cannot start this program again")
    }
}

/// Waits for the program that was started again.
fn finished(mut child: Child) -> anyhow::Result<()> {
    let status = child.wait()?;
    if !status.success() {
        // It has said why.
        std::process::exit(status.code().unwrap_or(1));
    }
    Ok(())
}

/// The root file system while it comes, then where both files are: what [`Caller::fetch`] reads.
fn fetch_for_other(args: &LxcTemplate) -> anyhow::Result<()> {
    let sent = Arc::new(AtomicBool::new(false));
    let sending = sent.clone();
    let sink: Unpacking = Box::new(move |archive| {
        sending.store(true, Ordering::SeqCst);
        // Who no longer listens has said why.
        drop(relay::send(archive, std::io::stdout()));
    });
    let files = fetch(args, Some(sink))?;
    if !sent.load(Ordering::SeqCst) {
        relay::send_nothing(std::io::stdout())?;
    }
    output::print(&serde_json::to_string(&files)?)
}

fn fetch_or_list(args: &LxcTemplate) -> anyhow::Result<ExitCode> {
    if !args.list {
        fetch_for_other(args)?;
        return Ok(ExitCode::SUCCESS);
    }
    let client = client::open();
    let remote = remote(&client, args)?;
    output::print(&table(&listed(&client, &remote, args)?))?;
    Ok(if args.name.is_some() && !args.fetch_only { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn fetch(args: &LxcTemplate, sink: Option<Unpacking>) -> anyhow::Result<Files> {
    let client = client::open();
    let remote = remote(&client, args)?;
    let wanted = wanted(&client, &remote, args)?;
    let cache = match (args.flush_cache, args.force_cache) {
        (true, _) => CacheUse::Flush,
        (_, true) => CacheUse::Force,
        _ => CacheUse::Ask,
    };
    let bar = Bar::new(false);
    let files = client::block_on(client.lxc_fetch(&remote, &wanted, Mode::here(), cache, sink, &bar));
    bar.finish();
    Ok(files??)
}

/// The remote that was named; one that is not known yet is added.
fn remote(client: &Client, args: &LxcTemplate) -> anyhow::Result<RemoteName> {
    let Some(server) = &args.server else {
        return client.remotes()?.default.context(
            "there is no default remote; name a server with --server HOST, or type: millstream remote add NAME URL",
        );
    };
    if let Some(remote) = client.find_remote(server)? {
        return Ok(remote);
    }
    let has_scheme = server.contains("://") || server.starts_with('/');
    let url = if has_scheme { server.clone() } else { format!("https://{server}") };
    let name: RemoteName = remote_name(server).parse()?;
    eprintln!("{server} is not among the remotes yet; adding it as {name}");
    let reach = Reach::default();
    let (key, insecure) = (args.key.as_deref(), args.no_validate);
    let add = Add { url: &url, key, ca: None, insecure, reach: &reach, protocol: None };
    add.run(client, &name, false).context(
        "whom to trust is asked once: give the key with --key FILE|FINGERPRINT, or --no-validate for a server \
         without signatures",
    )?;
    Ok(name)
}

/// A name for a server nobody has named: its host and port.
fn remote_name(server: &str) -> String {
    let host = server.split_once("://").map_or(server, |(_, rest)| rest).trim_matches('/');
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' };
    host.chars().map(plain).take(63).collect()
}

fn listed(client: &Client, remote: &RemoteName, args: &LxcTemplate) -> anyhow::Result<Vec<Listed>> {
    let arch = args.arch.as_deref().map(str::parse::<Architecture>).transpose()?;
    let mut images = client::block_on(client.lxc_list(remote, Mode::here()))??;
    let same = |wanted: &Option<String>, found: &str| wanted.as_ref().is_none_or(|wanted| wanted == found);
    images.retain(|image| {
        same(&args.dist, &image.distribution)
            && same(&args.release, &image.release)
            && arch.is_none_or(|arch| arch == image.architecture)
            && image.variant == args.variant
    });
    Ok(images)
}

fn table(images: &[Listed]) -> String {
    let line = |image: &Listed| {
        let Listed { distribution, release, architecture, variant, build } = image;
        format!("{distribution}\t{release}\t{architecture}\t{variant}\t{build}\n")
    };
    let lines: String = images.iter().map(line).collect();
    format!("\n---\nDIST\tRELEASE\tARCH\tVARIANT\tBUILD\n---\n{lines}---\n")
}

/// What the arguments ask for; what they leave out is chosen from the list.
fn wanted(client: &Client, remote: &RemoteName, args: &LxcTemplate) -> anyhow::Result<Wanted> {
    if args.dist.is_none() || args.release.is_none() || args.arch.is_none() {
        output::say(false, &table(&listed(client, remote, args)?));
    }
    let given = |value: &Option<String>, question| value.clone().map_or_else(|| ask(question), Ok);
    Ok(Wanted {
        distribution: given(&args.dist, "Distribution")?,
        release: given(&args.release, "Release")?,
        architecture: given(&args.arch, "Architecture")?.parse()?,
        variant: args.variant.clone(),
    })
}

fn ask(question: &str) -> anyhow::Result<String> {
    eprintln!("{question}: ");
    std::io::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    match answer.trim() {
        "" => {
            bail!("no {} was given; name it with -{}", question.to_lowercase(), &question[..1].to_lowercase())
        }
        answer => Ok(answer.to_owned()),
    }
}
