//! `file`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::anyhow;
use millstream_runtime::container::PushOptions;
use millstream_runtime::{ContainerName, Runtime};

use crate::cli::files::{File, Pull, Push};

pub fn run(runtime: &Runtime, command: &File) -> anyhow::Result<()> {
    match command {
        File::Pull(args) => pull(runtime, args),
        File::Push(args) => push(runtime, args),
        File::Edit { file } => edit(runtime, file),
    }
}

fn pull(runtime: &Runtime, args: &Pull) -> anyhow::Result<()> {
    if args.files.len() > 1 && !args.target.is_dir() && args.target != Path::new("-") {
        anyhow::bail!("{} is no directory; several files need one", args.target.display());
    }
    for file in &args.files {
        let (name, path) = split(file)?;
        if args.target == Path::new("-") {
            runtime.pull_to(&name, &path, &mut std::io::stdout().lock())?;
        } else {
            runtime.pull(&name, &path, &args.target, args.recursive)?;
        }
    }
    Ok(())
}

fn push(runtime: &Runtime, args: &Push) -> anyhow::Result<()> {
    let (name, path) = split(&args.target)?;
    let Push { uid, gid, mode, create_dirs: parents, recursive, .. } = *args;
    let options = PushOptions { uid, gid, mode, parents, recursive };
    for source in &args.sources {
        if source == Path::new("-") {
            runtime.push_from(&name, &mut std::io::stdin().lock(), &path, &options)?;
        } else {
            runtime.push(&name, source, &path, &options)?;
        }
    }
    Ok(())
}

fn edit(runtime: &Runtime, file: &str) -> anyhow::Result<()> {
    let (name, path) = split(file)?;
    let mut before = Vec::new();
    let found = runtime.pull_to(&name, &path, &mut before)?;
    let suffix = path.extension().map_or_else(String::new, |end| format!(".{}", end.to_string_lossy()));
    let temp = tempfile::Builder::new().suffix(&suffix).tempfile()?;
    fs::write(temp.path(), &before)?;
    super::editor(temp.path())?;
    let after = fs::read(temp.path())?;
    if after == before {
        return Ok(());
    }
    let options =
        PushOptions { uid: found.uid, gid: found.gid, mode: Some(found.mode), ..PushOptions::default() };
    Ok(runtime.push_from(&name, &mut after.as_slice(), &path, &options)?)
}

/// `CONTAINER/PATH`.
fn split(text: &str) -> anyhow::Result<(ContainerName, PathBuf)> {
    let wrong = || anyhow!("{text:?} should be CONTAINER/PATH, as in web1/etc/hosts");
    let (name, path) = text.split_once('/').ok_or_else(wrong)?;
    Ok((name.parse()?, Path::new("/").join(path)))
}
