//! What changed between two images, told from their manifests.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use millstream_image::manifest::{Manifest, Package};
use serde::{Deserialize, Serialize};

use crate::apt::version;

/// What changed from one image to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The older side.
    pub from: Side,
    /// The newer side.
    pub to: Side,
    /// Packages that came, were updated, went back or went away; by name.
    pub packages: Vec<PackageChange>,
    /// Files that came, went away or have other bytes; by name.
    pub files: Vec<FileChange>,
}

/// One of the two images.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Side {
    /// Its product.
    pub product: String,
    /// Its serial.
    pub serial: String,
    /// Number of packages.
    pub packages: usize,
}

/// What became of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// It has a higher version.
    Updated,
    /// It has a lower version.
    Downgraded,
    /// It is something else under the same name: a package rebuilt under its version, a file with
    /// other bytes.
    Changed,
}

/// A package that changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackageChange {
    /// Name.
    pub name: String,
    /// The package's architecture.
    pub architecture: String,
    /// What became of it.
    pub change: Change,
    /// Version before.
    pub from: Option<String>,
    /// Version after.
    pub to: Option<String>,
}

/// A file that changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileChange {
    /// Name.
    pub name: String,
    /// What became of it.
    pub change: Change,
    /// Bytes before.
    pub from: Option<u64>,
    /// Bytes after.
    pub to: Option<u64>,
}

impl Difference {
    /// Compares two manifests. Versions are ordered as dpkg orders them.
    pub fn between(from: &Manifest, to: &Manifest) -> Self {
        Self { from: side(from), to: side(to), packages: packages(from, to), files: files(from, to) }
    }
}

fn side(manifest: &Manifest) -> Side {
    Side {
        product: manifest.product.to_string(),
        serial: manifest.serial.to_string(),
        packages: manifest.packages.len(),
    }
}

fn packages(from: &Manifest, to: &Manifest) -> Vec<PackageChange> {
    let mut changes = Vec::new();
    for (key, before, after) in join(&by_name(from), &by_name(to)) {
        let (before, after) = unmatched(&before.unwrap_or_default(), &after.unwrap_or_default());
        // A name has one version but for what may be installed several times, as kernels are.
        for at in 0..before.len().max(after.len()) {
            let (before, after) = (before.get(at), after.get(at));
            let change = match (before, after) {
                (Some(before), Some(after)) => match version::compare(&before.version, &after.version) {
                    Ordering::Less => Change::Updated,
                    Ordering::Greater => Change::Downgraded,
                    Ordering::Equal => Change::Changed,
                },
                (None, _) => Change::Added,
                (_, None) => Change::Removed,
            };
            let version = |package: Option<&&Package>| package.map(|package| package.version.clone());
            changes.push(PackageChange {
                name: key.0.to_owned(),
                architecture: key.1.to_owned(),
                change,
                from: version(before),
                to: version(after),
            });
        }
    }
    changes
}

/// Packages by name and architecture, versions rising.
fn by_name(manifest: &Manifest) -> BTreeMap<(&str, &str), Vec<&Package>> {
    let mut found: BTreeMap<_, Vec<&Package>> = BTreeMap::new();
    for package in &manifest.packages {
        found.entry((package.name.as_str(), package.architecture.as_str())).or_default().push(package);
    }
    for list in found.values_mut() {
        list.sort_by(|a, b| version::compare(&a.version, &b.version));
    }
    found
}

/// What of each side the other does not have.
fn unmatched<'a>(before: &[&'a Package], after: &[&'a Package]) -> (Vec<&'a Package>, Vec<&'a Package>) {
    // A hash that one of both does not know says nothing.
    let same = |a: &Package, b: &Package| {
        a.version == b.version && (a.sha256 == b.sha256 || a.sha256.is_none() || b.sha256.is_none())
    };
    let missing = |from: &[&'a Package], to: &[&'a Package]| {
        from.iter().filter(|package| !to.iter().any(|other| same(package, other))).copied().collect()
    };
    (missing(before, after), missing(after, before))
}

fn files(from: &Manifest, to: &Manifest) -> Vec<FileChange> {
    let mut changes = Vec::new();
    for (name, before, after) in join(&from.files, &to.files) {
        let change = match (&before, &after) {
            (Some(before), Some(after)) if before.sha256 == after.sha256 => continue,
            (Some(_), Some(_)) => Change::Changed,
            (None, _) => Change::Added,
            (_, None) => Change::Removed,
        };
        changes.push(FileChange {
            name,
            change,
            from: before.map(|file| file.size),
            to: after.map(|file| file.size),
        });
    }
    changes
}

/// Both sides by key, keys in order.
fn join<K: Ord + Clone, V: Clone>(
    from: &BTreeMap<K, V>,
    to: &BTreeMap<K, V>,
) -> Vec<(K, Option<V>, Option<V>)> {
    let mut keys: Vec<_> = from.keys().chain(to.keys()).collect();
    keys.sort();
    keys.dedup();
    keys.into_iter().map(|key| (key.clone(), from.get(key).cloned(), to.get(key).cloned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(packages: &[(&str, &str)]) -> Manifest {
        let packages: Vec<_> = packages
            .iter()
            .map(|(name, version)| {
                serde_json::json!({"name": name, "version": version, "architecture": "amd64"})
            })
            .collect();
        let sha256 = millstream_image::Sha256Digest::of(packages.len().to_string().as_bytes());
        let text = serde_json::json!({
            "version": 1, "product": "debian:bookworm:amd64:default", "serial": "20260701_0000",
            "os": "Debian", "description": "", "source_date_epoch": 0, "recipe": "", "sources": [],
            "packages": packages, "durations": [],
            "files": {"rootfs.tar.xz": {"size": packages.len(), "sha256": sha256}},
        });
        Manifest::parse(text.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn packages_come_go_and_change_in_dpkgs_order() {
        let before = manifest(&[("a", "1"), ("gone", "1"), ("back", "1:1"), ("up", "1.9"), ("rc", "2~rc1")]);
        let after = manifest(&[("a", "1"), ("new", "3"), ("back", "9"), ("up", "1.10"), ("rc", "2")]);
        let difference = Difference::between(&before, &after);
        let found: Vec<_> = difference.packages.iter().map(|p| (p.name.as_str(), p.change)).collect();
        assert_eq!(
            found,
            [
                ("back", Change::Downgraded),
                ("gone", Change::Removed),
                ("new", Change::Added),
                ("rc", Change::Updated),
                ("up", Change::Updated),
            ]
        );
        assert!(difference.files.is_empty(), "both have as many packages, so the same file here");
    }

    #[test]
    fn several_versions_of_one_name_are_told_apart() {
        let before = manifest(&[("kernel", "1"), ("kernel", "2")]);
        let after = manifest(&[("kernel", "2"), ("kernel", "3"), ("kernel", "10")]);
        let changes = Difference::between(&before, &after).packages;
        let versions: Vec<_> = changes.iter().map(|c| (c.from.as_deref(), c.to.as_deref())).collect();
        assert_eq!(versions, [(Some("1"), Some("3")), (None, Some("10"))]);
    }

    #[test]
    fn files_with_other_bytes_show_their_sizes() {
        let difference = Difference::between(&manifest(&[("a", "1")]), &manifest(&[]));
        assert_eq!(difference.files[0].change, Change::Changed);
        assert_eq!((difference.files[0].from, difference.files[0].to), (Some(1), Some(0)));
    }
}
