//! `millstream stream`.

use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::bail;
use millstream_image::openpgp::SigningKey;
use millstream_server::hosting;
use millstream_server::keys::{self, KeyStore};
use millstream_server::stream::{self, Deltas, Listed, Problem, Pruned, Report, Retention, Selector};

use crate::cli::push::Destination;
use crate::cli::server::{ExportConfig, Grace, Signing, Stream, WebServer};
use crate::commands::key::default_user_id;
use crate::commands::{push, shared};
use crate::output::{self, Format, say};
use crate::paths::Paths;

pub fn run(command: &Stream, quiet: bool) -> anyhow::Result<()> {
    if let Some(address) = shared::address(shared::root_of(command))? {
        return shared::run(command, &address, quiet);
    }
    match command {
        Stream::Init { root, signing } => {
            let new = stream::Stream::open(root).is_err();
            let (stream, _) = open_or_init(root, signing, quiet)?;
            let state = if new { "a stream now" } else { "a stream already" };
            say(quiet, &format!("{}: {state}, signed by {}", root.display(), stream.key_fingerprint()?));
            Ok(())
        }
        Stream::Add { root, images, to: to @ Destination { to: Some(server), .. }, .. } => {
            push::run(to, server, std::iter::once(root).chain(images), quiet)
        }
        Stream::Add { root, images, unsigned: true, .. } => {
            images.iter().try_for_each(|dir| add_unsigned(root, dir, quiet))
        }
        Stream::Add { root, images, deltas, unified, signing, .. } => {
            let stream = stream::Stream::open(root)?.with_unified(*unified);
            let key = key(&stream, signing)?;
            let deltas = Deltas { last: *deltas, ..Deltas::default() };
            images.iter().try_for_each(|dir| add(&stream, dir, &options(signing, &key), &deltas, quiet))
        }
        Stream::List { root, output } => {
            list(&stream::Stream::open(root)?.list(SystemTime::now())?, output.format)
        }
        Stream::Show { root, image, output } => {
            let shown = stream::Stream::open(root)?.show(&selector(image), SystemTime::now())?;
            output::object(output.format, &shown)
        }
        Stream::Remove { root, images, grace, signing } => {
            let stream = stream::Stream::open(root)?;
            let key = key(&stream, signing)?;
            let now = SystemTime::now();
            // All are looked up before the first goes: a typing error removes nothing.
            let found = images.iter().map(|name| stream.find(&selector(name), now));
            let found: Vec<_> =
                found.map(|image| image.map(|i| (i.product, i.serial))).collect::<Result<_, _>>()?;
            pruned(
                &stream.remove(&found, hours(grace), &options(signing, &key))?,
                Format::Table,
                quiet,
                false,
            )
        }
        Stream::Prune { root, keep, days, dry_run, grace, signing, output } => {
            let stream = stream::Stream::open(root)?;
            let retention = Retention { newest: keep.map(|keep| keep as usize), days: *days };
            let done = if *dry_run {
                stream.plan_prune(retention, SystemTime::now())?
            } else {
                let key = key(&stream, signing)?;
                stream.prune(retention, hours(grace), &options(signing, &key))?
            };
            pruned(&done, output.format, quiet, *dry_run)
        }
        Stream::Verify { root, repair, signing, output } => {
            if *repair {
                self::repair(root, signing, quiet)?;
            }
            verify(&stream::Stream::open(root)?.verify(SystemTime::now())?, output.format, quiet)
        }
        Stream::Sign { root, if_due, deltas, unified, signing } => {
            let deltas = Deltas { last: *deltas, ..Deltas::default() };
            sign(&stream::Stream::open(root)?.with_unified(*unified), *if_due, &deltas, signing, quiet)
        }
        Stream::ExportConfig(config) => export_config(config),
    }
}

fn export_config(config: &ExportConfig) -> anyhow::Result<()> {
    let server = match config.server {
        WebServer::Nginx => hosting::Server::Nginx,
        WebServer::Apache => hosting::Server::Apache,
        WebServer::Caddy => hosting::Server::Caddy,
    };
    let tls = config.tls_cert.clone().zip(config.tls_key.clone());
    let site = hosting::Site { host: config.host.clone(), listen: config.listen.clone(), tls };
    output::print(&stream::Stream::open(&config.root)?.export_config(server, &site)?)
}

/// Signs anew when it is time to, as `stream sign --if-due`.
pub fn sign_if_due(root: &Path, quiet: bool) -> anyhow::Result<()> {
    if let Some(address) = shared::address(root)? {
        return shared::sign_if_due(&address, quiet);
    }
    let signing = Signing { key: None, valid: None };
    sign(&stream::Stream::open(root)?, true, &Deltas::default(), &signing, quiet)
}

fn sign(
    stream: &stream::Stream,
    if_due: bool,
    deltas: &Deltas,
    signing: &Signing,
    quiet: bool,
) -> anyhow::Result<()> {
    let store = KeyStore::new(Paths::from_env().keys());
    let present = stream.keys()?;
    let keys = match &signing.key {
        Some(name) => vec![store.load(name)?],
        None => store.successors(&present)?,
    };
    let changes = keys.last().is_some_and(|key| key.fingerprints() != present);
    if !if_due || changes || stream.is_due(SystemTime::now())? {
        for key in &keys {
            let expires = stream.sign(&options(signing, key))?.format("%Y-%m-%d %H:%M UTC");
            let names: Vec<_> = key.fingerprints().iter().map(ToString::to_string).collect();
            let text = format!(
                "{}: signed by {}, good until {expires}",
                stream.root().display(),
                names.join(" and ")
            );
            say(quiet, &text);
        }
    }
    let Some(key) = keys.last() else { return Ok(()) };
    for image in stream.unsigned()? {
        let added = stream.publish_unsigned(&image, &options(signing, key), deltas)?;
        report(&added, quiet)?;
    }
    Ok(())
}

/// Leaves an image in the tree for whoever has the key.
fn add_unsigned(root: &Path, dir: &Path, quiet: bool) -> anyhow::Result<()> {
    let (path, new) = stream::Stream::add_unsigned(root, dir)?;
    let state = if new { "waits for: millstream stream sign" } else { "is there already" };
    say(quiet, &format!("{} {state}", path.display()));
    output::print(&format!("{}\n", path.display()))
}

/// Publishes one finished image.
pub fn publish(root: &Path, image: &Path, signing: &Signing, quiet: bool) -> anyhow::Result<()> {
    let stream = stream::Stream::open(root)?;
    let key = key(&stream, signing)?;
    add(&stream, image, &options(signing, &key), &Deltas::default(), quiet)
}

/// The stream in `root`, made when it is not there, and the key that signs it.
pub fn open_or_init(
    root: &Path,
    signing: &Signing,
    quiet: bool,
) -> anyhow::Result<(stream::Stream, SigningKey)> {
    let key = first_key(root, signing, quiet)?;
    Ok((stream::Stream::init(root, &options(signing, &key))?.0, key))
}

/// The key of a stream that exists: the one named, else those its clients trust.
fn key(stream: &stream::Stream, signing: &Signing) -> anyhow::Result<SigningKey> {
    let store = KeyStore::new(Paths::from_env().keys());
    Ok(match &signing.key {
        Some(name) => store.load(name)?,
        None => store.find_all(&stream.keys()?)?,
    })
}

/// The key of a stream that is to be made; itself made on first use, which is said.
fn first_key(root: &Path, signing: &Signing, quiet: bool) -> anyhow::Result<SigningKey> {
    stream::Stream::check_root(root)?;
    if let Ok(stream) = stream::Stream::open(root) {
        return key(&stream, signing);
    }
    new_key(signing, quiet)
}

/// The key for a new stream; itself made on first use, which is said.
pub fn new_key(signing: &Signing, quiet: bool) -> anyhow::Result<SigningKey> {
    let store = KeyStore::new(Paths::from_env().keys());
    let name = signing.key.as_deref().unwrap_or(keys::DEFAULT);
    let (key, made) = store.load_or_generate(name, &default_user_id(name), SystemTime::now())?;
    if let Some(made) = made {
        let path = store.secret_path(name);
        say(
            quiet,
            &format!("made signing key {name}, {}: keep a copy of {}", made.fingerprint, path.display()),
        );
    }
    Ok(key)
}

/// Signs now.
pub fn options<'a>(signing: &Signing, key: &'a SigningKey) -> stream::Signing<'a> {
    let validity = signing.valid.map(|days| Duration::from_hours(24 * u64::from(days)));
    stream::Signing { key, now: SystemTime::now(), validity }
}

pub fn selector(name: &str) -> Selector {
    let Ok(selector) = name.parse();
    selector
}

pub fn hours(grace: &Grace) -> Duration {
    Duration::from_hours(grace.grace.into())
}

pub fn pruned(done: &Pruned, format: Format, quiet: bool, dry_run: bool) -> anyhow::Result<()> {
    if matches!(format, Format::Json | Format::Yaml) {
        return output::object(format, done);
    }
    let retired = done.retired.iter().map(|image| ("retired", &image.path));
    let orphans = done.orphans.iter().map(|path| ("orphan", path));
    let removed = done.removed.iter().map(|path| ("removed", path));
    let lines: Vec<_> = retired.chain(orphans).chain(removed).collect();
    if !lines.is_empty() {
        let state = |line: &(&str, &std::path::PathBuf)| line.0.to_owned();
        let path = |line: &(&str, &std::path::PathBuf)| line.1.display().to_string();
        output::list(format, &lines, &[("STATE", &state), ("IMAGE", &path)])?;
    }
    let (gone, freed) = if dry_run { ("to remove", "to free") } else { ("removed", "freed") };
    let text = format!(
        "{} to retire or retired, {} orphans, {} {gone}, {:.1} MB {freed}",
        done.retired.len(),
        done.orphans.len(),
        done.removed.len(),
        done.freed as f64 / 1e6
    );
    say(quiet, &text);
    Ok(())
}

fn add(
    stream: &stream::Stream,
    dir: &Path,
    signing: &stream::Signing<'_>,
    deltas: &Deltas,
    quiet: bool,
) -> anyhow::Result<()> {
    report(&stream.add_with(dir, signing, deltas)?, quiet)
}

pub fn report(added: &stream::Added, quiet: bool) -> anyhow::Result<()> {
    for delta in &added.deltas {
        let text = match &delta.size {
            Ok(size) => {
                let percent = *size as f64 * 100.0 / delta.full.max(1) as f64;
                format!("{}: {:.2} MB, {percent:.1} % of the whole", delta.name, *size as f64 / 1e6)
            }
            Err(reason) => format!("no {}: {reason}", delta.name),
        };
        say(quiet, &text);
    }
    for (alias, product) in &added.moved_aliases {
        say(quiet, &format!("alias {alias} now leads to {}, no longer to {product}", added.product));
    }
    let state = if added.new { "added" } else { "is there already" };
    say(quiet, &format!("{} {} {state}", added.product, added.serial));
    output::print(&format!("{}\n", added.path.display()))
}

pub fn list(images: &[Listed], format: Format) -> anyhow::Result<()> {
    let product = |image: &Listed| image.product.to_string();
    let serial = |image: &Listed| image.serial.to_string();
    let fingerprint = |image: &Listed| image.fingerprint.map(|f| f.short()).unwrap_or_default();
    let size = |image: &Listed| format!("{:.1} MB", image.size as f64 / 1e6);
    let aliases = |image: &Listed| if image.newest { image.aliases.join(" ") } else { String::new() };
    output::list(
        format,
        images,
        &[
            ("PRODUCT", &product),
            ("SERIAL", &serial),
            ("FINGERPRINT", &fingerprint),
            ("SIZE", &size),
            ("ALIASES", &aliases),
        ],
    )
}

/// Repairs the documents. Where no key file is left to say who signs, the key must be named.
fn repair(root: &Path, signing: &Signing, quiet: bool) -> anyhow::Result<()> {
    let key = match (&signing.key, stream::Stream::open(root)) {
        (None, Ok(stream)) => key(&stream, signing)?,
        (name, _) => {
            KeyStore::new(Paths::from_env().keys()).load(name.as_deref().unwrap_or(keys::DEFAULT))?
        }
    };
    let repaired = stream::Stream::repair(root, &options(signing, &key))?;
    for problem in &repaired.dropped {
        say(quiet, &format!("no longer listed: {}: {}", problem.path.display(), problem.reason));
    }
    let how = if repaired.rebuilt { "listed anew from their directories" } else { "listed as before" };
    say(quiet, &format!("repaired: {} images, {how}", repaired.images));
    Ok(())
}

pub fn verify(report: &Report, format: Format, quiet: bool) -> anyhow::Result<()> {
    match format {
        Format::Json | Format::Yaml => output::object(format, report)?,
        Format::Table | Format::Csv if !report.problems.is_empty() => {
            let path = |problem: &Problem| problem.path.display().to_string();
            let reason = |problem: &Problem| problem.reason.clone();
            output::list(format, &report.problems, &[("PATH", &path), ("PROBLEM", &reason)])?;
        }
        Format::Table | Format::Csv => {}
    }
    let megabytes = report.bytes as f64 / 1e6;
    say(quiet, &format!("{} images, {} files, {megabytes:.1} MB checked", report.images, report.files));
    match report.problems.len() {
        0 => Ok(()),
        1 => bail!("1 problem found"),
        n => bail!("{n} problems found"),
    }
}
