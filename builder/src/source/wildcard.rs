//! Finding the newest of several names in whatever lists them.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use crate::apt::version;

/// Whether a pattern has something to be found out: `*` stands for any text without a slash, `#`
/// for digits, at least one.
pub(super) fn is_pattern(text: &str) -> bool {
    text.contains(['*', '#'])
}

/// Whether `name` is what `pattern` describes.
pub(super) fn matches(pattern: &str, name: &str) -> bool {
    // States of the pattern that the name so far may be in; so no pattern takes long.
    let pattern: Vec<char> = pattern.chars().collect();
    let mut states = BTreeSet::from([(0, false)]);
    for c in name.chars() {
        let mut next = BTreeSet::new();
        for (at, _) in closed(&pattern, states) {
            match pattern.get(at) {
                Some('*') if c != '/' => _ = next.insert((at, false)),
                Some('#') if c.is_ascii_digit() => _ = next.insert((at, true)),
                Some(literal) if *literal == c => _ = next.insert((at + 1, false)),
                _ => {}
            }
        }
        states = next;
    }
    closed(&pattern, states).iter().any(|(at, _)| *at == pattern.len())
}

/// With every state that is reached without another character: past a `*`, past a `#` that has its
/// digits.
fn closed(pattern: &[char], mut states: BTreeSet<(usize, bool)>) -> BTreeSet<(usize, bool)> {
    let mut new: Vec<_> = states.iter().copied().collect();
    while let Some((at, counted)) = new.pop() {
        let past = pattern.get(at) == Some(&'*') || (counted && pattern.get(at) == Some(&'#'));
        if past && states.insert((at + 1, false)) {
            new.push((at + 1, false));
        }
    }
    states
}

/// The names in a document that match, the newest first.
///
/// The document may be a directory listing of any server, JSON, YAML, a list of checksums, or a text
/// that points at a file: names are looked for, not the form. With `directory` only what is written
/// as one counts, since listings hold other text too.
pub(super) fn newest(document: &str, pattern: &str, directory: bool) -> Vec<String> {
    let decoded = decode(document);
    let mut names = BTreeSet::new();
    let mut rest = decoded.as_str();
    while let Some(start) = rest.find(is_name) {
        let end = rest[start..].find(|c| !is_name(c)).map_or(rest.len(), |at| start + at);
        let (name, after) = (&rest[start..end], &rest[end..]);
        let stands = !directory || after.starts_with(['/', '"', '\'']);
        if stands && name.len() <= 255 && matches(pattern, name) {
            names.insert(name.to_owned());
        }
        rest = after;
    }
    let mut names: Vec<_> = names.into_iter().collect();
    names.sort_by(|a, b| compare(b, a));
    names
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || "._+~-:@".contains(c)
}

/// Numbers in names count as numbers: `3.9` before `3.10`.
fn compare(a: &str, b: &str) -> Ordering {
    version::compare(&format!("0:{a}"), &format!("0:{b}"))
}

/// URLs in listings write some characters as `%2B`.
fn decode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        let code = rest.get(at + 1..at + 3).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        if let Some(byte) = code.filter(u8::is_ascii_graphic) {
            out.push(char::from(byte));
            rest = &rest[at + 3..];
        } else {
            out.push('%');
            rest = &rest[at + 1..];
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn stars_are_text_and_hashes_are_numbers() {
        for (pattern, name, good) in [
            ("a-*.tar.xz", "a-1.tar.xz", true),
            ("a-*.tar.xz", "a-.tar.xz", true),
            ("a-*.tar.xz", "a-1.tar.xz.asc", false),
            ("v3.#", "v3.20", true),
            ("v3.#", "v3.", false),
            ("v3.#", "v3.20-rc1", false),
            ("#.#-x", "20.04-x", true),
            ("*-#", "a-1-22", true),
            ("", "", true),
            ("#", "", false),
        ] {
            assert_eq!(matches(pattern, name), good, "{pattern} {name}");
        }
    }

    #[test]
    fn names_are_found_in_every_kind_of_index() {
        let html = "<a href=\"a-1.9.txz\">a-1.9..&gt;</a> <a href='./a-1.10.txz'>x</a><a href=\"../\">up</a>";
        assert_eq!(newest(html, "a-*.txz", false), ["a-1.10.txz", "a-1.9.txz"]);
        let json = r#"[{"name":"v2","type":"directory"},{"name":"v10","type":"directory"},{"size":"v77 "}]"#;
        assert_eq!(newest(json, "v#", true), ["v10", "v2"]);
        let yaml = "- file: a-2.txz\n  sha256: 00\n";
        assert_eq!(newest(yaml, "a-#.txz", false), ["a-2.txz"]);
        assert_eq!(newest("20260101T1Z/a-2.txz 99\n", "a-#.txz", false), ["a-2.txz"]);
        assert_eq!(newest("href=\"a%2B1.txz\" 100%", "a+#.txz", false), ["a+1.txz"]);
        assert!(newest("<td>v3 </td>", "v#", true).is_empty());
    }

    proptest! {
        #[test]
        fn nothing_found_leads_elsewhere(document in ".{0,200}") {
            for name in newest(&document, "*", false) {
                prop_assert!(!name.contains('/') && !name.is_empty());
            }
        }

        #[test]
        fn a_number_matches_whatever_its_digits(prefix in "[a-z]{0,4}", number in 0_u64.., suffix in "[a-z.]{0,4}") {
            let name = format!("{prefix}{number}{suffix}");
            let (hash, star) = (format!("{prefix}#{suffix}"), format!("{prefix}*{suffix}"));
            prop_assert!(matches(&hash, &name) && matches(&star, &name));
        }
    }
}
