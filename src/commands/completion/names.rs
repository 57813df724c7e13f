//! Names that are there now. Whatever fails offers nothing: nobody reads errors while typing.

use std::ffi::OsStr;
use std::time::Duration;

use clap_complete::engine::CompletionCandidate;
use millstream_client::{Client, Place};
use millstream_runtime::Runtime;

use crate::commands::client;
use crate::paths::Paths;

/// The longest that a remote is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// Aliases and fingerprints of the store, and `REMOTE:`; behind a remote, its aliases.
pub(super) fn images(typed: &OsStr) -> Vec<CompletionCandidate> {
    let typed = typed.to_string_lossy();
    let client = client::open();
    let mut names = match typed.split_once(':') {
        Some((remote, _)) => offered(&client, remote).unwrap_or_default(),
        None => stored(&client),
    };
    if !typed.contains(':') {
        names.extend(remote_names(&client).into_iter().map(|(name, url)| (format!("{name}:"), url)));
    }
    candidates(names, &typed)
}

/// Aliases and fingerprints of the store.
pub(super) fn local_images(typed: &OsStr) -> Vec<CompletionCandidate> {
    let typed = typed.to_string_lossy();
    if typed.contains(':') {
        images(OsStr::new(&*typed))
    } else {
        candidates(stored(&client::open()), &typed)
    }
}

/// Aliases of the store.
pub(super) fn aliases(typed: &OsStr) -> Vec<CompletionCandidate> {
    let aliases = client::open().store().and_then(|store| store.aliases()).unwrap_or_default();
    let names = aliases.into_iter().map(|(alias, image)| (alias.to_string(), image.short()));
    candidates(names.collect(), &typed.to_string_lossy())
}

/// Names of remotes.
pub(super) fn remotes(typed: &OsStr) -> Vec<CompletionCandidate> {
    candidates(remote_names(&client::open()), &typed.to_string_lossy())
}

/// Names of containers.
pub(super) fn containers(typed: &OsStr) -> Vec<CompletionCandidate> {
    let found = Runtime::open(&Paths::from_env().containers()).and_then(|runtime| runtime.list_fast());
    let names = found.unwrap_or_default().into_iter().map(|info| (info.name.to_string(), String::new()));
    candidates(names.collect(), &typed.to_string_lossy())
}

/// A name, and what is said beside it.
type Named = (String, String);

fn stored(client: &Client) -> Vec<Named> {
    let images = client.store().and_then(|store| store.list()).unwrap_or_default();
    let names = images.iter().flat_map(|image| {
        let about = image.properties.get("description").cloned().unwrap_or_default();
        let aliases = image.aliases.iter().map(ToString::to_string);
        aliases.chain([image.fingerprint.short()]).map(move |name| (name, about.clone()))
    });
    names.collect()
}

fn remote_names(client: &Client) -> Vec<Named> {
    let remotes = client.remotes().unwrap_or_default();
    remotes.remotes.iter().map(|(name, remote)| (name.to_string(), remote.url.to_string())).collect()
}

fn offered(client: &Client, remote: &str) -> Option<Vec<Named>> {
    let Place::Remote(name) = remote.parse().ok()? else {
        return Some(
            stored(client).into_iter().map(|(name, about)| (format!("local:{name}"), about)).collect(),
        );
    };
    let read = async { tokio::time::timeout(PATIENCE, client.catalogue(&name)).await.ok() };
    let catalogue = client::block_on(read).ok()??.ok()?;
    let aliases = catalogue.newest().flat_map(|image| {
        image.aliases().iter().map(|alias| (format!("{name}:{alias}"), image.serial.clone()))
    });
    Some(aliases.collect())
}

fn candidates(names: Vec<Named>, typed: &str) -> Vec<CompletionCandidate> {
    let fitting = names.into_iter().filter(|(name, _)| name.starts_with(typed));
    let candidate = |(name, about): Named| {
        let help = Some(about).filter(|about| !about.is_empty()).map(Into::into);
        CompletionCandidate::new(name).help(help)
    };
    fitting.map(candidate).collect()
}
