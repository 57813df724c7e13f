//! Containers.

mod check;
mod columns;
mod console;
mod create;
mod devices;
mod exec;
mod files;
mod filter;
mod list;
mod publish;
pub mod settings;
mod storage;

use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::bail;
use millstream_runtime::container::{Status, Stopped, become_root};
use millstream_runtime::{ContainerName, Runtime};

use crate::cli::instance::{Delete, Instance, Start, Stop};
use crate::output;
use crate::paths::Paths;

pub fn run(command: &Instance, quiet: bool) -> anyhow::Result<ExitCode> {
    let directory = Paths::from_env().containers();
    if let Instance::Check(output) = command {
        return check::run(&directory, *output);
    }
    if let Instance::Config(args) = command
        && let Some(done) = crate::commands::settings::run(args)
    {
        return done.map(|()| ExitCode::SUCCESS);
    }
    become_root(&directory)?;
    let runtime = Runtime::open(&directory)?;
    match command {
        Instance::Launch(args) => create::run(&runtime, args, true, quiet)?,
        Instance::Create(args) => create::run(&runtime, args, false, quiet)?,
        Instance::Start(args) => start(&runtime, args, quiet)?,
        Instance::Stop(args) => each(&running(&runtime, args)?, |name| stop(&runtime, name, args, quiet))?,
        Instance::Restart(args) => each(&running(&runtime, args)?, |name| {
            stop(&runtime, name, args, quiet)?;
            start_one(&runtime, name, quiet)
        })?,
        Instance::Pause(args) => each(&args.names, |name| Ok(runtime.pause(name)?))?,
        Instance::Resume(args) => each(&args.names, |name| Ok(runtime.resume(name)?))?,
        Instance::Delete(args) => delete(&runtime, args)?,
        Instance::List(args) => list::list(&runtime, args)?,
        Instance::Info(args) => list::info(&runtime, args)?,
        Instance::Snapshot(args) => storage::snapshot(&runtime, args)?,
        Instance::Restore(args) => storage::restore(&runtime, args)?,
        Instance::Copy(args) => storage::copy(&runtime, args)?,
        Instance::Publish(args) => publish::run(&runtime, args, quiet)?,
        Instance::Rename(args) => storage::rename(&runtime, args)?,
        Instance::File(args) => files::run(&runtime, args)?,
        Instance::Logs(args) => console::logs(&runtime, &args.name, args.previous)?,
        Instance::Console(args) => console::connect(&runtime, args, quiet)?,
        Instance::Config(args) => settings::config(&runtime, args, quiet)?,
        Instance::Profile(args) => settings::profile(&runtime, args, quiet)?,
        Instance::Network(args) => crate::commands::network::run(&runtime, args, quiet)?,
        Instance::Exec(args) => return exec::exec(&runtime, args),
        Instance::Shell(args) => return exec::shell(&runtime, args),
        Instance::Check(output) => return check::run(&directory, *output),
    }
    Ok(ExitCode::SUCCESS)
}

/// Does something with every container named; one that fails does not keep it from the others.
fn each(names: &[String], mut act: impl FnMut(&ContainerName) -> anyhow::Result<()>) -> anyhow::Result<()> {
    each_text(names, |name| act(&name.parse()?))
}

/// As [`each`], for what is not only a name.
pub fn each_text(names: &[String], act: impl FnMut(&String) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let mut errors: Vec<_> = names.iter().map(act).filter_map(Result::err).collect();
    let last = errors.pop();
    for error in errors {
        eprintln!("millstream: {}", crate::describe(&error));
    }
    last.map_or(Ok(()), Err)
}

/// Those named, or all that run.
fn running(runtime: &Runtime, args: &Stop) -> anyhow::Result<Vec<String>> {
    if !args.all {
        return Ok(args.names.clone());
    }
    let containers = runtime.list()?.into_iter().filter(|info| info.status != Status::Stopped);
    Ok(containers.map(|info| info.name.to_string()).collect())
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
    each_text(&args.names, |text| match storage::split(text)? {
        (name, Some(snapshot)) => Ok(runtime.delete_snapshot(&name, &snapshot)?),
        (name, None) => Ok(runtime.delete(&name, args.force)?),
    })
}

fn start(runtime: &Runtime, args: &Start, quiet: bool) -> anyhow::Result<()> {
    if !args.all_autostart {
        return each(&args.names, |name| start_one(runtime, name, quiet));
    }
    let waiting = runtime.to_autostart()?;
    let names: Vec<_> = waiting.iter().map(|(name, _)| name.to_string()).collect();
    each(&names, |name| {
        start_one(runtime, name, quiet)?;
        let delay = waiting.iter().find(|(other, _)| other == name).map_or(0, |(_, delay)| *delay);
        std::thread::sleep(Duration::from_secs(delay));
        Ok(())
    })
}

fn start_one(runtime: &Runtime, name: &ContainerName, quiet: bool) -> anyhow::Result<()> {
    runtime.start(name)?;
    say_notes(runtime, name, quiet)
}

/// What a run that has begun lacks.
fn say_notes(runtime: &Runtime, name: &ContainerName, quiet: bool) -> anyhow::Result<()> {
    for note in runtime.notes(name)? {
        output::say(quiet, &format!("{name}: {note}"));
    }
    Ok(())
}

/// Lets the user change a file.
fn editor(file: &Path) -> anyhow::Result<()> {
    let editor = ["VISUAL", "EDITOR"].into_iter().find_map(|name| std::env::var(name).ok());
    let editor = editor.unwrap_or_else(|| "vi".into());
    let status = Command::new("sh").args(["-c", "exec $0 \"$1\"", &editor]).arg(file).status()?;
    if !status.success() {
        bail!("{editor} failed ({status}); nothing has changed");
    }
    Ok(())
}
