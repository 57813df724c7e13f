//! LXC's `meta.tar.xz`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use millstream_image::Serial;
use millstream_image::archive::Member;
use millstream_runtime::container::{HALT_SIGNAL, signal};

use crate::files::Generated;
use crate::recipe::{LxcConfig, Resolved};
use crate::{Error, Result};

/// LXC's compatibility levels that get a `config.N` of their own.
const LEVELS: std::ops::RangeInclusive<u32> = 1..=4;

/// When the image expires, seconds since 1970: creation plus the recipe's `expiry`.
pub(super) fn expiry(resolved: &Resolved, serial: Serial) -> Result<i64> {
    let text = &resolved.definition.image.expiry;
    let bad =
        || Error::Refused(format!("image.expiry: {text:?} is not a sum of numbers with s, m, h, d or w"));
    let mut total = 0_i64;
    for word in text.split_whitespace() {
        let split = word.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
        let (number, unit) = word.split_at(split);
        let seconds = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            "d" => 86_400,
            "w" => 604_800,
            _ => return Err(bad()),
        };
        let number: i64 = number.parse().map_err(|_| bad())?;
        total = number.checked_mul(seconds).and_then(|s| s.checked_add(total)).ok_or_else(bad)?;
    }
    Ok(serial.time().timestamp().saturating_add(total))
}

/// Members of LXC's `meta.tar.xz`.
pub(crate) fn members(
    resolved: &Resolved,
    generated: &Generated,
    serial: Serial,
) -> Result<BTreeMap<PathBuf, Member>> {
    let definition = &resolved.definition;
    let mut members = BTreeMap::new();
    let mut add = |name: String, text: String| members.insert(PathBuf::from(name), Member::file(text));
    for (suffix, kind) in [("", "system"), ("-user", "user")] {
        let text = |level| config(resolved, kind, level);
        let newest = text(None);
        for level in LEVELS {
            let older = text(Some(level));
            if older != newest {
                add(format!("config{suffix}.{level}"), older);
            }
        }
        add(format!("config{suffix}"), newest);
    }
    add("create-message".into(), format!("{}\n", definition.targets.lxc.create_message.trim_end()));
    add("expiry".into(), format!("{}\n", expiry(resolved, serial)?));
    add("build_id".into(), format!("{serial}\n"));
    add("excludes-user".into(), "./dev/*\n".into());
    if !generated.lxc_templated.is_empty() {
        let mut paths = generated.lxc_templated.clone();
        paths.sort();
        paths.dedup();
        add("templates".into(), paths.join("\n") + "\n");
    }
    Ok(members)
}

/// The configuration for `kind` of container at a compatibility level; none: the newest.
fn config(resolved: &Resolved, kind: &str, level: Option<u32>) -> String {
    let entries = resolved.definition.targets.lxc.config.iter().filter(|entry| applies(entry, kind, level));
    entries.map(|entry| format!("{}\n", entry.content.trim_end())).collect::<Vec<_>>().concat()
}

/// The signal that the configuration says init shuts down on.
pub(super) fn halt_signal(resolved: &Resolved) -> Option<String> {
    let text = config(resolved, "system", None);
    let mut settings = text.lines().filter_map(|line| line.split_once('='));
    let found =
        settings.rfind(|(key, _)| key.trim() == HALT_SIGNAL).map(|(_, value)| value.trim().to_owned());
    found.filter(|name| signal(name).is_some())
}

fn applies(entry: &LxcConfig, kind: &str, level: Option<u32>) -> bool {
    let kinds = matches!(entry.r#type.as_str(), "all" | "") || entry.r#type == kind;
    let level = level.unwrap_or(5);
    let (before, after) = (if entry.before == 0 { 6 } else { entry.before }, entry.after);
    // Bounds that cross leave out what lies between them.
    let within =
        if after < before { level > after && level < before } else { level > after || level < before };
    kinds && within
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::{Fallback, Kind, Recipe};

    #[test]
    fn the_signal_for_halting_is_the_last_one_given() {
        let found = |lines: &str| {
            let text = format!(
                "image:\n  distribution: d\n  release: r\nsource:\n  downloader: debootstrap\ntargets:\n  lxc:\n    config:\n    - type: all\n      content: |-\n        lxc.arch = x86_64\n        {lines}\n"
            );
            let recipe = Recipe::parse(&text, "r.yaml").unwrap();
            let fallback = Fallback { release: "", serial: "20260101_0000" };
            halt_signal(&recipe.resolve(&[], Kind::Container, &fallback).unwrap())
        };
        assert_eq!(found("lxc.tty.max = 4"), None);
        let both = "lxc.signal.halt=SIGPWR\n        lxc.signal.halt = SIGRTMIN+4";
        assert_eq!(found(both).as_deref(), Some("SIGRTMIN+4"));
        assert_eq!(found("lxc.signal.halt = SIGNONSENSE"), None);
        assert_eq!(found("# lxc.signal.halt = SIGPWR"), None);
    }
}
