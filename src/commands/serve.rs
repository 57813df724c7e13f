//! `millstream serve`.

use std::sync::Arc;

use millstream_server::http::{Access, Limits, Options, Server, Tls};
use millstream_server::tls::LocalAuthority;
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::server::Serve;
use crate::output::say;
use crate::paths::Paths;

pub fn run(command: &Serve, quiet: bool) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(serve(command, quiet))
}

async fn serve(command: &Serve, quiet: bool) -> anyhow::Result<()> {
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
    let server = Server::bind(options).await?;
    let scheme = if command.plain_http { "http" } else { "https" };
    say(quiet, &format!("serving {} at {scheme}://{}", root.display(), server.address()));
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
