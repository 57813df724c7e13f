//! Software bill of materials: SPDX 2.3 as JSON, made of a manifest.
//!
//! The document holds nothing but what the manifest says, no random identifiers and no time but the
//! epoch, so that the same image has the same document. Source of the format: the SPDX
//! specification 2.3 (ISO/IEC 5962), names of packages: the package-URL specification.

use std::fmt::Write as _;

use chrono::DateTime;
use serde_json::{Value, json};

use crate::manifest::{File, Manifest, Package};
use crate::{Error, Result, Sha256Digest};

/// The customary end of such a file's name is `.spdx.json`.
pub const FILE: &str = "sbom.spdx.json";

const UNKNOWN: &str = "NOASSERTION";
const IMAGE: &str = "SPDXRef-Image";

/// The document's bytes. `kind` is the type of package URLs: `deb`, `rpm`, `apk`, …
pub fn document(manifest: &Manifest, kind: &str) -> Result<Vec<u8>> {
    let product = &manifest.product;
    let name = format!("{}-{}", product.to_string().replace(':', "-"), manifest.serial);
    let created = DateTime::from_timestamp(manifest.source_date_epoch, 0)
        .ok_or_else(|| Error::document(FILE, "the manifest's epoch is not a time of this era"))?
        .to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
    let mut packages = vec![json!({
        "SPDXID": IMAGE,
        "name": product.to_string(),
        "versionInfo": manifest.serial.to_string(),
        "description": manifest.description,
        "primaryPackagePurpose": "OPERATING-SYSTEM",
        "downloadLocation": UNKNOWN,
        "filesAnalyzed": false,
    })];
    packages.extend(manifest.files.iter().map(|(name, file)| artefact(name, file)));
    packages.extend(manifest.packages.iter().map(|package| installed(manifest, package, kind)));
    let mut relationships = vec![relationship("SPDXRef-DOCUMENT", "DESCRIBES", IMAGE)];
    let contained = packages.iter().skip(1).filter_map(|package| package["SPDXID"].as_str());
    relationships.extend(contained.map(|id| relationship(IMAGE, "CONTAINS", id)));
    let contents = json!({ "name": name, "created": created, "packages": packages });
    // Unique for what it describes, without being random.
    let digest = Sha256Digest::of(&serde_json::to_vec(&contents).map_err(|e| Error::document(FILE, e))?);
    let document = json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": name,
        "documentNamespace": format!("https://spdx.org/spdxdocs/{name}-{digest}"),
        "creationInfo": {
            "created": created,
            "creators": [concat!("Tool: millstream-", env!("CARGO_PKG_VERSION"))],
        },
        "packages": packages,
        "relationships": relationships,
    });
    let mut bytes = serde_json::to_vec_pretty(&document).map_err(|e| Error::document(FILE, e))?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// A file of the image.
fn artefact(name: &str, file: &File) -> Value {
    json!({
        "SPDXID": format!("SPDXRef-File-{}", id(name)),
        "name": name,
        "packageFileName": name,
        "primaryPackagePurpose": "ARCHIVE",
        "checksums": [checksum(&file.sha256)],
        "downloadLocation": UNKNOWN,
        "filesAnalyzed": false,
    })
}

/// An installed package.
fn installed(manifest: &Manifest, package: &Package, kind: &str) -> Value {
    let Package { name, version, architecture, sha256, .. } = package;
    let mut entry = json!({
        "SPDXID": format!("SPDXRef-Package-{}-{}-{}", id(name), id(version), id(architecture)),
        "name": name,
        "versionInfo": version,
        "downloadLocation": UNKNOWN,
        "filesAnalyzed": false,
        "licenseConcluded": UNKNOWN,
        "licenseDeclared": UNKNOWN,
        "copyrightText": UNKNOWN,
        "externalRefs": [{
            "referenceCategory": "PACKAGE-MANAGER",
            "referenceType": "purl",
            "referenceLocator": purl(manifest, package, kind),
        }],
    });
    if let Some(sha256) = sha256 {
        entry["checksums"] = json!([checksum(sha256)]);
    }
    entry
}

/// `pkg:deb/debian/bash@5.2.15-2%2Bb7?arch=amd64&distro=bookworm`.
fn purl(manifest: &Manifest, package: &Package, kind: &str) -> String {
    let product = &manifest.product;
    format!(
        "pkg:{kind}/{}/{}@{}?arch={}&distro={}",
        percent(product.distribution()),
        percent(&package.name),
        percent(&package.version),
        percent(&package.architecture),
        percent(product.release()),
    )
}

fn checksum(digest: &Sha256Digest) -> Value {
    json!({ "algorithm": "SHA256", "checksumValue": digest.to_string() })
}

fn relationship(from: &str, kind: &str, to: &str) -> Value {
    json!({ "spdxElementId": from, "relationshipType": kind, "relatedSpdxElement": to })
}

/// Letters, digits, dots and hyphens as they are, the rest by its code: different texts stay different.
fn id(text: &str) -> String {
    escape(text, |byte| byte.is_ascii_alphanumeric() || byte == b'.' || byte == b'-', "-x")
}

/// As package URLs escape their parts.
fn percent(text: &str) -> String {
    escape(text, |byte| byte.is_ascii_alphanumeric() || b".-_~:".contains(&byte), "%")
}

fn escape(text: &str, plain: impl Fn(u8) -> bool, mark: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        if plain(byte) {
            escaped.push(byte.into());
        } else {
            let _ = write!(escaped, "{mark}{byte:02X}");
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    fn manifest() -> Manifest {
        let package = |name: &str, version: &str, sha256| Package {
            name: name.into(),
            version: version.into(),
            architecture: "amd64".into(),
            sha256,
        };
        Manifest {
            version: 1,
            product: "debian:bookworm:amd64:default".parse().unwrap(),
            serial: "20260701_0000".parse().unwrap(),
            os: "Debian".into(),
            description: "Debian bookworm".into(),
            release_aliases: Vec::new(),
            requirements: BTreeMap::new(),
            source_date_epoch: 1_782_864_000,
            recipe: String::new(),
            sources: Vec::new(),
            packages: vec![
                package("libstdc++6", "12.2.0-14+deb12u1", Some(Sha256Digest::of(b"deb"))),
                package("vim-tiny", "2:9.0.1378-2", None),
            ],
            files: BTreeMap::from([(
                "rootfs.tar.xz".into(),
                File {
                    size: 3,
                    sha256: Sha256Digest::of(b"xyz"),
                    sha256_uncompressed: None,
                    size_uncompressed: None,
                },
            )]),
            durations: vec![("pack".into(), 1.5)],
            inputs: None,
        }
    }

    #[test]
    fn it_has_what_the_specification_asks_for() {
        let document: Value = serde_json::from_slice(&document(&manifest(), "deb").unwrap()).unwrap();
        for key in ["spdxVersion", "dataLicense", "SPDXID", "name", "documentNamespace"] {
            assert!(document[key].is_string(), "{key}");
        }
        assert_eq!(document["creationInfo"]["created"], "2026-07-01T00:00:00Z");
        let packages = document["packages"].as_array().unwrap();
        let ids: BTreeSet<_> = packages.iter().map(|p| p["SPDXID"].as_str().unwrap()).collect();
        assert_eq!(ids.len(), packages.len(), "identifiers are unique");
        for package in packages {
            assert!(package["name"].is_string() && package["downloadLocation"].is_string(), "{package}");
            let id = package["SPDXID"].as_str().unwrap().strip_prefix("SPDXRef-").unwrap();
            assert!(id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'-'), "{id}");
        }
        for relationship in document["relationships"].as_array().unwrap() {
            let to = relationship["relatedSpdxElement"].as_str().unwrap();
            assert!(ids.contains(to), "{to} is described");
        }
        assert_eq!(document["relationships"].as_array().unwrap().len(), packages.len());
    }

    #[test]
    fn packages_have_their_urls_and_hashes() {
        let document: Value = serde_json::from_slice(&document(&manifest(), "deb").unwrap()).unwrap();
        let of = |name: &str| {
            let packages = document["packages"].as_array().unwrap();
            packages.iter().find(|package| package["name"] == name).unwrap().clone()
        };
        assert_eq!(
            of("libstdc++6")["externalRefs"][0]["referenceLocator"],
            "pkg:deb/debian/libstdc%2B%2B6@12.2.0-14%2Bdeb12u1?arch=amd64&distro=bookworm"
        );
        assert_eq!(
            of("vim-tiny")["externalRefs"][0]["referenceLocator"],
            "pkg:deb/debian/vim-tiny@2:9.0.1378-2?arch=amd64&distro=bookworm"
        );
        let sha256 = Sha256Digest::of(b"deb").to_string();
        assert_eq!(of("libstdc++6")["checksums"][0]["checksumValue"], sha256);
        assert!(of("vim-tiny").get("checksums").is_none());
        assert_eq!(of("rootfs.tar.xz")["checksums"][0]["algorithm"], "SHA256");
    }

    #[test]
    fn the_same_image_has_the_same_document() {
        let mut later = manifest();
        later.durations.clear();
        assert_eq!(document(&manifest(), "deb").unwrap(), document(&later, "deb").unwrap());
        later.packages.pop();
        assert_ne!(document(&manifest(), "deb").unwrap(), document(&later, "deb").unwrap());
    }
}
