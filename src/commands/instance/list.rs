//! `list` and `info`.

use std::collections::BTreeSet;

use anyhow::bail;
use chrono::{DateTime, Utc};
use indicatif::HumanBytes;
use millstream_runtime::Runtime;
use millstream_runtime::container::{Info, Status};

use crate::cli::instance::{Info as InfoArgs, List};
use crate::output::{self, Column};

pub fn list(runtime: &Runtime, args: &List) -> anyhow::Result<()> {
    let mut containers = runtime.list()?;
    for filter in &args.filters {
        let wanted = matcher(runtime, filter)?;
        containers.retain(|info| wanted(info));
    }
    let columns = args.columns.chars().map(column).collect::<anyhow::Result<Vec<_>>>()?;
    let columns: Vec<Column<'_, Info>> = columns.iter().map(|(name, cell)| (*name, cell as _)).collect();
    output::list(args.output.format, &containers, &columns)
}

/// A heading and what stands below.
type Choice = (&'static str, fn(&Info) -> String);

fn column(letter: char) -> anyhow::Result<Choice> {
    Ok(match letter {
        'n' => ("NAME", |info| info.name.to_string()),
        's' => ("STATUS", |info| status(info).to_owned()),
        'p' => ("PID", |info| info.pid.map_or_else(String::new, |pid| pid.to_string())),
        'P' => {
            ("PROFILES", |info| info.profiles.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
        }
        'c' => ("CREATED", |info| date(info.created_at)),
        'm' => ("MEMORY", |info| info.memory.map_or_else(String::new, |n| HumanBytes(n).to_string())),
        '4' => ("IPV4", |info| addresses(info.network.as_ref().map(|network| &network.ipv4))),
        '6' => ("IPV6", |info| addresses(info.network.as_ref().map(|network| &network.ipv6))),
        'N' => ("PROCESSES", |info| info.processes.map_or_else(String::new, |n| n.to_string())),
        'S' => ("SNAPSHOTS", |info| info.snapshots.len().to_string()),
        'i' => ("IMAGE", |info| info.description.clone().unwrap_or_else(|| info.image.short())),
        'a' => ("ARCHITECTURE", |info| info.architecture.clone()),
        _ => bail!("there is no column {letter:?}; there are n s p P c m N S i a 4 6"),
    })
}

fn addresses<A: ToString>(found: Option<&BTreeSet<A>>) -> String {
    found.into_iter().flatten().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

type Matcher<'a> = Box<dyn Fn(&Info) -> bool + 'a>;

fn matcher<'a>(runtime: &'a Runtime, filter: &'a str) -> anyhow::Result<Matcher<'a>> {
    let Some((key, value)) = filter.split_once('=') else {
        return Ok(Box::new(move |info| info.name.as_str().contains(filter)));
    };
    Ok(match key {
        "name" => Box::new(move |info| info.name.as_str() == value),
        "status" => Box::new(move |info| status(info).eq_ignore_ascii_case(value)),
        "architecture" => Box::new(move |info| info.architecture == value),
        "image" => Box::new(move |info| info.image.to_string().starts_with(value)),
        _ if key.contains('.') => Box::new(move |info| {
            runtime.expanded(&info.name).is_ok_and(|settings| settings.get(key).is_some_and(|v| v == value))
        }),
        _ => bail!(
            "containers have no {key}; use name, status, architecture, image or a key of the configuration"
        ),
    })
}

pub fn info(runtime: &Runtime, args: &InfoArgs) -> anyhow::Result<()> {
    super::each(&args.names.names, |name| output::object(args.output.format, &runtime.info(name)?))
}

fn status(info: &Info) -> &'static str {
    match info.status {
        Status::Running => "RUNNING",
        Status::Paused => "PAUSED",
        Status::Stopped => "STOPPED",
    }
}

fn date(seconds: i64) -> String {
    DateTime::<Utc>::from_timestamp(seconds, 0).unwrap_or_default().format("%Y-%m-%d %H:%M").to_string()
}
