//! `snapshot`, `restore`, `copy`, `rename`, and snapshots in `delete`.

use anyhow::bail;
use millstream_runtime::container::Tended;
use millstream_runtime::{ContainerName, Runtime};

use crate::cli::storage::{Copy, Rename, Restore, TakeSnapshot};
use crate::output;

pub fn snapshot(runtime: &Runtime, args: &TakeSnapshot) -> anyhow::Result<()> {
    let Some(name) = &args.name else { return scheduled(runtime) };
    let snapshot = args.snapshot.as_deref().map(str::parse).transpose()?;
    let made = runtime.snapshot(&name.parse()?, snapshot.as_ref(), args.expiry)?;
    output::print(&format!("{made}\n"))
}

/// One that fails does not keep the others from theirs.
fn scheduled(runtime: &Runtime) -> anyhow::Result<()> {
    let mut failed = None;
    for tended in runtime.tend_snapshots()? {
        match tended {
            Tended::Taken { name, snapshot } => output::print(&format!("{name}/{snapshot} taken\n"))?,
            Tended::Expired { name, snapshot } => output::print(&format!("{name}/{snapshot} deleted\n"))?,
            Tended::Failed { name, error } => {
                output::say(false, &format!("millstream: {name}: {error}"));
                failed = Some(name);
            }
        }
    }
    failed.map_or(Ok(()), |name| {
        bail!("snapshots of {name} and what is said above failed; the next run tries again")
    })
}

pub fn restore(runtime: &Runtime, args: &Restore) -> anyhow::Result<()> {
    Ok(runtime.restore(&args.name.parse()?, &args.snapshot.parse()?)?)
}

pub fn copy(runtime: &Runtime, args: &Copy) -> anyhow::Result<()> {
    let (from, snapshot) = split(&args.from)?;
    Ok(runtime.copy(&from, snapshot.as_ref(), &args.to.parse()?)?)
}

pub fn rename(runtime: &Runtime, args: &Rename) -> anyhow::Result<()> {
    Ok(runtime.rename(&args.from.parse()?, &args.to.parse()?)?)
}

/// `CONTAINER` or `CONTAINER/SNAPSHOT`.
pub fn split(text: &str) -> anyhow::Result<(ContainerName, Option<ContainerName>)> {
    match text.split_once('/') {
        Some((name, snapshot)) => Ok((name.parse()?, Some(snapshot.parse()?))),
        None => Ok((text.parse()?, None)),
    }
}
