//! LXC's `meta.tar.xz`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use millstream_image::Serial;
use millstream_image::archive::Member;

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
        let text = |level: Option<u32>| {
            let entries = definition.targets.lxc.config.iter().filter(|entry| applies(entry, kind, level));
            entries.map(|entry| format!("{}\n", entry.content.trim_end())).collect::<Vec<_>>().concat()
        };
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

fn applies(entry: &LxcConfig, kind: &str, level: Option<u32>) -> bool {
    let kinds = matches!(entry.r#type.as_str(), "all" | "") || entry.r#type == kind;
    let level = level.unwrap_or(5);
    let (before, after) = (if entry.before == 0 { 6 } else { entry.before }, entry.after);
    // Bounds that cross leave out what lies between them.
    let within =
        if after < before { level > after && level < before } else { level > after || level < before };
    kinds && within
}
