//! `copy`: files of the machine that builds.

use std::fs::{self, File, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{attributes, or};
use crate::recipe::FileEntry;
use crate::rootfs::Rootfs;
use crate::{Error, Result};

/// Deepest directory copied.
const MAX_DEPTH: usize = 64;

/// Copies what `source` names: a file, a link (as a link), a directory's contents, or with `*`, `?`
/// and `[…]` in its last part all that match. A path that ends in `/` is a directory to copy into.
pub(super) fn run(file: &FileEntry, rootfs: &Rootfs, base: &Path) -> Result<()> {
    let target = or(&file.path, &file.source);
    let sources = matching(&base.join(&file.source))?;
    let into = target.ends_with('/') || sources.len() > 1;
    for source in sources {
        let meta = fs::symlink_metadata(&source).map_err(Error::io(&source))?;
        let target = match source.file_name() {
            Some(name) if into && !meta.is_dir() => {
                format!("{}/{}", target.trim_end_matches('/'), name.to_string_lossy())
            }
            _ => target.to_owned(),
        };
        one(file, rootfs, &source, &meta, &target, 0)?;
    }
    Ok(())
}

/// The sources a pattern names; a name without a match stands for itself.
fn matching(source: &Path) -> Result<Vec<PathBuf>> {
    let pattern = source.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let parent = source.parent().unwrap_or(Path::new("/"));
    if !pattern.contains(['*', '?', '[']) || source.symlink_metadata().is_ok() {
        return Ok(vec![source.to_path_buf()]);
    }
    let pattern: Vec<char> = pattern.chars().collect();
    let listing = fs::read_dir(parent).map_err(Error::io(parent))?;
    let names = listing.flatten().filter_map(|item| item.file_name().into_string().ok());
    let mut found: Vec<_> = names
        .filter(|name| matches(&pattern, &name.chars().collect::<Vec<_>>()))
        .map(|name| parent.join(name))
        .collect();
    found.sort();
    if found.is_empty() {
        return Err(Error::Refused(format!("files: nothing matches the source {}", source.display())));
    }
    Ok(found)
}

/// Shell patterns: `*`, `?`, `[a-z]`, `[^a-z]`, `\x`.
fn matches(pattern: &[char], name: &[char]) -> bool {
    // Where to go on when what follows the last star does not match: the star takes one more.
    let (mut p, mut n, mut star) = (0, 0, None);
    while n < name.len() {
        let next = match pattern.get(p) {
            Some('*') => {
                star = Some((p, n));
                p += 1;
                continue;
            }
            Some('?') => Some(p + 1),
            Some('[') => class(&pattern[p..], name[n]).map(|length| p + length),
            Some('\\') => (pattern.get(p + 1) == Some(&name[n])).then_some(p + 2),
            Some(c) => (*c == name[n]).then_some(p + 1),
            None => None,
        };
        match (next, star) {
            (Some(next), _) => (p, n) = (next, n + 1),
            (None, Some((at, from))) => {
                star = Some((at, from + 1));
                (p, n) = (at + 1, from + 1);
            }
            (None, None) => return false,
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

/// The length of the `[…]` that `pattern` starts with, when it takes `c`.
fn class(pattern: &[char], c: char) -> Option<usize> {
    let end = pattern.iter().skip(2).position(|c| *c == ']')? + 2;
    let (negated, set) = match &pattern[1..end] {
        ['^', set @ ..] => (true, set),
        set => (false, set),
    };
    let mut found = false;
    let mut at = 0;
    while at < set.len() {
        if let (Some('-'), Some(to)) = (set.get(at + 1), set.get(at + 2)) {
            found |= (set[at]..=*to).contains(&c);
            at += 3;
        } else {
            found |= set[at] == c;
            at += 1;
        }
    }
    (found != negated).then_some(end + 1)
}

fn one(
    file: &FileEntry,
    rootfs: &Rootfs,
    source: &Path,
    meta: &Metadata,
    target: &str,
    depth: usize,
) -> Result<()> {
    if meta.is_symlink() {
        return rootfs.symlink(target, &fs::read_link(source).map_err(Error::io(source))?);
    }
    if meta.is_dir() {
        return directory(file, rootfs, source, target, depth);
    }
    if !meta.is_file() {
        return Err(Error::Refused(format!(
            "files: {} is neither a file nor a link nor a directory and cannot be copied",
            source.display()
        )));
    }
    let mut attributes = attributes(file)?;
    attributes.mode = attributes.mode.or(Some(meta.mode() & 0o777));
    rootfs.write_from(target, File::open(source).map_err(Error::io(source))?, attributes)
}

fn directory(file: &FileEntry, rootfs: &Rootfs, source: &Path, target: &str, depth: usize) -> Result<()> {
    if depth > MAX_DEPTH {
        return Err(Error::Refused(format!("files: {} is too deep to be copied", source.display())));
    }
    rootfs.make_directories(target)?;
    let listing = fs::read_dir(source).map_err(Error::io(source))?;
    let mut items: Vec<_> = listing.flatten().map(|item| item.path()).collect();
    items.sort();
    for item in items {
        let name = item.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let meta = fs::symlink_metadata(&item).map_err(Error::io(&item))?;
        one(file, rootfs, &item, &meta, &format!("{}/{name}", target.trim_end_matches('/')), depth + 1)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        let is = |pattern: &str, name: &str| {
            matches(&pattern.chars().collect::<Vec<_>>(), &name.chars().collect::<Vec<_>>())
        };
        for (pattern, name) in [
            ("*.conf", "a.conf"),
            ("a?c", "abc"),
            ("[a-c]x", "bx"),
            ("[^a-c]x", "dx"),
            ("*a*b*", "xaybz"),
            ("\\*", "*"),
        ] {
            assert!(is(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in
            [("*.conf", "a.con"), ("a?c", "ac"), ("[a-c]x", "dx"), ("[a", "a"), ("", "a"), ("a", "")]
        {
            assert!(!is(pattern, name), "{pattern} {name}");
        }
        assert!(!is(&"*a".repeat(50), &"a".repeat(49)), "no exponential search");
    }

    #[test]
    fn files_directories_links_and_patterns() {
        let dir = tempfile::tempdir().unwrap();
        let (base, root) = (dir.path().join("base"), dir.path().join("root"));
        fs::create_dir_all(base.join("tree/inner")).unwrap();
        fs::create_dir(&root).unwrap();
        for (name, text) in [("a.conf", "a"), ("b.conf", "b"), ("tree/inner/c", "c")] {
            fs::write(base.join(name), text).unwrap();
        }
        std::os::unix::fs::symlink("/etc/shadow", base.join("tree/link")).unwrap();
        let rootfs = Rootfs::open(&root).unwrap();
        let copy = |source: &str, path: &str| {
            let file = FileEntry { source: source.into(), path: path.into(), ..FileEntry::default() };
            run(&file, &rootfs, &base)
        };
        copy("a.conf", "/one").unwrap();
        copy("a.conf", "/into/").unwrap();
        copy("*.conf", "/many").unwrap();
        copy("tree", "/tree").unwrap();
        copy("tree/link", "/copied").unwrap();
        let read = |path: &str| fs::read_to_string(root.join(path)).unwrap();
        assert_eq!(
            (read("one"), read("into/a.conf"), read("many/b.conf")),
            ("a".into(), "a".into(), "b".into())
        );
        assert_eq!(read("tree/inner/c"), "c");
        for link in ["tree/link", "copied"] {
            assert_eq!(fs::read_link(root.join(link)).unwrap(), Path::new("/etc/shadow"), "links stay links");
        }
        assert!(copy("*.none", "/x").unwrap_err().to_string().contains("nothing matches"));
        assert!(copy("missing", "/x").is_err());
        // Links in the root that lead out of it lead to the same place inside.
        std::os::unix::fs::symlink(dir.path(), root.join("out")).unwrap();
        let _ = copy("a.conf", "/out/escaped");
        let _ = copy("a.conf", "/../escaped");
        assert!(!dir.path().join("escaped").exists());
    }

    #[test]
    fn what_is_no_file_is_refused_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let rootfs = Rootfs::open(dir.path()).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("socket")).unwrap();
        for source in ["/dev/zero", "socket"] {
            let file = FileEntry { source: source.into(), path: "/x".into(), ..FileEntry::default() };
            let text = run(&file, &rootfs, dir.path()).unwrap_err().to_string();
            assert!(text.contains("cannot be copied"), "{text}");
        }
        assert!(!dir.path().join("x").exists());
    }
}
