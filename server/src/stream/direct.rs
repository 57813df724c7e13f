//! Names and the unified archives they lead to, for web servers that only serve the tree: one map for each
//! distribution, which nginx, Apache and Caddy all read. [`crate::hosting`] writes what includes it.
//!
//! ```text
//! debian/bookworm/amd64 SHA256/images/debian/bookworm/amd64/default/20260101_0000/unified.tar.xz ;
//! ```
//!
//! A name ends in an architecture, by Debian's or the kernel's name, or in `/` for those who ask for none.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::ErrorKind;

use millstream_image::Product;
use millstream_image::simplestreams::Products;

use super::Stream;
use super::catalogue::Catalogue;
use super::documents::Documents;
use super::layout::{COMBINED, CURRENT};
use crate::{Error, Result};

/// Where the maps are in a publication; no link leads there, they are for web servers on this machine.
const DIRECT: &str = "direct";
/// What who asks for no architecture gets, if it is there.
const USUAL: [&str; 2] = ["amd64", "arm64"];

/// The map of a distribution, within a publication.
pub(super) fn path(distribution: &str) -> String {
    format!("{DIRECT}/{distribution}.map")
}

/// Writes the maps of what changed.
pub(super) fn render(catalogue: &Catalogue, documents: &mut Documents) {
    let root = catalogue.root().join(CURRENT);
    for distribution in catalogue.distributions().into_keys() {
        let path = path(distribution);
        match catalogue.documents().get(distribution) {
            Some(document) if document.changed => {
                documents.file(path, map(&document.products));
            }
            // Trees of older versions have none.
            _ if root.join(&path).exists() => documents.names.kept.push(path),
            _ => {}
        }
    }
}

impl Stream {
    /// The distributions of which the present publication has a map.
    pub(crate) fn direct_maps(&self) -> Result<Vec<String>> {
        let dir = self.root().join(CURRENT).join(DIRECT);
        let listing = match fs::read_dir(&dir) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            listing => listing.map_err(Error::io(&dir))?,
        };
        let names = listing.flatten().filter_map(|item| item.file_name().into_string().ok());
        let mut maps: Vec<_> =
            names.filter_map(|name| name.strip_suffix(".map").map(str::to_owned)).collect();
        maps.sort();
        Ok(maps)
    }
}

/// The map of a distribution's products.
pub(super) fn map(products: &Products) -> String {
    let mut targets: BTreeMap<String, String> = BTreeMap::new();
    let mut usual: BTreeMap<String, (usize, String)> = BTreeMap::new();
    for (name, entry) in &products.products {
        let Ok(product) = name.parse::<Product>() else { continue };
        let newest = entry.serials().max().and_then(|serial| entry.versions.get(&serial.to_string()));
        let unified = newest.and_then(|version| COMBINED.iter().find_map(|ftype| version.items.get(*ftype)));
        let Some((item, digest)) = unified.and_then(|item| Some((item, item.sha256?))) else { continue };
        let target = format!("{digest}/{}", item.path);
        let architecture = product.architecture();
        let names = [architecture.debian()].into_iter().chain(architecture.kernels().iter().copied());
        for alias in entry.alias_list() {
            for architecture in names.clone() {
                targets.insert(format!("{alias}/{architecture}"), target.clone());
            }
            let rank = USUAL.iter().position(|usual| *usual == architecture.debian()).unwrap_or(USUAL.len());
            let chosen = usual.entry(format!("{alias}/")).or_insert_with(|| (rank, target.clone()));
            if rank < chosen.0 {
                *chosen = (rank, target.clone());
            }
        }
    }
    targets.extend(usual.into_iter().map(|(name, (_, target))| (name, target)));
    let mut text = String::new();
    for (name, target) in targets {
        let _ = writeln!(text, "{name} {target} ;");
    }
    text
}

#[cfg(test)]
mod tests {
    use millstream_image::Sha256Digest;
    use millstream_image::simplestreams::{Item, ProductEntry, Version};

    use super::*;

    fn products(names: &[(&str, bool)]) -> Products {
        let mut products = Products::empty("images:debian".into());
        for (name, unified) in names {
            let item = |path: &str| Item {
                path: path.into(),
                sha256: Some(Sha256Digest::of(b"")),
                ..Item::default()
            };
            let mut old = Version::default();
            old.items.insert(COMBINED[0].into(), item("images/old"));
            let mut version = Version::default();
            if *unified {
                version.items.insert(COMBINED[0].into(), item(&format!("images/{name}")));
            }
            let entry = ProductEntry {
                aliases: "debian/12,debian/bookworm".into(),
                versions: [("20260101_0000".into(), old), ("20260102_0000".into(), version)].into(),
                ..ProductEntry::default()
            };
            products.products.insert((*name).into(), entry);
        }
        products
    }

    #[test]
    fn names_lead_to_the_newest_by_every_name_of_the_architecture() {
        let text = map(&products(&[("debian:12:s390x:a", true), ("debian:12:armhf:a", true)]));
        let names: Vec<_> = text.lines().filter_map(|line| line.split(' ').next()).collect();
        let expected = ["", "armhf", "armv7l", "armv8l", "s390x"];
        let all = ["12", "bookworm"].iter().flat_map(|r| expected.map(|a| format!("debian/{r}/{a}")));
        assert_eq!(names, all.collect::<Vec<_>>());
        let empty = Sha256Digest::of(b"");
        assert!(text.contains(&format!("debian/12/s390x {empty}/images/debian:12:s390x:a ;\n")), "{text}");
        assert!(!text.contains("images/old"), "{text}");
    }

    #[test]
    fn who_asks_for_no_architecture_gets_a_usual_one() {
        for (names, expected) in [
            (
                &[("debian:12:amd64:a", true), ("debian:12:armhf:a", true), ("debian:12:arm64:a", true)][..],
                "amd64",
            ),
            (
                &[("debian:12:amd64:a", false), ("debian:12:armhf:a", true), ("debian:12:arm64:a", true)],
                "arm64",
            ),
            (&[("debian:12:armhf:a", true)], "armhf"),
        ] {
            let text = map(&products(names));
            let line = text.lines().find(|line| line.starts_with("debian/12/ ")).unwrap();
            assert!(line.contains(&format!("/images/debian:12:{expected}:a ")), "{line}");
        }
        assert_eq!(map(&products(&[("debian:12:amd64:a", false)])), "");
    }
}
