//! `millstream serve`.

use std::sync::Arc;

use millstream_server::http::{self, Access, Limits, Options, Server, Tls};
use millstream_server::tls::LocalAuthority;
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::server::Serve;
use crate::output::say;
use crate::paths::Paths;

pub fn run(command: &Serve, quiet: bool) -> anyhow::Result<()> {
    run_and_say(command, quiet, &|_| Ok(()))
}

/// As [`run`]; once the server listens, `ready` is told its URL.
pub fn run_and_say(
    command: &Serve,
    quiet: bool,
    ready: &dyn Fn(&str) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(serve(command, quiet, ready))
}

async fn serve(
    command: &Serve,
    quiet: bool,
    ready: &dyn Fn(&str) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let paths = Paths::from_env();
    let authority = LocalAuthority::new(paths.tls());
    let ca = authority.ca_path();
    let tls = match (&command.tls_cert, &command.tls_key) {
        _ if command.plain_http => Tls::Off,
        (Some(cert), Some(key)) => Tls::Files(cert.clone(), key.clone()),
        _ => Tls::Local(authority, command.name.clone()),
    };
    let local = matches!(tls, Tls::Local(..));
    let root = command.root.clone().unwrap_or_else(|| paths.stream());
    let options = Options {
        root: root.clone(),
        listen: command.listen.clone(),
        tls,
        limits: Limits::default(),
        access_log: (!quiet).then(|| Arc::new(|access: &Access| say(false, &access.to_string())) as _),
    };
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    http::raise_file_limit();
    let server = Server::bind(options).await?;
    let scheme = if command.plain_http { "http" } else { "https" };
    let url = format!("{scheme}://{}", server.address());
    ready(&url)?;
    say(quiet, &format!("serving {} at {url}", root.display()));
    if local {
        say(quiet, &format!("clients have to trust {}", ca.display()));
    }
    let stop = async {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        say(quiet, "stopping; downloads under way may finish");
    };
    server.run(stop).await;
    Ok(())
}
