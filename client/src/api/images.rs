//! The list of images that the API gives, as a catalogue.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use millstream_image::{Alias, Architecture, Fingerprint, Product};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::catalogue::{Catalogue, CatalogueImage, Details, Refused, RemoteFile, RootKind, is_serial};
use crate::{Error, Result};

/// The largest property that is taken over, in bytes.
const MAX_PROPERTY: usize = 1024;

/// One image of `/1.0/images?recursion=1`, as far as it counts here.
#[derive(Deserialize)]
struct Listed {
    fingerprint: Fingerprint,
    size: u64,
    architecture: String,
    /// Servers from before virtual machines do not say.
    #[serde(default)]
    r#type: String,
    #[serde(default, deserialize_with = "nullable")]
    properties: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "nullable")]
    aliases: Vec<Named>,
    #[serde(default)]
    uploaded_at: Option<DateTime<Utc>>,
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

/// Go writes `null` for what is empty.
fn nullable<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// Reads the list. What is no image of a container is passed over; an entry that cannot be read takes
/// no other with it.
pub fn catalogue(listed: Vec<Value>) -> Catalogue {
    let mut catalogue = Catalogue::default();
    for value in listed {
        let name = value["fingerprint"].as_str().unwrap_or("an image").chars().take(64).collect::<String>();
        match image(value) {
            Ok(image) => catalogue.images.extend(image),
            Err(reason) => {
                catalogue.refused.push(Refused { product: name, aliases: String::new(), reason });
            }
        }
    }
    catalogue.images.sort_by(|a, b| a.product.cmp(&b.product).then(b.serial.cmp(&a.serial)));
    let mut seen = BTreeSet::new();
    for image in &mut catalogue.images {
        // What somebody gave a name is to be found by it, whatever else calls itself the same.
        image.newest = seen.insert(image.product.clone()) || !image.aliases().is_empty();
    }
    catalogue
}

fn image(value: Value) -> Result<Option<CatalogueImage>, String> {
    let listed: Listed = serde_json::from_value(value).map_err(|e| e.to_string())?;
    if !matches!(listed.r#type.as_str(), "" | "container") {
        return Ok(None);
    }
    let arch = listed.architecture.parse().map_err(|e: millstream_image::Error| e.to_string())?;
    let product = product(&listed, arch).map_err(|e| e.to_string())?;
    let path = format!("1.0/images/{}/export", listed.fingerprint);
    let path = path.parse().map_err(|e: Error| e.to_string())?;
    let answer = RemoteFile { path, size: listed.size, sha256: listed.fingerprint.digest() };
    let serial = serial(&listed);
    let properties = properties(listed.properties, arch, &serial);
    let get = |key: &str| properties.get(key).cloned().unwrap_or_default();
    let details = Details {
        aliases: listed.aliases.iter().filter_map(|alias| alias.name.parse::<Alias>().ok()).collect(),
        os: get("os"),
        release_title: properties.get("version").cloned().unwrap_or_else(|| get("release")),
        support_eol: None,
        requirements: BTreeMap::new(),
        own: Some(properties),
    };
    Ok(Some(CatalogueImage {
        fingerprint: listed.fingerprint,
        product,
        serial,
        details: Arc::new(details),
        metadata: answer.clone(),
        metadata_name: RootKind::Exported.file_name(),
        rootfs: answer,
        root_kind: RootKind::Exported,
        uncompressed: None,
        deltas: Vec::new(),
        unified: None,
        manifest: None,
        others: Vec::new(),
        newest: false,
    }))
}

/// What an image is, by its properties; where they do not say, itself alone.
fn product(listed: &Listed, arch: Architecture) -> Result<Product> {
    let get = |key: &str| listed.properties.get(key).map(String::as_str);
    if let (Some(os), Some(release)) = (get("os"), get("release"))
        && let Ok(product) = Product::new(os, release, arch, get("variant").unwrap_or("default"))
    {
        return Ok(product);
    }
    Ok(Product::new("image", &listed.fingerprint.short(), arch, "default")?)
}

/// When it was made, as its properties say, else when it came to the server.
fn serial(listed: &Listed) -> String {
    let uploaded = || listed.uploaded_at.unwrap_or_default().format("%Y%m%d_%H%M").to_string();
    let stated = listed.properties.get("serial").filter(|serial| is_serial(serial));
    stated.cloned().unwrap_or_else(uploaded)
}

/// The image's own, in one line each, with Debian's name of the architecture as the store has it.
fn properties(
    own: BTreeMap<String, String>,
    architecture: Architecture,
    serial: &str,
) -> BTreeMap<String, String> {
    let line = |text: String| text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>();
    let short = |(key, value): &(String, String)| key.len() + value.len() <= MAX_PROPERTY;
    let mut properties: BTreeMap<_, _> =
        own.into_iter().filter(short).map(|(key, value)| (line(key), line(value))).collect();
    properties.insert("architecture".to_owned(), architecture.debian().to_owned());
    properties.entry("serial".to_owned()).or_insert_with(|| serial.to_owned());
    properties
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entry(digit: &str, properties: &Value, alias: &str) -> Value {
        let aliases =
            if alias.is_empty() { Value::Null } else { json!([{"name": alias, "description": ""}]) };
        json!({
            "fingerprint": digit.repeat(64), "size": 7, "architecture": "x86_64", "type": "container",
            "properties": properties, "aliases": aliases, "uploaded_at": "2026-01-02T03:04:05.678Z",
        })
    }

    #[test]
    fn images_are_found_by_name_by_properties_and_by_fingerprint() {
        let debian =
            json!({"os": "Debian", "release": "bookworm", "serial": "20260101_0000", "description": "a\nb"});
        let newer = json!({"os": "Debian", "release": "bookworm", "serial": "20260201_0000"});
        let catalogue = catalogue(vec![
            entry("a", &debian, "old"),
            entry("b", &newer, ""),
            entry("c", &Value::Null, "mine"),
            json!({"fingerprint": "../../etc"}),
            json!({"fingerprint": "d".repeat(64), "size": 1, "architecture": "x86_64", "type": "virtual-machine"}),
        ]);
        assert_eq!(catalogue.images.len(), 3);
        assert_eq!(catalogue.refused.len(), 1);
        let host = "amd64".parse().unwrap();
        let find = |name: &str| catalogue.resolve(&name.parse().unwrap(), host).unwrap();
        for (name, digit) in [("old", "a"), ("mine", "c"), ("image/cccccccccccc", "c"), ("bbbbbbb", "b")] {
            assert_eq!(find(name).fingerprint.to_string(), digit.repeat(64), "{name}");
        }
        assert_eq!(find("mine").serial, "20260102_0304");
        assert_eq!(find("old").properties()["description"], "a b");
        assert_eq!(find("old").size(), 7);
        let both = catalogue.resolve(&"debian/bookworm".parse().unwrap(), host).unwrap_err().to_string();
        assert!(both.contains("aaaaaaaaaaaa") && both.contains("bbbbbbbbbbbb"), "{both}");
    }

    proptest::proptest! {
        #[test]
        fn any_properties_make_an_image_that_stays_in_its_place(os in ".{0,70}", release in ".{0,70}") {
            let catalogue = catalogue(vec![entry("a", &json!({"os": os, "release": release}), "x")]);
            let image = &catalogue.images[0];
            let place = format!("1.0/images/{}/export", "a".repeat(64));
            proptest::prop_assert_eq!(image.rootfs.path.as_str(), place);
            proptest::prop_assert!(!image.properties().values().any(|v| v.contains(char::is_control)));
        }
    }
}
