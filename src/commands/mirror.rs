//! `millstream mirror`.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use millstream_client::{HttpOptions, Remote, Upstream};
use millstream_server::config::Config;
use millstream_server::mirror::{self, Filter, Image, Options, Summary};

use crate::cli::client::Reach;
use crate::cli::mirror::Mirror;
use crate::cli::server::Signing;
use crate::commands::{client, remote, stream};
use crate::interrupt;
use crate::output::{self, Format, say};
use crate::paths::Paths;
use crate::progress::Bar;

pub fn run(command: &Mirror, quiet: bool) -> anyhow::Result<()> {
    if let Some(config) = &command.config {
        return run_configured(config, command.url.as_deref());
    }
    let (Some(url), Some(root)) = (&command.url, &command.root) else { bail!("URL and ROOT are needed") };
    let options = Options {
        filter: Filter::new(&command.include, &command.exclude, &command.types)?,
        latest: command.latest.map(|latest| latest as usize),
        jobs: command.jobs.into(),
        grace: Duration::from_hours(command.grace.into()),
        dry_run: command.dry_run,
    };
    let from = From {
        url,
        key: command.key.as_deref(),
        ca: command.ca.as_deref(),
        insecure: command.insecure_no_signature,
        reach: &command.reach,
    };
    let server = server(&from, quiet)?;
    let signing = Signing { key: command.sign_with.clone(), valid: None };
    let (stream, key) = stream::open_or_init(root, &signing, quiet)?;
    let stream = stream.with_unified(command.unified);
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

/// The mirrors of a configuration, or the one of this name, one after the other.
fn run_configured(file: &Path, name: Option<&str>) -> anyhow::Result<()> {
    let mut config = Config::read(file)?;
    let names: Vec<_> = config.mirror.iter().map(|mirror| mirror.name.clone()).collect();
    config.mirror.retain(|mirror| name.is_none_or(|name| mirror.name == name));
    if config.mirror.is_empty() {
        bail!("{}: no such [[mirror]]; there are: {}", file.display(), names.join(", "));
    }
    let cancel = interrupt::token()?;
    let mut failed = 0;
    for job in jobs(&config, false) {
        failed += usize::from(!job.run_now(&cancel)?);
        cancel.check()?;
    }
    if failed == 0 { Ok(()) } else { bail!("{failed} of {} mirrors failed", config.mirror.len()) }
}

/// The mirrors of a configuration, each to run in a process of this program.
pub fn jobs(config: &Config, quiet: bool) -> Vec<mirror::Job> {
    let say: Arc<dyn Fn(&str) + Send + Sync> = Arc::new(move |text| say(quiet, text));
    mirror::Job::all(config, Path::new("/proc/self/exe"), &say)
}

/// A server to copy from, and how it is trusted.
pub struct From<'a> {
    pub url: &'a str,
    pub key: Option<&'a str>,
    pub ca: Option<&'a Path>,
    /// Signatures are waived.
    pub insecure: bool,
    pub reach: &'a Reach,
}

/// The server as it was trusted before, or as it is to be trusted now.
pub fn server(from: &From<'_>, quiet: bool) -> anyhow::Result<Remote> {
    let client = client::open();
    if from.key.is_none() && !from.insecure {
        let known = client.find_remote(from.url.trim_end_matches(':'));
        if let Ok(Some(name)) = known {
            return Ok(client.remotes()?.get(&name)?.clone());
        }
    }
    let ca = from.ca.map(remote::read_text).transpose()?;
    let &From { url, key, insecure, reach, .. } = from;
    if insecure {
        say(quiet, "upstream's documents are NOT SIGNED, as you allowed");
    }
    remote::Add { url, key, ca: ca.as_ref(), insecure, reach, protocol: None }.server(&client)
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
