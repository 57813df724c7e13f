//! `console` and `logs`.

use std::io::{IsTerminal, Write};

use millstream_runtime::Runtime;
use millstream_runtime::container::Detached;

use crate::cli::instance::Console;
use crate::{interrupt, output};

pub fn connect(runtime: &Runtime, args: &Console, quiet: bool) -> anyhow::Result<()> {
    if args.show_log {
        return logs(runtime, &args.name, false);
    }
    let name = args.name.parse()?;
    let terminal = std::io::stdin().is_terminal();
    if terminal && runtime.info(&name)?.pid.is_some() {
        output::say(quiet, "To disconnect, press Ctrl-a q.");
    }
    let detached = runtime.console(&name, &interrupt::token()?)?;
    if terminal {
        output::say(quiet, "");
    }
    if detached == Detached::Stopped {
        output::say(quiet, &format!("{name} has stopped"));
    }
    Ok(())
}

pub fn logs(runtime: &Runtime, name: &str, previous: bool) -> anyhow::Result<()> {
    let log = runtime.console_log(&name.parse()?, previous)?;
    if !std::io::stdout().is_terminal() {
        return Ok(std::io::stdout().write_all(&log)?);
    }
    // Nothing in it steers the terminal.
    let plain = |c: &char| !c.is_control() || matches!(c, '\n' | '\t');
    output::print(&String::from_utf8_lossy(&log).chars().filter(plain).collect::<String>())
}
