//! The columns of `list`: LXD's letters, and keys of the configuration.

use anyhow::{anyhow, bail};
use chrono::{DateTime, Utc};
use indicatif::HumanBytes;
use millstream_runtime::container::{Info, Settings};
use serde::Serialize;

use super::list::status;

/// A container, as lists and filters see it.
#[derive(Serialize)]
pub struct Line {
    #[serde(flatten)]
    pub info: Info,
    /// Profiles included.
    #[serde(skip)]
    pub settings: Settings,
    /// Bytes, where asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk: Option<u64>,
}

/// A column.
pub struct Choice {
    pub heading: String,
    pub cell: Box<dyn Fn(&Line) -> String>,
    pub needs_disk: bool,
}

/// Letters as in `ns4`, and, between commas, keys as in `user.owner:OWNER:12`.
pub fn parse(text: &str) -> anyhow::Result<Vec<Choice>> {
    let mut columns = Vec::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        if part.contains(['.', ':']) {
            columns.push(key(part.strip_prefix("config:").unwrap_or(part))?);
        } else {
            for letter in part.chars() {
                columns.push(of_letter(letter)?);
            }
        }
    }
    Ok(columns)
}

fn key(text: &str) -> anyhow::Result<Choice> {
    let mut parts = text.splitn(3, ':');
    let key = parts.next().unwrap_or_default().to_owned();
    let heading =
        parts.next().filter(|heading| !heading.is_empty()).map_or_else(|| key.to_uppercase(), str::to_owned);
    let width = parts.next().map(str::parse::<usize>).transpose();
    let width = width.map_err(|_| anyhow!("the width of column {text:?} should be a number"))?;
    let cell = move |line: &Line| {
        let value = line.settings.get(&key).map_or("", String::as_str);
        width.map_or_else(|| value.to_owned(), |width| value.chars().take(width).collect())
    };
    Ok(Choice { heading, cell: Box::new(cell), needs_disk: false })
}

fn of_letter(letter: char) -> anyhow::Result<Choice> {
    let (heading, cell): (&str, fn(&Line) -> String) = match letter {
        '4' => ("IPV4", |line| words(line.info.network.iter().flat_map(|network| &network.ipv4))),
        '6' => ("IPV6", |line| words(line.info.network.iter().flat_map(|network| &network.ipv6))),
        'a' => ("ARCHITECTURE", |line| line.info.architecture.clone()),
        'c' => ("CREATED", |line| date(Some(line.info.created_at))),
        'd' => ("DESCRIPTION", |line| line.info.description.clone().unwrap_or_default()),
        'D' => ("DISK USAGE", |line| size(line.disk)),
        'f' => ("BASE IMAGE", |line| line.info.image.short()),
        'F' => ("BASE IMAGE", |line| line.info.image.to_string()),
        'i' => ("IMAGE", |line| line.info.description.clone().unwrap_or_else(|| line.info.image.short())),
        'l' => ("LAST USED", |line| {
            date(line.info.started_at.or(line.info.last_exit.as_ref().map(|exit| exit.at)))
        }),
        'm' => ("MEMORY", |line| size(line.info.memory)),
        'n' => ("NAME", |line| line.info.name.to_string()),
        'N' => ("PROCESSES", |line| number(line.info.processes)),
        'p' => ("PID", |line| number(line.info.pid)),
        'P' => ("PROFILES", |line| words(&line.info.profiles)),
        's' => ("STATUS", |line| status(&line.info).to_owned()),
        'S' => ("SNAPSHOTS", |line| line.info.snapshots.len().to_string()),
        't' => ("TYPE", |line| kind(&line.info).to_owned()),
        'u' => ("CPU USAGE", |line| line.info.cpu_seconds.map_or_else(String::new, |n| format!("{n:.0}s"))),
        _ => bail!("there is no column {letter:?}; there are n s t 4 6 a c d D f F i l m N p P S u"),
    };
    Ok(Choice { heading: heading.to_owned(), cell: Box::new(cell), needs_disk: letter == 'D' })
}

/// What kind of container it is.
pub fn kind(info: &Info) -> &'static str {
    if info.ephemeral { "CONTAINER (EPHEMERAL)" } else { "CONTAINER" }
}

fn words<A: ToString>(found: impl IntoIterator<Item = A>) -> String {
    found.into_iter().map(|word| word.to_string()).collect::<Vec<_>>().join(" ")
}

fn number<N: ToString>(number: Option<N>) -> String {
    number.map_or_else(String::new, |number| number.to_string())
}

fn size(bytes: Option<u64>) -> String {
    bytes.map_or_else(String::new, |bytes| HumanBytes(bytes).to_string())
}

fn date(seconds: Option<i64>) -> String {
    let time = seconds.and_then(|seconds| DateTime::<Utc>::from_timestamp(seconds, 0));
    time.map_or_else(String::new, |time| time.format("%Y-%m-%d %H:%M").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_and_keys_make_columns() {
        let headings = |text: &str| {
            parse(text).map(|all| all.into_iter().map(|column| column.heading).collect::<Vec<_>>().join("|"))
        };
        assert_eq!(headings("ns4").unwrap(), "NAME|STATUS|IPV4");
        assert_eq!(headings("n,user.a,s").unwrap(), "NAME|USER.A|STATUS");
        assert_eq!(headings("config:limits.memory:RAM:5,n").unwrap(), "RAM|NAME");
        for bad in ["z", "n,user.a:A:wide"] {
            assert!(headings(bad).is_err(), "{bad}");
        }
    }
}
