//! `millstream stream add --to`, and what `serve` takes such images with.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use millstream_client::Access;
use millstream_server::config::{Config, Right};
use millstream_server::keys::KeyStore;
use millstream_server::push::Push;
use millstream_server::push::client::{Pushed, Pusher, RETRY};
use millstream_server::stream;

use crate::cli::push::Destination;
use crate::commands::{client, remote};
use crate::output::{self, say};
use crate::paths::Paths;
use crate::progress::Bar;

/// Pushes images one after the other.
pub fn run<'a>(
    to: &Destination,
    server: &str,
    images: impl Iterator<Item = &'a PathBuf>,
    quiet: bool,
) -> anyhow::Result<()> {
    let pusher = pusher(to, server)?;
    for dir in images {
        let bar = Bar::new(quiet);
        let pushed = client::block_on(pusher.push(dir, &bar))?;
        bar.finish();
        report(&pushed?, quiet)?;
    }
    Ok(())
}

fn pusher(to: &Destination, server: &str) -> anyhow::Result<Pusher> {
    let mut access = Access {
        proxy: to.proxy.clone(),
        client_certificate: to.client_certificate.clone(),
        token: to.token_file.clone(),
        ..Access::default()
    };
    let mut ca = to.ca.as_deref().map(remote::read_text).transpose()?;
    let client = client::open();
    let mut url = server.to_owned();
    if let Some(name) = client.find_remote(server.trim_end_matches(':'))? {
        let known = client.remotes()?.get(&name)?.clone();
        access.proxy = access.proxy.or(known.access.proxy);
        access.client_certificate = access.client_certificate.or(known.access.client_certificate);
        if access.token.is_none() {
            (access.token, access.login) = (known.access.token, known.access.login);
        }
        ca = ca.or(known.ca);
        url = known.url.into();
    }
    Ok(Pusher::new(&url, ca.as_ref(), &access, RETRY)?)
}

fn report(pushed: &Pushed, quiet: bool) -> anyhow::Result<()> {
    let state = match (pushed.published, pushed.new) {
        (true, true) => "published",
        (true, false) => "is there already",
        (false, _) => "waits there for: millstream stream sign",
    };
    say(quiet, &format!("{} {} {state}", pushed.product, pushed.serial));
    output::print(&format!("{}\n", pushed.url))
}

/// What takes pushes to the tree `root`, where the configuration lets anybody push.
pub fn open(config: &Config, root: &Path, paths: &Paths, quiet: bool) -> anyhow::Result<Option<Arc<Push>>> {
    if !config.access.iter().any(|area| area.right == Right::Push) {
        return Ok(None);
    }
    let stream = stream::Stream::open(root)?;
    let say = Arc::new(move |text: &str| say(quiet, text));
    Ok(Some(Push::open(stream, KeyStore::new(paths.keys()), config.serve.push, say)?))
}
