//! Layers of OCI images: archives that change what lies below them.
//!
//! An entry replaces what has its name, except that a directory stays one. `.wh.NAME` takes NAME
//! away, `.wh..wh..opq` everything its directory had before this layer (OCI Image Format
//! Specification, "layer"). Links of lower layers are followed as if the target were the root, so
//! `lib/x` reaches `usr/lib/x` where `lib` is a link to it, and never anything outside.

use std::collections::HashSet;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::fs::{self, AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::extract::{self, ExtractOptions, Extracted};
use super::reader::{Entry, Kind};
use super::tree::{self, Tree};
use crate::{Error, Result};

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// Unpacks the next layer, compressed or not, onto `target`.
///
/// # Errors
/// As [`super::extract`]. The target is then neither the old tree nor the new one: remove it.
pub fn extract_layer<R: Read + Send>(
    reader: R,
    target: &Path,
    options: &ExtractOptions,
) -> Result<Extracted> {
    let tree = Tree::open(target).map_err(Error::io(target))?.follow_links();
    extract::run(reader, target, options, tree, Some(Layer::default()))
}

/// Paths this layer has made, and directories on the way to them.
#[derive(Default)]
pub(super) struct Layer {
    made: HashSet<Vec<u8>>,
}

/// What came of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Met {
    /// It was a whiteout, or a directory where a link to one stays; nothing is left to do.
    Done,
    /// Its place is free, or is a directory where it is one.
    Free,
}

impl Layer {
    /// Does what a whiteout says, or makes room for what is no whiteout.
    pub(super) fn meet(&mut self, tree: &mut Tree, entry: &Entry) -> io::Result<Met> {
        let path = entry.path.as_slice();
        let slash = path.iter().rposition(|b| *b == b'/');
        let (directory, name) = slash.map_or((&b""[..], path), |at| (&path[..at], &path[at + 1..]));
        if name == OPAQUE {
            self.empty(tree, directory)?;
            return Ok(Met::Done);
        }
        if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            if hidden.is_empty() || hidden == b"." || hidden == b".." || hidden.starts_with(WHITEOUT) {
                return Err(io::Error::other("it is a whiteout of nothing"));
            }
            let full = [directory, if directory.is_empty() { b"" } else { b"/" }, hidden].concat();
            if self.made.contains(&full) {
                return Err(io::Error::other("it takes away what its own layer brings"));
            }
            remove(tree, &full)?;
            return Ok(Met::Done);
        }
        if path.is_empty() {
            return Ok(Met::Free);
        }
        let met = self.make_room(tree, entry)?;
        self.note(path);
        Ok(met)
    }

    fn note(&mut self, path: &[u8]) {
        let slashes = path.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(at, _)| at);
        for end in slashes.chain([path.len()]) {
            if !self.made.contains(&path[..end]) {
                self.made.insert(path[..end].to_vec());
            }
        }
    }

    fn make_room(&self, tree: &mut Tree, entry: &Entry) -> io::Result<Met> {
        let path = entry.path.as_slice();
        let directory = entry.kind == Kind::Directory;
        let (parent, name) = tree.parent(path)?;
        let kind = match tree::kind_of(parent, name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Met::Free),
            other => other?,
        };
        // A merged /usr stays merged when a layer above names `lib` as a directory.
        if directory && kind == FileType::Symlink && tree.open_directory(path).is_ok() {
            return Ok(Met::Done);
        }
        // What this layer brings twice is left to the checks that hold for every archive. A path
        // noted only as the way to another one is a directory, which may still get its entry.
        if self.made.contains(path) || (directory && kind == FileType::Directory) {
            return Ok(Met::Free);
        }
        remove(tree, path)?;
        Ok(Met::Free)
    }

    /// Removes everything in a directory that earlier layers put there.
    fn empty(&self, tree: &mut Tree, directory: &[u8]) -> io::Result<()> {
        let opened = if directory.is_empty() {
            tree.root().try_clone_to_owned()?
        } else {
            match tree.open_directory(directory) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                opened => opened?,
            }
        };
        for name in names(opened.as_fd())? {
            let path = [directory, if directory.is_empty() { b"" } else { b"/" }, &name].concat();
            if !self.made.contains(&path) {
                remove_at(opened.as_fd(), &name)?;
            } else if tree::kind_of(opened.as_fd(), &name)? == FileType::Directory {
                self.empty(tree, &path)?;
            }
        }
        tree.forget();
        Ok(())
    }
}

/// Removes whatever has this path.
fn remove(tree: &mut Tree, path: &[u8]) -> io::Result<()> {
    let slash = path.iter().rposition(|b| *b == b'/');
    let directory = slash.map_or(&b""[..], |at| &path[..at]);
    let name = slash.map_or(path, |at| &path[at + 1..]);
    let gone = if directory.is_empty() {
        remove_at(tree.root(), name)
    } else {
        match tree.open_directory(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            opened => remove_at(opened?.as_fd(), name),
        }
    };
    tree.forget();
    gone
}

fn names(directory: BorrowedFd<'_>) -> io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(name);
        }
    }
    Ok(names)
}

fn remove_at(directory: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    let kind = match tree::kind_of(directory, name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    if kind != FileType::Directory {
        return Ok(fs::unlinkat(directory, name, AtFlags::empty())?);
    }
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let inner = match fs::openat(directory, name, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        other => other?,
    };
    for name in names(inner.as_fd())? {
        remove_at(inner.as_fd(), &name)?;
    }
    Ok(fs::unlinkat(directory, name, AtFlags::REMOVEDIR)?)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::archive::Ownership;

    /// An entry: path and what it is: text of a file, `/` a directory, `>X` a link to X.
    fn layer(entries: &[(&str, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, text) in entries {
            let mut header = tar::Header::new_ustar();
            header.set_mode(if *text == "/" { 0o755 } else { 0o644 });
            let (kind, data) = match text.strip_prefix('>') {
                Some(target) => {
                    header.set_link_name_literal(target).unwrap();
                    (tar::EntryType::Symlink, "")
                }
                None if *text == "/" => (tar::EntryType::Directory, ""),
                None => (tar::EntryType::Regular, *text),
            };
            header.set_entry_type(kind);
            header.set_size(data.len() as u64);
            let place = &mut header.as_ustar_mut().unwrap().name;
            place[..path.len()].copy_from_slice(path.as_bytes());
            header.set_cksum();
            builder.append(&header, data.as_bytes()).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn apply(root: &Path, entries: &[(&str, &str)]) -> Result<Extracted> {
        let options = ExtractOptions { ownership: Ownership::Caller, ..ExtractOptions::default() };
        extract_layer(&layer(entries)[..], root, &options)
    }

    fn tree(root: &Path) -> BTreeMap<String, String> {
        let mut all = BTreeMap::new();
        let mut left = vec![root.to_path_buf()];
        while let Some(path) = left.pop() {
            for item in fs::read_dir(path).unwrap().flatten() {
                let name = item.path().strip_prefix(root).unwrap().to_string_lossy().into_owned();
                let kind = item.file_type().unwrap();
                let text = if kind.is_dir() {
                    left.push(item.path());
                    "/".to_owned()
                } else if kind.is_symlink() {
                    format!(">{}", fs::read_link(item.path()).unwrap().display())
                } else {
                    fs::read_to_string(item.path()).unwrap()
                };
                all.insert(name, text);
            }
        }
        all
    }

    fn expect(root: &Path, expected: &[(&str, &str)]) {
        let expected = expected.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        assert_eq!(tree(root), expected);
    }

    #[test]
    fn whiteouts_and_replacements() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        apply(root, &[("a", "/"), ("a/one", "1"), ("a/two", "2"), ("b", "b"), ("c", "/"), ("c/x", "x")])
            .unwrap();
        // A file away, a file replaced, a directory by a file, a file by a directory.
        apply(
            root,
            &[("a/.wh.one", ""), ("a/two", "22"), ("c", "c"), ("b", "/"), ("b/in", "in"), (".wh.gone", "")],
        )
        .unwrap();
        expect(root, &[("a", "/"), ("a/two", "22"), ("b", "/"), ("b/in", "in"), ("c", "c")]);
        // Everything of `a` from before, whatever the order of this layer's own entries.
        apply(root, &[("a/three", "3"), ("a/deep", "/"), ("a/.wh..wh..opq", ""), ("a/four", "4")]).unwrap();
        expect(
            root,
            &[
                ("a", "/"),
                ("a/three", "3"),
                ("a/four", "4"),
                ("a/deep", "/"),
                ("b", "/"),
                ("b/in", "in"),
                ("c", "c"),
            ],
        );
        apply(root, &[(".wh.b", ""), (".wh.a", ""), ("c", ">nowhere")]).unwrap();
        expect(root, &[("c", ">nowhere")]);
    }

    #[test]
    fn links_of_lower_layers_are_followed_inside_only() {
        let dir = tempfile::tempdir().unwrap();
        let (root, outside) = (dir.path().join("root"), dir.path().join("outside"));
        fs::create_dir_all(&outside).unwrap();
        fs::create_dir_all(root.join("usr/lib")).unwrap();
        fs::write(outside.join("file"), "safe").unwrap();
        symlink("usr/lib", root.join("lib")).unwrap();
        symlink("../outside", root.join("up")).unwrap();
        symlink(&outside, root.join("away")).unwrap();
        apply(&root, &[("lib", "/"), ("lib/x", "x")]).unwrap();
        assert!(root.join("lib").is_symlink());
        assert_eq!(fs::read_to_string(root.join("usr/lib/x")).unwrap(), "x");
        for bad in ["up/file", "away/file", "up/.wh.file", "away/.wh.file", "up/.wh..wh..opq"] {
            let _ = apply(&root, &[(bad, "changed")]);
            assert_eq!(fs::read_to_string(outside.join("file")).unwrap(), "safe", "{bad}");
        }
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    }

    #[test]
    fn nonsense_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        for bad in [
            &[("a", "1"), ("a", "2")][..],
            &[("a", "1"), (".wh.a", "")],
            &[(".wh.", "")],
            &[(".wh...", "")],
            &[("a/../b", "")],
            &[("../b", "")],
        ] {
            assert!(apply(root, bad).is_err(), "{bad:?}");
        }
    }
}
