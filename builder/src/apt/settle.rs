//! Packages in the versions an earlier build had, for building it again after the mirror moved on.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use millstream_image::manifest;

use super::deb;
use super::index::{List, Package, places};
use crate::{Error, Result};

/// Takes other versions of `settled` packages out of the lists, where the wanted one is listed or
/// its file lies in the cache. Of what is nowhere any more the lists keep what they have.
pub(super) fn settle(lists: &mut [List], settled: &[manifest::Package], cache: &Path) -> Result<()> {
    if settled.is_empty() {
        return Ok(());
    }
    let wanted: BTreeMap<_, _> = settled
        .iter()
        .filter_map(|package| Some((package.name.as_str(), package.sha256?.to_string())))
        .collect();
    let mut found = BTreeSet::new();
    for list in lists.iter() {
        for package in packages(list) {
            if wanted.get(package.name.as_str()).is_some_and(|sha256| package.field("SHA256") == sha256) {
                found.insert(package.name.clone());
            }
        }
    }
    let mut cached = String::new();
    for (name, sha256) in &wanted {
        if found.contains(*name) {
            continue;
        }
        let file = cache.join(sha256);
        if let Ok(meta) = fs::metadata(&file)
            && let Ok(control) = deb::control(&file)
        {
            let control = control.trim_end();
            let _ = writeln!(
                cached,
                "{control}\nFilename: pool/{name}.deb\nSize: {}\nSHA256: {sha256}\n",
                meta.len()
            );
            found.insert((*name).to_owned());
        }
    }
    for (number, list) in lists.iter_mut().enumerate() {
        let keep = |package: &Package| {
            !found.contains(&package.name)
                || wanted.get(package.name.as_str()).is_some_and(|sha256| package.field("SHA256") == sha256)
        };
        let mut text: String = packages(list)
            .filter(keep)
            .flat_map(|package| [package.text().to_owned(), "\n".into()])
            .collect();
        if number == 0 {
            text.push_str(&cached);
        }
        list.text = text.into();
    }
    if lists.is_empty() { Err(Error::Internal("no list of packages".into())) } else { Ok(()) }
}

fn packages(list: &List) -> impl Iterator<Item = Package> {
    places(&list.text).filter_map(|place| Package::new(&list.text, place, &list.base))
}

#[cfg(test)]
mod tests {
    use super::*;
    use millstream_image::Sha256Digest;

    #[test]
    fn only_the_settled_version_stays_where_it_can_be_had() {
        let (old, new) = (Sha256Digest::of(b"old"), Sha256Digest::of(b"new"));
        let entry = |name: &str, version: u32, sha256: &Sha256Digest| {
            format!("Package: {name}\nVersion: {version}\nSHA256: {sha256}\n\n")
        };
        let text =
            [entry("a", 1, &old), entry("a", 2, &new), entry("b", 2, &new), entry("c", 1, &new)].concat();
        let mut lists = [List { url: "u".into(), text: text.into(), base: "b".into() }];
        let settled = ["a", "b"].map(|name| manifest::Package {
            name: name.into(),
            version: "1".into(),
            architecture: "all".into(),
            sha256: Some(old),
        });
        settle(&mut lists, &settled, Path::new("/nonexistent")).unwrap();
        let left: Vec<_> = packages(&lists[0]).map(|p| format!("{}{}", p.name, p.version)).collect();
        assert_eq!(left, ["a1", "b2", "c1"], "the old b is nowhere any more");
    }
}
