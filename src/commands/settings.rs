//! `config` without a container: what is set for images.

use anyhow::{anyhow, bail};
use clap::CommandFactory;
use clap::error::ErrorKind;
use millstream_client::{Client, Settings};

use crate::cli::Cli;
use crate::cli::settings::Config;
use crate::commands::client;
use crate::output;

/// Does it, if it is no container that is meant: those have no dot and no sign in their names.
pub fn run(command: &Config) -> Option<anyhow::Result<()>> {
    match command {
        Config::Get { name, key: None } if is_key(name) => Some(get(name)),
        Config::Set { name, pairs } if is_key(name) => Some(set(name, pairs)),
        Config::Unset { name, keys } if is_key(name) => Some(unset(name, keys)),
        Config::Show { name: None, output, .. } => Some(show(output.format)),
        _ => None,
    }
}

fn is_key(name: &str) -> bool {
    name.contains(['.', '='])
}

/// Ends as wrong usage does.
pub fn missing(what: &str) -> ! {
    let text = format!("{what} is missing; millstream help config lists the keys");
    Cli::command().error(ErrorKind::MissingRequiredArgument, text).exit()
}

fn get(key: &str) -> anyhow::Result<()> {
    let settings = client::open().settings()?;
    output::print(&format!("{}\n", settings.get(key)?.unwrap_or_default()))
}

fn set(first: &str, rest: &[String]) -> anyhow::Result<()> {
    let pairs: Vec<(String, String)> = match rest {
        [] if !first.contains('=') => missing("the value"),
        [value] if !first.contains('=') => vec![(first.to_owned(), value.clone())],
        _ => std::iter::once(first)
            .chain(rest.iter().map(String::as_str))
            .map(|text| {
                let (key, value) =
                    text.split_once('=').ok_or_else(|| anyhow!("{text:?} should be KEY=VALUE"))?;
                Ok((key.to_owned(), value.to_owned()))
            })
            .collect::<anyhow::Result<_>>()?,
    };
    change(|settings| pairs.iter().try_for_each(|(key, value)| settings.set(key, value)))
}

fn change(change: impl FnOnce(&mut Settings) -> millstream_client::Result<()>) -> anyhow::Result<()> {
    let client = client::open();
    let before = client.settings()?.shared();
    client.change_settings(|settings| {
        change(settings)?;
        let shared = settings.shared();
        // Done before it is said, so that what is said is so.
        if shared == before { Ok(()) } else { share(&client, shared) }
    })?;
    Ok(())
}

fn share(client: &Client, shared: bool) -> millstream_client::Result<()> {
    if shared && !rustix::process::geteuid().is_root() {
        let reason = "only root's images can be shared".to_owned();
        return Err(millstream_client::Error::Name { value: "images.shared".into(), reason });
    }
    client.store()?.set_shared(shared)
}

fn unset(first: &str, rest: &[String]) -> anyhow::Result<()> {
    let keys = || std::iter::once(first).chain(rest.iter().map(String::as_str));
    if let Some(wrong) = keys().find(|key| key.contains('=')) {
        bail!("{wrong}: keys are unset by their names alone");
    }
    change(|settings| keys().try_for_each(|key| settings.unset(key)))
}

fn show(format: output::Format) -> anyhow::Result<()> {
    output::object(format, client::open().settings()?.all())
}
