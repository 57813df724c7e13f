//! Completion in shells, and man pages: both from the definitions of the command line.
//!
//! The script that a shell has asks this program, with [`VARIABLE`] set, what may come next.

mod names;

use std::fs;

use anyhow::{Context, bail};
use clap::{Arg, Command, CommandFactory};
use clap_complete::engine::ArgValueCompleter;
use clap_complete::env::{CompleteEnv, Shells};

use crate::cli::Cli;
use crate::cli::completion::{Completion, Man};
use crate::output;

const PROGRAM: &str = "millstream";
const VARIABLE: &str = "MILLSTREAM_COMPLETE";

/// Answers the script of a shell and ends, if it is that who asks.
pub fn answer() {
    CompleteEnv::with_factory(definitions).var(VARIABLE).complete();
}

pub fn script(command: &Completion) -> anyhow::Result<()> {
    let shell = command.shell.name();
    let shells = Shells::builtins();
    let Some(shell) = shells.completer(shell) else { bail!("{shell}: unknown shell") };
    let mut script = Vec::new();
    shell.write_registration(VARIABLE, PROGRAM, PROGRAM, PROGRAM, &mut script)?;
    output::print(&String::from_utf8(script)?)
}

pub fn man(command: &Man) -> anyhow::Result<()> {
    let dir = &command.dir;
    fs::create_dir_all(dir)
        .and_then(|()| clap_mangen::generate_to(Cli::command(), dir))
        .with_context(|| format!("cannot write to {}", dir.display()))
}

/// The command line, with what its arguments may be.
fn definitions() -> Command {
    Cli::command().mut_subcommands(|command| {
        let group = command.get_name().to_owned();
        named(command, &group)
    })
}

/// Arguments have the same names wherever they mean the same.
fn named(command: Command, group: &str) -> Command {
    let nested = |command: Command| named(command, group);
    command.mut_args(|arg| completed(arg, group)).mut_subcommands(nested)
}

fn completed(arg: Arg, group: &str) -> Arg {
    let completer = match (group, arg.get_id().as_str()) {
        ("image", "image" | "images") => ArgValueCompleter::new(names::local_images),
        ("image", "source" | "filters") | ("launch" | "create", "image") => {
            ArgValueCompleter::new(names::images)
        }
        ("image", "aliases" | "from") => ArgValueCompleter::new(names::aliases),
        ("remote", "name" | "names") => ArgValueCompleter::new(names::remotes),
        (
            "start" | "stop" | "restart" | "pause" | "resume" | "delete" | "info" | "exec" | "shell"
            | "console" | "logs" | "snapshot" | "restore" | "copy" | "publish" | "rename" | "config",
            "name" | "names" | "from" | "source",
        ) => ArgValueCompleter::new(names::containers),
        _ => return arg,
    };
    arg.add(completer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions_are_sound() {
        definitions().debug_assert();
    }
}
