//! All there is to know of a tree, as text.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use millstream_image::Sha256Digest;
use rustix::fs::SeekFrom;

/// One line for each path: type and mode, owner, device, size, time, link target, other names, attributes, holes,
/// contents.
pub fn listing(root: &Path) -> BTreeMap<String, String> {
    lines(root, None)
}

/// The same without what squashfs cannot hold: parts of seconds, times before 1970 and after `latest`, access lists,
/// anything of the root directory; without attributes whose names mksquashfs does not decode; and without holes, which
/// it keeps by blocks of its own.
#[allow(dead_code, reason = "not every test asks for it")]
pub fn listing_of_squashfs(root: &Path, latest: i64) -> BTreeMap<String, String> {
    let mut lines = lines(root, Some(latest));
    lines.remove("");
    lines
}

fn lines(root: &Path, squashfs: Option<i64>) -> BTreeMap<String, String> {
    let mut paths = vec![PathBuf::new()];
    let mut at = 0;
    while at < paths.len() {
        let directory = paths[at].clone();
        at += 1;
        if fs::symlink_metadata(root.join(&directory)).unwrap().is_dir() {
            paths.extend(
                fs::read_dir(root.join(&directory)).unwrap().map(|i| directory.join(i.unwrap().file_name())),
            );
        }
    }
    paths.sort();
    let mut names = BTreeMap::<u64, Vec<String>>::new();
    for path in &paths {
        names.entry(fs::symlink_metadata(root.join(path)).unwrap().ino()).or_default().push(show(path));
    }
    paths.iter().map(|path| (show(path), line(&root.join(path), &names, squashfs))).collect()
}

/// Panics with the lines that differ.
pub fn same(actual: &Path, expected: &Path, what: &str) {
    alike(&listing(actual), &listing(expected), what);
}

/// As [`same`], of listings.
pub fn alike(actual: &BTreeMap<String, String>, expected: &BTreeMap<String, String>, what: &str) {
    for path in actual.keys().chain(expected.keys()) {
        assert_eq!(actual.get(path), expected.get(path), "{what}: {path:?}");
    }
}

fn show(path: &Path) -> String {
    path.as_os_str().as_bytes().escape_ascii().to_string()
}

fn line(path: &Path, names: &BTreeMap<u64, Vec<String>>, squashfs: Option<i64>) -> String {
    let meta = fs::symlink_metadata(path).unwrap();
    let time = match squashfs {
        Some(latest) => meta.mtime().clamp(0, latest).to_string(),
        None => format!("{}.{:09}", meta.mtime(), meta.mtime_nsec()),
    };
    let mut line = vec![format!("{:o} {}:{} {:x}", meta.mode(), meta.uid(), meta.gid(), meta.rdev()), time];
    if !meta.is_dir() {
        line.push(format!("{} {:?}", meta.size(), names[&meta.ino()]));
    }
    if meta.is_symlink() {
        let target = fs::read_link(path).unwrap().into_os_string().into_vec();
        line.push(format!("-> {}", target.escape_ascii()));
    }
    line.push(attributes(path, squashfs.is_none()));
    if meta.is_file() {
        let contents = Sha256Digest::of(&fs::read(path).unwrap());
        // As GNU tar sees holes: where fewer blocks are taken than the size needs. An attribute that
        // takes a block outweighs a hole of one.
        let sparse = squashfs.is_none() && meta.blocks() * 512 < meta.size();
        let data = if sparse { data(path, meta.size()) } else { Vec::from([(0, meta.size())]) };
        line.push(format!("{data:?} {contents}"));
    }
    line.join(" ")
}

fn attributes(path: &Path, all: bool) -> String {
    let mut buffer = vec![0; 64 << 10];
    let size = rustix::fs::llistxattr(path, &mut buffer).unwrap();
    let mut names: Vec<_> = buffer[..size].split(|b| *b == 0).filter(|name| !name.is_empty()).collect();
    let kept = |name: &[u8]| !name.starts_with(b"system.") && !name.contains(&b'=') && !name.contains(&b'%');
    names.retain(|name| all || kept(name));
    names.sort_unstable();
    let show = |name: &&[u8]| {
        let mut value = vec![0; 64 << 10];
        let size = rustix::fs::lgetxattr(path, *name, &mut value).unwrap();
        format!("{}={} ", name.escape_ascii(), value[..size].escape_ascii())
    };
    names.iter().map(show).collect()
}

/// Beginnings and ends of what is not a hole.
fn data(path: &Path, size: u64) -> Vec<(u64, u64)> {
    let file = File::open(path).unwrap();
    let mut data = Vec::new();
    let mut at = 0;
    while at < size {
        let Ok(start) = rustix::fs::seek(file.as_fd(), SeekFrom::Data(at)) else { break };
        at = rustix::fs::seek(file.as_fd(), SeekFrom::Hole(start)).unwrap();
        data.push((start, at));
    }
    data
}
