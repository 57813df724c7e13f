//! `millstream serve`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use millstream_runtime::CancelToken;
use millstream_server::config::{Config, Right};
use millstream_server::http::{self, Access, Gate, Limits, Options, Server, Tls};
use millstream_server::pull::{Pull, REFRESH};
use millstream_server::tls::LocalAuthority;
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::server::Serve;
use crate::commands::stream::sign_if_due;
use crate::commands::{daily, push, upstream};
use crate::output::say;
use crate::paths::Paths;

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
    let paths = Paths::from_env();
    let config = read_config(command.config.as_deref(), &paths)?;
    let root = command.root.clone().or(config.serve.root.clone()).unwrap_or_else(|| paths.stream());
    let pull = upstream::open(&command.upstream, config.serve.upstream.clone(), &root, quiet)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(serve((command, config), (root, pull), quiet, ready))
}

async fn serve(
    (command, config): (&Serve, Config),
    (root, pull): (PathBuf, Option<Arc<Pull>>),
    quiet: bool,
    ready: &dyn Fn(&str) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let paths = Paths::from_env();
    let authority = LocalAuthority::new(paths.tls());
    let ca = authority.ca_path();
    let gate = Gate { areas: config.access.clone(), limits: config.serve.limits };
    let service = config.serve.clone();
    let tls_cert = command.tls_cert.clone().or(service.tls_cert);
    let tls = match (tls_cert, command.tls_key.clone().or(service.tls_key)) {
        _ if command.plain_http => Tls::Off,
        (Some(cert), Some(key)) => Tls::Files(cert, key),
        (None, None) => Tls::Local(authority, [command.name.clone(), service.names].concat()),
        _ => bail!("the configuration has one of tls_cert and tls_key; it takes both or none"),
    };
    if pull.is_some() && config.access.iter().any(|area| area.right == Right::Push) {
        bail!("a stream that is filled from upstream has no images of its own; serve another one for pushes");
    }
    let local = matches!(tls, Tls::Local(..));
    let options = Options {
        root: root.clone(),
        listen: command.listen.clone().or(service.listen).unwrap_or_else(|| LISTEN.into()),
        tls,
        limits: Limits::default(),
        gate,
        access_log: (!quiet).then(|| Arc::new(|access: &Access| say(false, &access.to_string())) as _),
        history: daily::history(&config, &paths)?,
        push: push::open(&config, &root, &paths, quiet)?,
    };
    let schedule = daily::scheduler(&config, &root, &paths, quiet)?;
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    http::raise_file_limit();
    if let Some(pull) = &pull {
        upstream::begin(pull).await?;
    }
    let server = Server::bind_with(options, pull.clone()).await?;
    let scheme = if command.plain_http { "http" } else { "https" };
    let url = format!("{scheme}://{}", server.address());
    ready(&url)?;
    say(quiet, &format!("serving {} at {url}", root.display()));
    if local {
        say(quiet, &format!("clients have to trust {}", ca.display()));
    }
    let cancel = CancelToken::new();
    let scheduled = async {
        if let Some(schedule) = &schedule {
            schedule.run(&cancel).await;
        }
    };
    let resigning = service.resign.then(|| tokio::spawn(resign(root.clone(), quiet)));
    let refreshing = pull.map(|pull| tokio::spawn(pull.keep_fresh(REFRESH)));
    let stop = async {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        cancel.cancel();
        say(quiet, "stopping; downloads under way may finish");
    };
    tokio::join!(server.run(stop), scheduled);
    for task in resigning.into_iter().chain(refreshing) {
        task.abort();
    }
    Ok(())
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
