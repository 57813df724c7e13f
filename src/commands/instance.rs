//! Containers.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use chrono::{DateTime, Utc};
use millstream_client::Keep;
use millstream_runtime::container::{ExecOptions, ImageUse, Info, Status, Stopped, become_root};
use millstream_runtime::{ContainerName, ImageFiles, Runtime};

use crate::cli::instance::{Create, Delete, Exec, How, Info as InfoArgs, Instance, List, Names, Shell, Stop};
use crate::commands::client;
use crate::interrupt;
use crate::output;
use crate::paths::Paths;
use crate::progress::Bar;

pub fn run(command: &Instance, quiet: bool) -> anyhow::Result<ExitCode> {
    let directory = Paths::from_env().containers();
    become_root(&directory)?;
    let runtime = Runtime::open(&directory)?;
    match command {
        Instance::Launch(args) => create(&runtime, args, true, quiet)?,
        Instance::Create(args) => create(&runtime, args, false, quiet)?,
        Instance::Start(args) => each(args, |name| Ok(runtime.start(name)?))?,
        Instance::Stop(args) => each(&args.names, |name| stop(&runtime, name, args, quiet))?,
        Instance::Restart(args) => each(&args.names, |name| {
            stop(&runtime, name, args, quiet)?;
            Ok(runtime.start(name)?)
        })?,
        Instance::Delete(args) => delete(&runtime, args)?,
        Instance::List(args) => list(&runtime, args)?,
        Instance::Info(args) => info(&runtime, args)?,
        Instance::Exec(args) => return exec(&runtime, args),
        Instance::Shell(args) => return shell(&runtime, args),
    }
    Ok(ExitCode::SUCCESS)
}

/// Finds an image by the name the user gave: a directory, else one of the store, else one of a
/// remote, which is fetched and kept in the store.
fn image(name: &str, quiet: bool) -> anyhow::Result<ImageFiles> {
    if name.starts_with(['.', '/']) {
        return ImageFiles::in_directory(Path::new(name))
            .with_context(|| format!("{name} is no image directory as `millstream build` leaves it"));
    }
    let client = client::open();
    let bar = Bar::new(quiet);
    let fetched =
        client::block_on(client.fetch(&name.parse()?, Keep { cached: true, auto_update: false }, &bar));
    bar.finish();
    let image = fetched??;
    client.store()?.touch(image.fingerprint, Utc::now())?;
    Ok(ImageFiles { fingerprint: image.fingerprint, metadata: image.metadata, rootfs: image.rootfs })
}

fn create(runtime: &Runtime, args: &Create, start: bool, quiet: bool) -> anyhow::Result<()> {
    let name: ContainerName = args.name.parse()?;
    let image = image(&args.image, quiet)?;
    let usage = if args.copy_image { ImageUse::Copied } else { ImageUse::Automatic };
    if start {
        runtime.launch(&name, &image, usage)?;
    } else {
        runtime.create(&name, &image, usage)?;
    }
    if !quiet && start {
        eprintln!("{name} is running; `millstream shell {name}` opens a shell in it");
    }
    Ok(())
}

/// Does something with every container named; one that fails does not keep it from the others.
fn each(args: &Names, mut act: impl FnMut(&ContainerName) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let mut errors = Vec::new();
    for name in &args.names {
        let result = name.parse().map_err(Into::into).and_then(|name| act(&name));
        errors.extend(result.err());
    }
    let last = errors.pop();
    for error in errors {
        eprintln!("millstream: {}", crate::describe(&error));
    }
    last.map_or(Ok(()), Err)
}

fn stop(runtime: &Runtime, name: &ContainerName, args: &Stop, quiet: bool) -> anyhow::Result<()> {
    let limit = if args.force { Duration::ZERO } else { Duration::from_secs(args.timeout) };
    let stopped = runtime.stop(name, limit)?;
    if stopped == Stopped::Killed && !args.force && !quiet {
        eprintln!("{name} did not shut down within {} seconds and was killed", args.timeout);
    }
    Ok(())
}

fn delete(runtime: &Runtime, args: &Delete) -> anyhow::Result<()> {
    each(&args.names, |name| Ok(runtime.delete(name, args.force)?))
}

fn list(runtime: &Runtime, args: &List) -> anyhow::Result<()> {
    let mut containers = runtime.list()?;
    for filter in &args.filters {
        let wanted = matcher(filter)?;
        containers.retain(|info| wanted(info));
    }
    output::list(
        args.output.format,
        &containers,
        &[
            ("NAME", &|info| info.name.to_string()),
            ("STATUS", &|info| status(info).to_owned()),
            ("PID", &|info| info.pid.map_or_else(String::new, |pid| pid.to_string())),
            ("CREATED", &|info| date(info.created_at)),
            ("IMAGE", &|info| info.description.clone().unwrap_or_else(|| info.image.short())),
        ],
    )
}

type Matcher<'a> = Box<dyn Fn(&Info) -> bool + 'a>;

fn matcher(filter: &str) -> anyhow::Result<Matcher<'_>> {
    let Some((key, value)) = filter.split_once('=') else {
        return Ok(Box::new(move |info| info.name.as_str().contains(filter)));
    };
    Ok(match key {
        "name" => Box::new(move |info| info.name.as_str() == value),
        "status" => Box::new(move |info| status(info).eq_ignore_ascii_case(value)),
        "architecture" => Box::new(move |info| info.architecture == value),
        "image" => Box::new(move |info| info.image.to_string().starts_with(value)),
        _ => bail!("containers have no {key}; use name, status, architecture or image"),
    })
}

fn info(runtime: &Runtime, args: &InfoArgs) -> anyhow::Result<()> {
    each(&args.names, |name| output::object(args.output.format, &runtime.info(name)?))
}

fn exec(runtime: &Runtime, args: &Exec) -> anyhow::Result<ExitCode> {
    let terminal = match (args.terminal, args.no_terminal) {
        (true, _) => true,
        (_, true) => false,
        _ => std::io::stdin().is_terminal() && std::io::stdout().is_terminal(),
    };
    enter(runtime, &args.name, &args.how, &args.command, terminal)
}

fn shell(runtime: &Runtime, args: &Shell) -> anyhow::Result<ExitCode> {
    let terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    enter(runtime, &args.name, &args.how, &[], terminal)
}

fn enter(
    runtime: &Runtime,
    name: &str,
    how: &How,
    argv: &[String],
    terminal: bool,
) -> anyhow::Result<ExitCode> {
    let (uid, gid) = user(&how.user)?;
    let mut env = BTreeMap::new();
    if terminal && let Ok(term) = std::env::var("TERM") {
        env.insert("TERM".to_owned(), term);
    }
    for pair in &how.env {
        let (key, value) =
            pair.split_once('=').ok_or_else(|| anyhow!("--env {pair:?} should be KEY=VALUE"))?;
        env.insert(key.to_owned(), value.to_owned());
    }
    let options = ExecOptions { argv: argv.to_vec(), env, cwd: how.cwd.clone(), uid, gid, terminal };
    // Signals go to the command, whose exit we wait for.
    let _token = interrupt::token()?;
    let code = runtime.exec(&name.parse()?, &options)?;
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)))
}

fn user(text: &str) -> anyhow::Result<(u32, u32)> {
    let (uid, gid) = text.split_once(':').unwrap_or((text, text));
    let id =
        |id: &str| id.parse().map_err(|_| anyhow!("--user {text:?} should be UID or UID:GID, as numbers"));
    Ok((id(uid)?, id(gid)?))
}

fn status(info: &Info) -> &'static str {
    match info.status {
        Status::Running => "RUNNING",
        Status::Stopped => "STOPPED",
    }
}

fn date(seconds: i64) -> String {
    DateTime::<Utc>::from_timestamp(seconds, 0).unwrap_or_default().format("%Y-%m-%d %H:%M").to_string()
}
