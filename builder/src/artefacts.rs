//! The small archives beside `rootfs.tar.xz`: LXC's `meta.tar.xz` and LXD's metadata.

use std::collections::BTreeMap;
use std::path::PathBuf;

use millstream_image::archive::Member;
use millstream_image::metadata::Metadata;

use crate::files::Generated;
use crate::recipe::{LxcConfig, Resolved};
use crate::{Error, Result};

/// LXC's compatibility levels that get a `config.N` of their own.
const LEVELS: std::ops::RangeInclusive<u32> = 1..=4;

/// When the image expires, seconds since 1970: creation plus the recipe's `expiry`.
pub(crate) fn expiry(resolved: &Resolved, created: i64) -> Result<i64> {
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
    Ok(created.saturating_add(total))
}

/// Members of LXC's `meta.tar.xz`.
pub(crate) fn lxc(
    resolved: &Resolved,
    generated: &Generated,
    created: i64,
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
    add("expiry".into(), format!("{}\n", expiry(resolved, created)?));
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

/// The distribution as shown to people.
pub(crate) fn os(resolved: &Resolved) -> String {
    match resolved.definition.simplestream.distro_name.as_str() {
        "" => {
            let mut chars = resolved.product.distribution().chars();
            chars.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default() + chars.as_str()
        }
        name => name.to_owned(),
    }
}

/// Members of `lxd.tar.xz`, which is also `incus.tar.xz`.
pub(crate) fn lxd(
    resolved: &Resolved,
    generated: &Generated,
    serial: &str,
    created: i64,
) -> Result<BTreeMap<PathBuf, Member>> {
    let image = &resolved.definition.image;
    let os = os(resolved);
    let properties = [
        ("architecture", image.architecture_mapped.as_str()),
        ("description", &image.description),
        ("name", &image.name),
        ("os", &os),
        ("release", resolved.product.release()),
        ("serial", serial),
        ("variant", resolved.product.variant()),
    ];
    let metadata = Metadata {
        architecture: resolved.architecture.kernel().to_owned(),
        creation_date: created,
        expiry_date: Some(expiry(resolved, created)?),
        properties: properties.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        templates: generated.templates.clone(),
    };
    let yaml = metadata.to_yaml()?;
    let mut members = BTreeMap::from([(PathBuf::from("metadata.yaml"), Member::file(yaml))]);
    for (name, text) in &generated.texts {
        members.insert(PathBuf::from("templates").join(name), Member::file(text.clone()));
    }
    Ok(members)
}
