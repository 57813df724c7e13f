//! What apt inside the new root finds as if it had fetched it itself: lists of packages, and
//! package files. So `apt-get update` and most downloads cost nothing, and every file that comes
//! from the cache has been hashed in this very build.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use millstream_image::{Sha256Digest, manifest};

use super::bootstrap::{Fetcher, Installed, needed};
use super::index::Package;
use crate::rootfs::{Attributes, Rootfs};
use crate::{Error, Result};

impl Installed {
    /// Writes the verified documents of the bootstrap where apt keeps its own.
    pub(crate) fn seed_lists(&self, rootfs: &Rootfs) -> Result<()> {
        let write = |url: &str, data: &[u8]| {
            rootfs.write(&format!("/var/lib/apt/lists/{}", list_name(url)), data, Attributes::default())
        };
        for release in &self.releases {
            let url = format!("{}/dists/{}/InRelease", release.source.url, release.source.suites[0]);
            write(&url, &release.document)?;
        }
        self.lists.iter().try_for_each(|list| write(&list.url, list.text.as_bytes()))
    }

    /// Fetches what installing `wanted` will need into `archives`. Only apt knows exactly, so what
    /// cannot be told from here is left to it.
    pub(crate) fn seed_archives(
        &mut self,
        fetcher: &Fetcher<'_>,
        wanted: &[String],
        recommends: bool,
        archives: &Path,
    ) -> Result<()> {
        let names = self.names.iter().map(String::as_str);
        let Some(needed) = needed(&self.packages, names, wanted, recommends) else { return Ok(()) };
        let missing = needed.into_values().filter(|package| !self.names.contains(&package.name));
        let missing: Vec<Arc<Package>> = missing.collect();
        fetcher.run(fetcher.packages(&missing, None))?;
        for package in missing {
            let name = archive_name(&package.name, &package.version, package.field("Architecture"));
            let (from, to) = (fetcher.file(&package.file()?), archives.join(name));
            if !to.exists() {
                fs::hard_link(&from, &to).map_err(Error::io(&to))?;
            }
            self.record(&package)?;
        }
        Ok(())
    }

    /// Takes the package files apt fetched, and verified, itself into the cache of later builds.
    pub(crate) fn harvest(&mut self, archives: &Path, cache: &Path) -> Result<()> {
        let seeded: BTreeSet<_> = self
            .hashes
            .values()
            .map(|package| archive_name(&package.name, &package.version, &package.architecture))
            .collect();
        for item in fs::read_dir(archives).map_err(Error::io(archives))?.flatten() {
            let name = item.file_name().to_string_lossy().into_owned();
            let Some(stem) = name.strip_suffix(".deb").filter(|_| !seeded.contains(&name)) else { continue };
            let [package, version, architecture] = stem.split('_').collect::<Vec<_>>()[..] else { continue };
            let file = fs::File::open(item.path()).map_err(Error::io(item.path()))?;
            let (sha256, _) = Sha256Digest::of_reader(file).map_err(Error::io(item.path()))?;
            let version = version.replace("%3a", ":");
            let record = manifest::Package {
                name: package.to_owned(),
                version: version.clone(),
                architecture: architecture.to_owned(),
                sha256: Some(sha256),
            };
            self.hashes.insert((package.to_owned(), version), record);
            let place = cache.join(sha256.to_string());
            fs::rename(item.path(), &place).map_err(Error::io(&place))?;
        }
        Ok(())
    }
}

/// apt's name of a package file.
fn archive_name(name: &str, version: &str, architecture: &str) -> String {
    format!("{name}_{}_{architecture}.deb", version.replace(':', "%3a"))
}

/// apt's file name for what it fetches from a URL: without scheme and password, `/` as `_`.
fn list_name(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    let mut name = String::new();
    for c in format!("{host}/{path}").chars() {
        match c {
            '/' => name.push('_'),
            '\\' | '|' | '{' | '}' | '[' | ']' | '<' | '>' | '"' | '^' | '~' | '_' | '=' | '!' | '@'
            | '#' | '$' | '%' | '&' | '*' => {
                let _ = write!(name, "%{:02x}", c as u32);
            }
            _ => name.push(c),
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_apts() {
        assert_eq!(
            list_name("http://u:p@deb.example.org/debian/dists/a/main/binary-amd64/Packages"),
            "deb.example.org_debian_dists_a_main_binary-amd64_Packages"
        );
        assert_eq!(list_name("http://h:8080/a_b/~x/InRelease"), "h:8080_a%5fb_%7ex_InRelease");
        assert_eq!(archive_name("a", "1:2-3", "all"), "a_1%3a2-3_all.deb");
    }
}
