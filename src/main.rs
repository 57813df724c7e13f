//! The command line: parse, call, print. No logic.

mod cli;
mod commands;
mod interrupt;
mod output;
mod paths;
mod progress;

use std::process::ExitCode;

use clap::Parser;

use cli::lxc_template::LxcTemplate;
use cli::{Cli, Command};

fn main() -> ExitCode {
    // This very program, started again, is the inside of its sandboxes.
    millstream_runtime::init();
    commands::completion::answer();
    let result = if LxcTemplate::is_called() { commands::lxc_template::run() } else { run(&Cli::parse()) };
    match result {
        Ok(code) => code,
        Err(error) => {
            output::say(false, &format!("millstream: {}", describe(&error)));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> anyhow::Result<ExitCode> {
    match &cli.command {
        Command::Up(command) => commands::up::run(command, cli.quiet)?,
        Command::Recipe(command) => commands::recipe::run(command)?,
        Command::Build(command) => commands::build::run(command, cli.quiet)?,
        Command::Pack(command) => commands::pack::run(command, cli.quiet)?,
        Command::Manifest(command) => commands::manifest::run(command, cli.quiet)?,
        Command::Stream(command) => commands::stream::run(command, cli.quiet)?,
        Command::Key(command) => commands::key::run(command, cli.quiet)?,
        Command::Token(command) => commands::token::run(command, cli.quiet)?,
        Command::Serve(command) => commands::serve::run(command, cli.quiet)?,
        Command::Daily(command) => return commands::daily::run(command, cli.quiet),
        Command::Mirror(command) => commands::mirror::run(command, cli.quiet)?,
        Command::Instance(command) => return commands::instance::run(command, cli.quiet),
        Command::Remote(command) => commands::remote::run(command, cli.quiet)?,
        Command::Store(command) => return commands::store::run(command, cli.quiet),
        Command::Image(command) => commands::image::run(command, cli.quiet)?,
        Command::Completion(command) => commands::completion::script(command)?,
        Command::Man(command) => commands::completion::man(command)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// An error and its causes on one line, each said once.
fn describe(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if !text.contains(&cause) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&cause);
        }
    }
    text
}
