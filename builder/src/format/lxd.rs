//! Metadata for LXD and Incus: `metadata.yaml` and its templates.

use std::collections::BTreeMap;
use std::path::PathBuf;

use millstream_image::Serial;
use millstream_image::archive::Member;
use millstream_image::metadata::Metadata;
use millstream_runtime::container::HALT_SIGNAL;

use super::lxc::{expiry, halt_signal};
use crate::Result;
use crate::files::Generated;
use crate::recipe::Resolved;

/// The distribution as shown to people.
pub(crate) fn os(resolved: &Resolved) -> String {
    match resolved.definition.simplestream.distro_name.as_str() {
        "" => {
            let mut chars = resolved.product.distribution().chars();
            chars.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default() + chars.as_str()
        }
        name => name.to_owned(),
    }
}

/// Members of `lxd.tar.xz`, which is also `incus.tar.xz`.
pub(crate) fn members(
    resolved: &Resolved,
    generated: &Generated,
    serial: Serial,
) -> Result<BTreeMap<PathBuf, Member>> {
    let image = &resolved.definition.image;
    let os = os(resolved);
    let text = serial.to_string();
    let properties = [
        ("architecture", image.architecture_mapped.as_str()),
        ("description", &image.description),
        ("name", &image.name),
        ("os", &os),
        ("release", resolved.product.release()),
        ("serial", &text),
        ("variant", resolved.product.variant()),
    ];
    let metadata = Metadata {
        architecture: resolved.architecture.kernel().to_owned(),
        creation_date: serial.time().timestamp(),
        expiry_date: Some(expiry(resolved, serial)?),
        properties: properties
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into_iter()
            .chain(halt_signal(resolved).map(|name| (HALT_SIGNAL.to_owned(), name)))
            .collect(),
        templates: generated.templates.clone(),
    };
    let yaml = metadata.to_yaml()?;
    let mut members = BTreeMap::from([(PathBuf::from("metadata.yaml"), Member::file(yaml))]);
    for (name, text) in &generated.texts {
        members.insert(PathBuf::from("templates").join(name), Member::file(text.clone()));
    }
    Ok(members)
}
