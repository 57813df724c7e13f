//! Images and the server as the API's JSON.

use std::fmt::Write as _;

use millstream_image::Architecture;
use serde_json::{Value, json};

use crate::http::offer::Offered;

/// Go's zero time, by which the API says never.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// `GET /1.0` for somebody who is not logged in: that is all clients ask before they add a remote.
pub(super) fn server() -> Value {
    let architectures: Vec<_> = Architecture::all().map(|architecture| architecture.kernel()).collect();
    json!({
        "api_status": "stable",
        "api_version": "1.0",
        "auth": "untrusted",
        "auth_methods": ["tls"],
        "public": true,
        "api_extensions": ["image_types", "images_all_projects", "api_filtering"],
        "config": {},
        "environment": {
            "addresses": [],
            "architectures": architectures,
            "server": "millstream",
            "server_version": env!("CARGO_PKG_VERSION"),
        },
    })
}

/// `api.Image`.
pub(super) fn image(image: &Offered) -> Value {
    let created = image.created().format("%Y-%m-%dT%H:%M:%SZ").to_string();
    let alias = |name: &String| json!({"name": name, "description": image.description()});
    let name = format!("{}-{}.tar.xz", image.product.to_string().replace(':', "-"), image.serial);
    json!({
        "fingerprint": image.fingerprint.to_string(),
        "filename": name,
        "size": image.size(),
        "architecture": image.product.architecture().kernel(),
        "type": "container",
        "public": true,
        "cached": false,
        "auto_update": false,
        "properties": image.properties(),
        "aliases": image.aliases.iter().map(alias).collect::<Value>(),
        "profiles": [],
        "created_at": created,
        "uploaded_at": created,
        "expires_at": NEVER,
        "last_used_at": NEVER,
    })
}

/// `api.ImageAliasesEntry`.
pub(super) fn alias(name: &str, image: &Offered) -> Value {
    json!({
        "name": name,
        "description": image.description(),
        "target": image.fingerprint.to_string(),
        "type": "container",
    })
}

/// A name as one part of a path.
pub(super) fn encode(name: &str) -> String {
    let mut text = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(byte.into());
        } else {
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slash_in_a_name_is_no_slash_of_the_path() {
        assert_eq!(encode("debian/12 x"), "debian%2F12%20x");
    }
}
