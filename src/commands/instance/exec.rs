//! `exec` and `shell`.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::process::ExitCode;

use anyhow::anyhow;
use millstream_runtime::Runtime;
use millstream_runtime::container::ExecOptions;

use crate::cli::instance::{Exec, How, Shell};
use crate::interrupt;

pub fn exec(runtime: &Runtime, args: &Exec) -> anyhow::Result<ExitCode> {
    let terminal = match (args.terminal, args.no_terminal) {
        (true, _) => true,
        (_, true) => false,
        _ => std::io::stdin().is_terminal() && std::io::stdout().is_terminal(),
    };
    enter(runtime, &args.name, &args.how, &args.command, terminal)
}

pub fn shell(runtime: &Runtime, args: &Shell) -> anyhow::Result<ExitCode> {
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
    interrupt::hold_back()?;
    let code = runtime.exec(&name.parse()?, &options)?;
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)))
}

fn user(text: &str) -> anyhow::Result<(u32, u32)> {
    let (uid, gid) = text.split_once(':').unwrap_or((text, text));
    let id =
        |id: &str| id.parse().map_err(|_| anyhow!("--user {text:?} should be UID or UID:GID, as numbers"));
    Ok((id(uid)?, id(gid)?))
}
