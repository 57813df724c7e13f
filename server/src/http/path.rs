//! From a request's path to a path below the root.

/// What a request's path asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// A file, relative to the root; never empty, absolute, hidden or leading upwards.
    File(String),
    /// Nothing that could be served.
    Nothing,
    /// Not a path.
    Malformed,
}

/// Reads the path of a request. Repeated slashes count as one, as LXC's template needs; `/` is the
/// page. Names that begin with a dot are nobody's business, and an encoded slash is not a slash.
pub(super) fn parse(path: &str) -> Target {
    if !path.starts_with('/') {
        return Target::Malformed;
    }
    let mut parts = Vec::new();
    for part in path.split('/').filter(|part| !part.is_empty()) {
        let Some(part) = decode(part) else { return Target::Malformed };
        if part.contains(['/', '\0']) {
            return Target::Malformed;
        }
        if part.starts_with('.') {
            return Target::Nothing;
        }
        parts.push(part);
    }
    match parts.is_empty() {
        true => Target::File("index.html".into()),
        false if path.ends_with('/') => Target::Nothing, // A directory; there are no listings.
        false => Target::File(parts.join("/")),
    }
}

/// Percent-decoding; `None` when it is broken or not UTF-8.
pub(super) fn decode(part: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
            let (high, low) = (digit(rest.next())?, digit(rest.next())?);
            bytes.push((high * 16 + low) as u8);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn files_of_a_tree() {
        let file = |name: &str| Target::File(name.into());
        assert_eq!(parse("/"), file("index.html"));
        assert_eq!(parse("//"), file("index.html"));
        assert_eq!(parse("//meta/1.0/index-system.7"), file("meta/1.0/index-system.7"));
        assert_eq!(parse("/images///a//rootfs.tar.xz"), file("images/a/rootfs.tar.xz"));
        assert_eq!(parse("/a%20b%2Ec"), file("a b.c"));
    }

    #[test]
    fn traversal_in_every_spelling_is_nothing() {
        for path in [
            "/..",
            "/../etc/passwd",
            "/images/../../etc/passwd",
            "/%2e%2e/etc/passwd",
            "/%2E./etc/passwd",
            "/.%2e/x",
            "/./x",
            "/images/.",
            "/.documents/current/index.html",
            "/%2edocuments/1/index.html",
            "/.staging/pending",
            "/images/",
        ] {
            assert_eq!(parse(path), Target::Nothing, "{path}");
        }
        for path in
            ["", "x", "*", "/%2fetc/passwd", "/..%2f..", "/%00", "/%", "/%4", "/%zz", "/%ff", "/a%c0%ae"]
        {
            assert_eq!(parse(path), Target::Malformed, "{path}");
        }
    }

    proptest! {
        #[test]
        fn whatever_comes_stays_below_the_root(path in "(/|\\.|%2e|%2f|%5c|\\\\|a|%|%0){0,24}") {
            if let Target::File(file) = parse(&path) {
                prop_assert!(file.split('/').all(|part| !part.is_empty() && !part.starts_with('.')));
                prop_assert!(!file.contains('\0'));
            }
        }
    }
}
