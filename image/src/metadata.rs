//! `metadata.yaml`: what LXD and Incus read of an image before they unpack it.
//!
//! Source of the format: LXD's and Incus' image documentation ("Image format").

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The largest `metadata.yaml` that is read, in bytes.
pub const MAX_SIZE: usize = 1 << 20;

/// The contents of `metadata.yaml`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// Kernel name: `x86_64`.
    pub architecture: String,
    /// Seconds since 1970.
    pub creation_date: i64,
    /// Seconds since 1970; 0 or absent means never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expiry_date: Option<i64>,
    /// Shown to users and used in filters: `os`, `release`, `variant`, `description`, …
    #[serde(default)]
    pub properties: BTreeMap<String, String>,
    /// Files rendered when an instance is created, copied, renamed or started, by absolute path.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub templates: BTreeMap<String, Template>,
}

/// One file rendered inside the instance.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Template {
    /// Occasions: `create`, `copy`, `rename`, `start`.
    pub when: Vec<String>,
    /// Render only if the file is not there yet.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub create_only: bool,
    /// File name under `templates/`.
    pub template: String,
    /// Values the template may use.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub properties: BTreeMap<String, String>,
}

impl Metadata {
    /// Reads and checks `metadata.yaml`: bounded, with a known architecture and with templates
    /// that name plain files.
    pub fn parse(text: &[u8]) -> Result<Self> {
        let bad = |reason: String| Error::document("metadata.yaml", reason);
        if text.len() > MAX_SIZE {
            return Err(bad(format!("{} bytes are more than the {MAX_SIZE} allowed", text.len())));
        }
        let metadata: Self = serde_yaml_ng::from_slice(text).map_err(|e| bad(e.to_string()))?;
        metadata.architecture.parse::<crate::Architecture>()?;
        for (path, template) in &metadata.templates {
            let name = &template.template;
            if name.is_empty() || name.starts_with('.') || name.contains(['/', '\0']) {
                return Err(bad(format!(
                    "template {name:?} of {path:?} must be a file name under templates/"
                )));
            }
            if !path.starts_with('/') || path.split('/').any(|part| part == "..") {
                return Err(bad(format!("template target {path:?} must be an absolute path without ..")));
            }
        }
        Ok(metadata)
    }

    /// Writes it as YAML, keys in a fixed order.
    pub fn to_yaml(&self) -> Result<String> {
        serde_yaml_ng::to_string(self).map_err(|e| Error::document("metadata.yaml", e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip() {
        let text = "architecture: x86_64\ncreation_date: 1700000000\nproperties:\n  os: Debian\ntemplates:\n  /etc/hostname:\n    when: [create, copy]\n    template: hostname.tpl\n";
        let metadata = Metadata::parse(text.as_bytes()).unwrap();
        assert_eq!(metadata.templates["/etc/hostname"].when, ["create", "copy"]);
        assert_eq!(Metadata::parse(metadata.to_yaml().unwrap().as_bytes()).unwrap(), metadata);
    }

    #[test]
    fn refuses_what_leads_elsewhere() {
        for bad in [
            "architecture: vax\ncreation_date: 1\n",
            "architecture: x86_64\ncreation_date: 1\ntemplates: {/a: {when: [create], template: ../x}}\n",
            "architecture: x86_64\ncreation_date: 1\ntemplates: {/../a: {when: [create], template: x}}\n",
            "architecture: x86_64\ncreation_date: 1\ntemplates: {a: {when: [create], template: x}}\n",
            "[]",
        ] {
            assert!(Metadata::parse(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(Metadata::parse(&vec![b' '; MAX_SIZE + 1]).is_err());
    }
}
