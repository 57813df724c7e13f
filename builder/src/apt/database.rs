//! Reading dpkg's database of a finished root file system.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use millstream_image::archive::FileGroup;
use millstream_image::manifest::Package;

use super::deb822::paragraphs;
use crate::rootfs::Rootfs;
use crate::{Error, Result};

/// Every installed package, with the hash of its file where that is known.
pub(crate) fn packages(
    rootfs: &Rootfs,
    hashes: &BTreeMap<(String, String), Package>,
) -> Result<Vec<Package>> {
    let status = rootfs.read("/var/lib/dpkg/status")?.unwrap_or_default();
    let status = String::from_utf8_lossy(&status);
    let mut packages = Vec::new();
    for paragraph in paragraphs(&status) {
        let field = |name: &str| paragraph.get(name).unwrap_or_default().to_owned();
        if !field("Status").ends_with(" installed") {
            continue;
        }
        let (name, version) = (field("Package"), field("Version"));
        let sha256 = hashes.get(&(name.clone(), version.clone())).and_then(|package| package.sha256);
        packages.push(Package { name, version, architecture: field("Architecture"), sha256 });
    }
    packages.sort_by(|a, b| (&a.name, &a.architecture).cmp(&(&b.name, &b.architecture)));
    Ok(packages)
}

/// Files by source package, sources by name: the packages of one source are updated together and
/// resemble each other. What is of the base comes first, so that variants have its blocks in common. None where
/// there is no dpkg.
pub(crate) fn groups(rootfs: &Rootfs, base: &BTreeSet<String>) -> Result<Vec<FileGroup>> {
    let info = rootfs.path().join("var/lib/dpkg/info");
    let listing = match fs::read_dir(&info) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(Error::io(&info))?,
    };
    let mut lists: Vec<_> = listing
        .flatten()
        .map(|item| item.path())
        .filter(|path| path.extension().is_some_and(|e| e == "list"))
        .collect();
    lists.sort();
    let merged = merged_directories(rootfs.path())?;
    let sources = sources(rootfs)?;
    let mut groups = BTreeMap::<_, FileGroup>::new();
    for list in lists {
        let text = fs::read(&list).map_err(Error::io(&list))?;
        let text = String::from_utf8_lossy(&text);
        let resolve = |line: &str| {
            let path = Path::new(line.trim_start_matches('/'));
            let first = path.components().next()?;
            // Packages may name /bin/x for what lies in /usr/bin.
            let moved = merged.contains(Path::new(first.as_os_str()));
            Some(if moved { Path::new("usr").join(path) } else { path.to_path_buf() })
        };
        let name = list.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let name = name.split_once(':').map_or(name, |(name, _architecture)| name);
        let source = sources.get(name).map_or(name, String::as_str).to_owned();
        groups
            .entry((!base.contains(name), source))
            .or_default()
            .paths
            .extend(text.lines().filter_map(resolve));
    }
    Ok(groups.into_values().collect())
}

/// Sources of the packages whose names differ from them.
fn sources(rootfs: &Rootfs) -> Result<HashMap<String, String>> {
    let status = rootfs.read("/var/lib/dpkg/status")?.unwrap_or_default();
    let status = String::from_utf8_lossy(&status);
    let named = paragraphs(&status).filter_map(|paragraph| {
        // A version in parentheses may follow.
        let source = paragraph.get("Source")?.split_whitespace().next()?.to_owned();
        Some((paragraph.get("Package")?.to_owned(), source))
    });
    Ok(named.collect())
}

/// Names in the root directory that are links.
fn merged_directories(root: &Path) -> Result<HashSet<PathBuf>> {
    let listing = fs::read_dir(root).map_err(Error::io(root))?;
    let links = listing.flatten().filter(|item| item.file_type().is_ok_and(|kind| kind.is_symlink()));
    Ok(links.map(|item| PathBuf::from(item.file_name())).collect())
}
