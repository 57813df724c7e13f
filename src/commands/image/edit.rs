//! `image edit`.

use std::collections::BTreeMap;

use anyhow::bail;
use millstream_client::Client;
use serde::{Deserialize, Serialize};

use crate::commands::instance::settings::edit_checked;

/// What may be changed of an image, as LXD names it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Editable {
    auto_update: bool,
    public: bool,
    properties: BTreeMap<String, String>,
}

pub fn run(client: &Client, name: &str) -> anyhow::Result<()> {
    let store = client.store()?;
    let image = store.resolve(&super::local(name)?)?;
    let before = Editable {
        auto_update: image.auto_update,
        public: image.public,
        properties: image.properties.clone(),
    };
    let after = edit_checked(&before, |after| {
        if after.properties.get("architecture") != before.properties.get("architecture") {
            bail!("properties: architecture is what the image says and cannot be changed");
        }
        if after.properties.keys().any(|key| key.is_empty() || key.chars().any(char::is_control)) {
            bail!("properties: a key is empty or holds control characters");
        }
        if after.auto_update && image.origin.is_none() {
            bail!("auto_update: the image came from no remote");
        }
        Ok(())
    })?;
    store.change_properties(image.fingerprint, |properties| *properties = after.properties)?;
    store.set_public(image.fingerprint, after.public)?;
    Ok(store.set_flags(image.fingerprint, image.cached, after.auto_update)?)
}
