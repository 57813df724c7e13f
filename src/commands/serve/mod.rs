//! `millstream serve`.

mod supervisor;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use millstream_runtime::CancelToken;
use millstream_server::config::{Config, Right};
use millstream_server::http::{self, Access, Gate, Limits, Options, Server, Settings, Tls};
use millstream_server::pull::{Pull, REFRESH};
use millstream_server::systemd;
use millstream_server::tls::LocalAuthority;

use crate::cli::server::Serve;
use crate::commands::stream::sign_if_due;
use crate::commands::{daily, push, shared, upstream};
use crate::output::say;
use crate::paths::Paths;
use supervisor::Supervisor;

/// How often it is looked whether the certificate's files changed.
const CERTIFICATE_CHECK: Duration = Duration::from_secs(5);

/// How often it is asked whether documents should be signed anew.
const RESIGN: Duration = Duration::from_hours(1);

/// Where the server listens when nobody says otherwise: for this machine alone.
const LISTEN: &str = "127.0.0.1:8443";

pub fn run(command: &Serve, quiet: bool) -> anyhow::Result<()> {
    run_and_say(command, quiet, &|_| Ok(()))
}

/// As [`run`]; once the server listens, `ready` is told its URL.
pub fn run_and_say(
    command: &Serve,
    quiet: bool,
    ready: &dyn Fn(&str) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let sockets = systemd::sockets()?;
    let paths = Paths::from_env();
    let config = read_config(command.config.as_deref(), &paths)?;
    let root = command.root.clone().or(config.serve.root.clone()).unwrap_or_else(|| paths.stream());
    if shared::address(&root)?.is_some() {
        refuse_for_shared(command, &config)?;
    }
    let pull = upstream::open(&command.upstream, config.serve.upstream.clone(), &root, quiet)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(serve((command, config), (root, pull, sockets), quiet, ready))
}

async fn serve(
    (command, config): (&Serve, Config),
    (root, pull, sockets): (PathBuf, Option<Arc<Pull>>, Vec<TcpListener>),
    quiet: bool,
    ready: &dyn Fn(&str) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let paths = Paths::from_env();
    if pull.is_some() && config.access.iter().any(|area| area.right == Right::Push) {
        bail!("a stream that is filled from upstream has no images of its own; serve another one for pushes");
    }
    let Settings { tls, gate } = settings(command, &config, &paths)?;
    let local = matches!(tls, Tls::Local(..));
    let listen = command.listen.clone().or(config.serve.listen.clone());
    if let (Some(listen), false) = (&listen, sockets.is_empty()) {
        say(quiet, &format!("listening on the sockets of systemd, not on {listen}"));
    }
    let options = Options {
        root: root.clone(),
        shared: shared::reader(&root, &config)?,
        listen: listen.unwrap_or_else(|| LISTEN.into()),
        tls,
        limits: Limits::default(),
        gate,
        access_log: (!quiet).then(|| Arc::new(|access: &Access| say(false, &access.to_string())) as _),
        history: daily::history(&config, &paths)?,
        push: push::open(&config, &root, &paths, quiet)?,
    };
    let schedule = daily::scheduler(&config, &root, &paths, quiet)?;
    let supervisor = Supervisor::new(command, &config, quiet)?;
    http::raise_file_limit();
    if let Some(pull) = &pull {
        upstream::begin(pull).await?;
    }
    let server = Server::bind_or_adopt(options, pull.clone(), sockets).await?;
    let server = server.telling(Arc::new(|text| say(false, text)), CERTIFICATE_CHECK);
    let scheme = if command.plain_http { "http" } else { "https" };
    let urls: Vec<_> = server.addresses().iter().map(|address| format!("{scheme}://{address}")).collect();
    ready(&urls[0])?;
    let serving = format!("serving {} at {}", root.display(), urls.join(" and "));
    say(quiet, &serving);
    if local {
        say(
            quiet,
            &format!("clients have to trust {}", LocalAuthority::new(paths.tls()).ca_path().display()),
        );
    }
    let cancel = CancelToken::new();
    let scheduled = async {
        if let Some(schedule) = &schedule {
            schedule.run(&cancel).await;
        }
    };
    let resigning = config.serve.resign.then(|| tokio::spawn(resign(root.clone(), quiet)));
    let refreshing = pull.map(|pull| tokio::spawn(pull.keep_fresh(REFRESH)));
    let control = server.control();
    let stop = async {
        supervisor.until_stopped(&control, &serving).await;
        cancel.cancel();
        say(quiet, "stopping; downloads under way may finish");
    };
    tokio::join!(server.run(stop), scheduled);
    for task in resigning.into_iter().chain(refreshing) {
        task.abort();
    }
    Ok(())
}

/// What writes to a directory is done elsewhere, and sent to the storage by `stream add`.
fn refuse_for_shared(command: &Serve, config: &Config) -> anyhow::Result<()> {
    let pushed = config.access.iter().any(|area| area.right == Right::Push);
    let built = config.daily.iter().any(|daily| daily.stream.is_none());
    for (what, asked) in [
        ("pull from upstream", command.upstream.upstream.is_some() || config.serve.upstream.is_some()),
        ("take pushes", pushed),
        ("build into it", built),
    ] {
        if asked {
            bail!("a server of a shared storage cannot {what}; publish to it with: millstream stream add");
        }
    }
    Ok(())
}

/// What can change while the server runs.
fn settings(command: &Serve, config: &Config, paths: &Paths) -> anyhow::Result<Settings> {
    let service = config.serve.clone();
    let tls_cert = command.tls_cert.clone().or(service.tls_cert);
    let tls = match (tls_cert, command.tls_key.clone().or(service.tls_key)) {
        _ if command.plain_http => Tls::Off,
        (Some(cert), Some(key)) => Tls::Files(cert, key),
        (None, None) => {
            let names = [command.name.clone(), service.names].concat();
            Tls::Local(LocalAuthority::new(paths.tls()), names)
        }
        _ => bail!("the configuration has one of tls_cert and tls_key; it takes both or none"),
    };
    Ok(Settings { tls, gate: Gate { areas: config.access.clone(), limits: service.limits } })
}

/// Signs the stream whenever it is due. What fails is said, and tried again.
async fn resign(root: PathBuf, quiet: bool) {
    let mut hours = tokio::time::interval(RESIGN);
    loop {
        hours.tick().await;
        let stream = root.clone();
        let signed = tokio::task::spawn_blocking(move || sign_if_due(&stream, quiet)).await;
        if let Ok(Err(error)) = signed {
            say(false, &format!("cannot sign {}: {error:#}", root.display()));
        }
    }
}

/// The configuration named, or the user's own where there is one.
pub fn read_config(named: Option<&Path>, paths: &Paths) -> anyhow::Result<Config> {
    let own = paths.config.join("server.toml");
    match named {
        Some(path) => Ok(Config::read(path)?),
        None if own.exists() => Ok(Config::read(&own)?),
        None => Ok(Config::default()),
    }
}
