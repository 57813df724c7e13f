//! The columns of `image list`: LXD's letters, and some for what it has no column for.

use anyhow::bail;

use super::{Line, size};
use crate::output::Column;

const ALL: [(char, Column<'static, Line>); 14] = [
    ('l', ("ALIAS", &shortest_alias)),
    ('L', ("ALIASES", &|line| line.aliases.join(" "))),
    ('f', ("FINGERPRINT", &|line| line.fingerprint[..12].to_owned())),
    ('F', ("FINGERPRINT", &|line| line.fingerprint.clone())),
    ('o', ("OS", &|line| line.os.clone())),
    ('r', ("RELEASE", &|line| line.release.clone())),
    ('v', ("VARIANT", &|line| line.variant.clone())),
    ('a', ("ARCH", &|line| line.architecture.clone())),
    ('n', ("SERIAL", &|line| line.serial.clone())),
    ('s', ("SIZE", &|line| size(line.size))),
    ('p', ("PUBLIC", &|line| if line.public { "yes" } else { "no" }.to_owned())),
    ('d', ("DESCRIPTION", &|line| line.description.clone())),
    ('t', ("TYPE", &|line| line.r#type.to_owned())),
    (
        'u',
        ("STORED", &|line| line.stored.map(|time| time.format("%F %H:%M").to_string()).unwrap_or_default()),
    ),
];

/// The columns of these letters, in their order.
pub fn parse(letters: &str) -> anyhow::Result<Vec<Column<'static, Line>>> {
    let mut columns = Vec::new();
    for letter in letters.chars().filter(|letter| *letter != ',') {
        let Some((_, column)) = ALL.into_iter().find(|(known, _)| *known == letter) else {
            let known: String = ALL.iter().map(|(letter, _)| letter).collect();
            bail!("{letter:?} is no column; there are {known}");
        };
        columns.push(column);
    }
    Ok(columns)
}

/// The shortest alias, and how many more there are.
fn shortest_alias(line: &Line) -> String {
    let more = match line.aliases.len() {
        0 | 1 => String::new(),
        count => format!(" ({} more)", count - 1),
    };
    line.aliases
        .iter()
        .min_by_key(|alias| alias.len())
        .map(|alias| format!("{alias}{more}"))
        .unwrap_or_default()
}
