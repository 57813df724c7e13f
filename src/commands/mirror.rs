//! `millstream mirror`.

use std::time::Duration;

use anyhow::bail;
use millstream_client::{HttpOptions, Remote, Upstream};
use millstream_server::mirror::{self, Filter, Image, Options, Summary};

use crate::cli::mirror::Mirror;
use crate::cli::server::Signing;
use crate::commands::{client, remote, stream};
use crate::output::{self, Format, say};
use crate::paths::Paths;
use crate::progress::Bar;

pub fn run(command: &Mirror, quiet: bool) -> anyhow::Result<()> {
    let options = Options {
        filter: Filter::new(&command.include, &command.exclude, &command.types)?,
        latest: command.latest.map(|latest| latest as usize),
        jobs: command.jobs.into(),
        grace: Duration::from_hours(command.grace.into()),
        dry_run: command.dry_run,
    };
    let server = server(command, quiet)?;
    let signing = Signing { key: command.sign_with.clone(), valid: None };
    let (stream, key) = stream::open_or_init(&command.root, &signing, quiet)?;
    let http = HttpOptions { rate: command.limit_rate, ..HttpOptions::default() };
    let state = Paths::from_env().data.join("mirror");
    let bar = Bar::new(quiet);
    let done = client::block_on(async {
        let upstream = Upstream::open(server, &state, &http).await?;
        mirror::run(&upstream, &stream, &stream::options(&signing, &key), &options, &bar).await
    })?;
    bar.finish();
    report(&done?, command, quiet)
}

/// The server as it was trusted before, or as it is to be trusted now.
fn server(command: &Mirror, quiet: bool) -> anyhow::Result<Remote> {
    let client = client::open();
    if command.key.is_none() && !command.insecure_no_signature {
        let known = client.find_remote(command.url.trim_end_matches(':'));
        if let Ok(Some(name)) = known {
            return Ok(client.remotes()?.get(&name)?.clone());
        }
    }
    let ca = command.ca.as_deref().map(remote::read_text).transpose()?;
    let add = remote::Add {
        url: &command.url,
        key: command.key.as_deref(),
        ca: ca.as_ref(),
        insecure: command.insecure_no_signature,
        reach: &command.reach,
    };
    if command.insecure_no_signature {
        say(quiet, "upstream's documents are NOT SIGNED, as you allowed");
    }
    add.server(&client)
}

fn report(done: &Summary, command: &Mirror, quiet: bool) -> anyhow::Result<()> {
    match command.format {
        Format::Json | Format::Yaml => output::object(command.format, done)?,
        format if !done.added.is_empty() => {
            let product = |image: &Image| image.product.to_string();
            let serial = |image: &Image| image.serial.to_string();
            output::list(format, &done.added, &[("PRODUCT", &product), ("SERIAL", &serial)])?;
        }
        _ => {}
    }
    for reason in &done.refused {
        say(quiet, &format!("not offered: {reason}"));
    }
    for failure in &done.failed {
        say(
            false,
            &format!("failed: {} {}: {}", failure.image.product, failure.image.serial, failure.reason),
        );
    }
    let verb = if command.dry_run { "to add" } else { "added" };
    let text = format!(
        "{} {verb}, {} there already, {} retired, {} failed",
        done.added.len(),
        done.present,
        done.pruned.retired.len(),
        done.failed.len()
    );
    say(quiet, &text);
    if done.failed.is_empty() { Ok(()) } else { bail!("{} images did not come", done.failed.len()) }
}
