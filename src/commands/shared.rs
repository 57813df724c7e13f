//! Streams in a shared storage: the address in place of a directory.

use std::path::Path;
use std::sync::Arc;

use anyhow::bail;
use millstream_image::openpgp::SigningKey;
use millstream_server::config::Config;
use millstream_server::keys::KeyStore;
use millstream_server::shared::{Reader, SharedStream};
use millstream_server::storage::{Address, Credentials};
use millstream_server::stream::{Deltas, Retention, Signing as Signed};

use crate::cli::server::{Signing, Stream};
use crate::commands::stream::{self as plain, hours, options, selector};
use crate::output::{self, Format, say};
use crate::paths::Paths;

/// The address, where `root` is one.
pub fn address(root: &Path) -> anyhow::Result<Option<Address>> {
    Ok(Address::parse(root)?)
}

/// The root that a command is about.
pub fn root_of(command: &Stream) -> &Path {
    match command {
        Stream::Init { root, .. }
        | Stream::Add { root, .. }
        | Stream::List { root, .. }
        | Stream::Show { root, .. }
        | Stream::Remove { root, .. }
        | Stream::Prune { root, .. }
        | Stream::Verify { root, .. }
        | Stream::Sign { root, .. } => root,
        Stream::ExportConfig(config) => &config.root,
    }
}

/// `stream` on a shared storage.
pub fn run(command: &Stream, address: &Address, quiet: bool) -> anyhow::Result<()> {
    let shared = open(address)?;
    let now = std::time::SystemTime::now();
    match command {
        Stream::Init { signing, .. } => init(&shared, address, signing, quiet),
        Stream::Add { unsigned: true, .. } => {
            bail!("{address}: images cannot wait for a signature here; use a directory for --unsigned")
        }
        Stream::Add { images, deltas, unified, signing, .. } => {
            let shared = shared.with_unified(*unified);
            let key = key(&shared, signing)?;
            let deltas = Deltas { last: *deltas, ..Deltas::default() };
            images
                .iter()
                .try_for_each(|dir| plain::report(&shared.add(dir, &options(signing, &key), &deltas)?, quiet))
        }
        Stream::List { output, .. } => plain::list(&shared.list(now)?, output.format),
        Stream::Show { image, output, .. } => {
            output::object(output.format, &shared.show(&selector(image), now)?)
        }
        Stream::Remove { images, grace, signing, .. } => {
            let key = key(&shared, signing)?;
            let images: Vec<_> = images.iter().map(|name| selector(name)).collect();
            let done = shared.remove(&images, hours(grace), &options(signing, &key))?;
            plain::pruned(&done, Format::Table, quiet, false)
        }
        Stream::Prune { keep, days, dry_run, grace, signing, output, .. } => {
            let retention = Retention { newest: keep.map(|keep| keep as usize), days: *days };
            let done = if *dry_run {
                shared.plan_prune(retention, now)?
            } else {
                let key = key(&shared, signing)?;
                shared.prune(retention, hours(grace), &options(signing, &key))?
            };
            plain::pruned(&done, output.format, quiet, *dry_run)
        }
        Stream::Verify { repair: true, .. } => {
            bail!("{address}: --repair works on a stream in a directory only; remove and add what is damaged")
        }
        Stream::Verify { output, .. } => plain::verify(&shared.verify(now)?, output.format, quiet),
        Stream::Sign { if_due, signing, .. } => sign(&shared, *if_due, signing, quiet),
        Stream::ExportConfig(_) => {
            bail!("{address}: other web servers serve directories; see: millstream serve --root {address}")
        }
    }
}

/// What `serve` reads where the root is an address.
pub fn reader(root: &Path, config: &Config) -> anyhow::Result<Option<Arc<Reader>>> {
    let Some(address) = address(root)? else { return Ok(None) };
    let paths = Paths::from_env();
    let storage = address.open(&credentials(&paths)?)?;
    Ok(Some(Arc::new(Reader::new(storage, config.serve.delivery, &paths.cache.join("shared"))?)))
}

/// Signs anew when it is time to, as `stream sign --if-due`.
pub fn sign_if_due(address: &Address, quiet: bool) -> anyhow::Result<()> {
    sign(&open(address)?, true, &Signing { key: None, valid: None }, quiet)
}

fn credentials(paths: &Paths) -> anyhow::Result<Credentials> {
    Ok(Credentials::read(&paths.config.join("s3.toml"), |name| std::env::var(name).ok())?)
}

fn open(address: &Address) -> anyhow::Result<SharedStream> {
    let paths = Paths::from_env();
    Ok(SharedStream::at(address, &credentials(&paths)?, &paths.cache.join("shared"))?)
}

fn init(shared: &SharedStream, address: &Address, signing: &Signing, quiet: bool) -> anyhow::Result<()> {
    let key = if shared.exists()? { key(shared, signing)? } else { plain::new_key(signing, quiet)? };
    let state = if shared.init(&options(signing, &key))? { "a stream now" } else { "a stream already" };
    let names: Vec<_> = key.fingerprints().iter().map(ToString::to_string).collect();
    say(quiet, &format!("{address}: {state}, signed by {}", names.join(" and ")));
    Ok(())
}

fn key(shared: &SharedStream, signing: &Signing) -> anyhow::Result<SigningKey> {
    let store = KeyStore::new(Paths::from_env().keys());
    Ok(match &signing.key {
        Some(name) => store.load(name)?,
        None => store.find_all(&shared.keys()?)?,
    })
}

fn sign(shared: &SharedStream, if_due: bool, signing: &Signing, quiet: bool) -> anyhow::Result<()> {
    let key = key(shared, signing)?;
    let signed: Signed<'_> = options(signing, &key);
    if !if_due || shared.is_due(signed.now)? {
        let expires = shared.sign(&signed)?.format("%Y-%m-%d %H:%M UTC");
        say(quiet, &format!("{}: signed, good until {expires}", shared.name()));
    }
    Ok(())
}
