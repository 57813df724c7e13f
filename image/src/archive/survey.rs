//! What lies below a directory that is to be packed.

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::header::BLOCK;
use super::plan::{Class, Item};
use super::{Compression, FileGroup, archive_error};
use crate::{Error, Result};

/// Directories and everything else, by path below the root.
pub(super) struct Survey {
    /// Sorted.
    pub(super) directories: Vec<PathBuf>,
    files: BTreeMap<PathBuf, Found>,
}

struct Found {
    size: u64,
    class: Class,
    mtime: i64,
    /// Device and inode of a file with several names.
    inode: Option<(u64, u64)>,
}

impl Survey {
    /// Looks at everything below `root`, through no link.
    pub(super) fn of(root: &Path) -> Result<Self> {
        let mut survey = Self { directories: vec![PathBuf::new()], files: BTreeMap::new() };
        let mut at = 0;
        while at < survey.directories.len() {
            let directory = survey.directories[at].clone();
            at += 1;
            let full = root.join(&directory);
            for item in fs::read_dir(&full).map_err(Error::io(&full))? {
                let item = item.map_err(Error::io(&full))?;
                let path = directory.join(item.file_name());
                if item.file_type().map_err(Error::io(&full))?.is_dir() {
                    survey.directories.push(path);
                } else {
                    let found = look(&item.path()).map_err(Error::io(item.path()))?;
                    survey.files.insert(path, found);
                }
            }
        }
        survey.directories.sort();
        let mut seen = HashSet::new();
        for found in survey.files.values_mut() {
            if found.inode.is_some_and(|inode| !seen.insert(inode)) {
                found.size = 0;
            }
        }
        Ok(survey)
    }

    /// The files of each group but those changed at `epoch` or later, and the rest by directory.
    pub(super) fn units(mut self, groups: &[FileGroup], epoch: i64) -> (Vec<Vec<Item>>, Vec<Vec<Item>>) {
        let mut owned = Vec::new();
        for group in groups {
            let mut unit = Vec::new();
            for path in &group.paths {
                if self.files.get(path).is_some_and(|found| found.mtime < epoch) {
                    unit.extend(self.files.remove_entry(path).map(item));
                }
            }
            owned.push(unit);
        }
        owned.retain(|unit| !unit.is_empty());
        let mut rest = BTreeMap::<_, Vec<_>>::new();
        for (path, found) in self.files {
            let directory = path.parent().map(Path::to_path_buf);
            rest.entry(directory).or_default().push(item((path, found)));
        }
        (owned, rest.into_values().collect())
    }
}

fn item((path, found): (PathBuf, Found)) -> Item {
    let size = BLOCK as u64 + found.size.next_multiple_of(BLOCK as u64);
    Item { path, size, class: found.class }
}

fn look(path: &Path) -> io::Result<Found> {
    let meta = fs::symlink_metadata(path)?;
    let mut found = Found { size: 0, class: Class::Plain, mtime: meta.mtime(), inode: None };
    if meta.nlink() > 1 {
        found.inode = Some((meta.dev(), meta.ino()));
    }
    if meta.is_file() && meta.size() > 0 {
        found.size = meta.size();
        let mut start = Vec::new();
        File::open(path)?.take(6).read_to_end(&mut start)?;
        found.class = class(&start);
    }
    Ok(found)
}

fn class(start: &[u8]) -> Class {
    match start {
        [0x7f, b'E', b'L', b'F', ..] => Class::Code,
        [0x89, b'P', b'N', b'G', ..] | [0xff, 0xd8, 0xff, ..] => Class::Dense,
        _ if Compression::detect(start) != Compression::None => Class::Dense,
        _ => Class::Plain,
    }
}

/// The attributes an image carries: capabilities, ACLs and what users set; not another host's
/// labels.
pub(super) fn xattrs(path: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let error = |e: rustix::io::Errno| Error::io(path)(e.into());
    let mut names = vec![0; 64 << 10];
    let size = match rustix::fs::llistxattr(path, &mut names) {
        Err(rustix::io::Errno::OPNOTSUPP) => 0,
        other => other.map_err(error)?,
    };
    let mut found = Vec::new();
    for name in names[..size].split(|b| *b == 0).filter(|name| !name.is_empty()) {
        let wanted = name == b"security.capability"
            || name.starts_with(b"user.")
            || name.starts_with(b"system.posix_acl_");
        if !wanted {
            continue;
        }
        let mut value = vec![0; 64 << 10];
        let size = rustix::fs::lgetxattr(path, OsStr::from_bytes(name), &mut value).map_err(error)?;
        value.truncate(size);
        let name = std::str::from_utf8(name)
            .map_err(|_| archive_error(format!("{}: attribute name is not UTF-8", path.display())))?;
        found.push((name.to_owned(), value));
    }
    found.sort();
    Ok(found)
}
