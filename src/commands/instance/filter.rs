//! Which containers `list` shows.

use anyhow::{Context, bail};
use globset::{GlobBuilder, GlobMatcher};

use super::columns::{Line, kind};
use super::list::status;

/// Of several names any fits; every key must.
pub struct Filter {
    names: Vec<GlobMatcher>,
    keys: Vec<(String, String, GlobMatcher)>,
}

impl Filter {
    pub fn parse(filters: &[String]) -> anyhow::Result<Self> {
        let mut filter = Self { names: Vec::new(), keys: Vec::new() };
        for text in filters {
            match text.split_once('=') {
                Some((key, value)) => {
                    let known = ["name", "status", "state", "type", "architecture", "image", "ipv4", "ipv6"];
                    if !key.contains('.') && !known.contains(&key) {
                        bail!(
                            "containers have no {key}; use {} or a key of the configuration",
                            known.join(", ")
                        );
                    }
                    filter.keys.push((key.to_owned(), value.to_owned(), pattern(value)?));
                }
                None if text.contains(['*', '?', '[']) => filter.names.push(pattern(text)?),
                // As LXD: how it begins.
                None => filter.names.push(pattern(&format!("{}*", globset::escape(text)))?),
            }
        }
        Ok(filter)
    }

    pub fn fits(&self, line: &Line) -> bool {
        let name = line.info.name.as_str();
        (self.names.is_empty() || self.names.iter().any(|pattern| pattern.is_match(name)))
            && self.keys.iter().all(|(key, value, pattern)| fits(line, key, value, pattern))
    }
}

fn pattern(text: &str) -> anyhow::Result<GlobMatcher> {
    let glob = GlobBuilder::new(text).case_insensitive(true).literal_separator(false).build();
    Ok(glob.with_context(|| format!("{text:?} is no pattern"))?.compile_matcher())
}

fn fits(line: &Line, key: &str, value: &str, pattern: &GlobMatcher) -> bool {
    let info = &line.info;
    let network = info.network.as_ref();
    match key {
        "name" => pattern.is_match(info.name.as_str()),
        "status" | "state" => pattern.is_match(status(info)),
        "type" => pattern.is_match("container") || pattern.is_match(kind(info)),
        "architecture" => pattern.is_match(&info.architecture),
        "image" => {
            info.image.to_string().starts_with(value)
                || info.description.as_ref().is_some_and(|description| pattern.is_match(description))
        }
        "ipv4" => network.is_some_and(|network| network.ipv4.iter().any(|a| pattern.is_match(a.to_string()))),
        "ipv6" => network.is_some_and(|network| network.ipv6.iter().any(|a| pattern.is_match(a.to_string()))),
        _ => line
            .settings
            .iter()
            .any(|(known, set)| shortened(key, known) && (pattern.is_match(set) || same_truth(value, set))),
    }
}

/// Whether each part of `short` begins one of `key`, as `l.m` does of `limits.memory`.
fn shortened(short: &str, key: &str) -> bool {
    let (short, key): (Vec<_>, Vec<_>) = (short.split('.').collect(), key.split('.').collect());
    short.len() == key.len() && short.iter().zip(key).all(|(short, part)| part.starts_with(short))
}

fn same_truth(one: &str, other: &str) -> bool {
    let truth = |text: &str| match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Some(true),
        "false" | "0" | "no" | "off" => Some(false),
        _ => None,
    };
    truth(one).is_some() && truth(one) == truth(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_may_be_shortened_and_truth_has_several_words() {
        assert!(shortened("u.c", "user.colour") && shortened("limits.memory", "limits.memory"));
        assert!(!shortened("l.m", "limits.memory.swap") && !shortened("x.m", "limits.memory"));
        assert!(same_truth("true", "1") && !same_truth("true", "off") && !same_truth("a", "a"));
    }

    #[test]
    fn what_is_no_filter_is_said() {
        for bad in ["colour=red", "[", "name=["] {
            assert!(Filter::parse(&[bad.to_owned()]).is_err(), "{bad}");
        }
        assert!(Filter::parse(&["web".into(), "user.a=b".into(), "state=run*".into()]).is_ok());
    }
}
