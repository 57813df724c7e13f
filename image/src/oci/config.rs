//! Configuration of one image: how its processes run, and which layers it is made of.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Digest, check_length, nullable, parse, to_bytes};
use crate::Result;

const WHAT: &str = "OCI image configuration";

/// An image's configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// When it was made, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// Go's name of the architecture.
    pub architecture: String,
    /// Of the processor: `v7`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// `linux`.
    pub os: String,
    /// How containers run.
    #[serde(default, deserialize_with = "nullable")]
    pub config: Config,
    /// The layers' uncompressed digests.
    pub rootfs: RootFs,
    /// How each layer came to be.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<History>,
}

/// How containers run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Config {
    /// User, with an optional `:GROUP`.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// `NAME=VALUE`.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// The command's first words.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    /// The command's other words.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub cmd: Vec<String>,
    /// Where it starts.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    /// Free-form facts.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The signal that asks the command to end: `SIGTERM`, `SIGRTMIN+3`.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
}

/// The layers' uncompressed digests, lowest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    /// `layers`.
    pub r#type: String,
    /// One for each layer.
    #[serde(deserialize_with = "nullable")]
    pub diff_ids: Vec<Digest>,
}

/// How a layer came to be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// When, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// By which command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// What changed nothing has no layer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
}

impl ImageConfig {
    /// Reads a configuration of at most [`super::MAX_SIZE`] bytes.
    ///
    /// # Errors
    /// With what is wrong.
    pub fn parse(text: &[u8]) -> Result<Self> {
        let config: Self = parse(WHAT, text)?;
        check_length(WHAT, "layers", config.rootfs.diff_ids.len())?;
        Ok(config)
    }

    /// The document's bytes.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        to_bytes(WHAT, self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_means_empty_and_unknown_fields_pass() {
        let text = br#"{"architecture":"amd64","os":"linux","author":"x","config":{"Cmd":null,"Labels":null,
            "ExposedPorts":{"80/tcp":{}}},"rootfs":{"type":"layers","diff_ids":[]},"history":null}"#;
        let config = ImageConfig::parse(text).unwrap();
        assert!(config.config.cmd.is_empty() && config.history.is_empty());
        assert_eq!(ImageConfig::parse(&config.to_bytes().unwrap()).unwrap(), config);
        assert!(ImageConfig::parse(br#"{"architecture":"amd64","os":"linux"}"#).is_err(), "no rootfs");
    }
}
