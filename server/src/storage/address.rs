//! `s3://BUCKET/PREFIX` and `file:///DIRECTORY`, and what it takes to be let in.

use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;

use super::{Bucket, Directory, Storage};
use crate::{Error, Result};

/// Where a shared stream is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A bucket of an S3-compatible store, and what all keys begin with: empty, or with `/` at its end.
    Bucket {
        /// Its name.
        name: String,
        /// Before every key.
        prefix: String,
    },
    /// A directory that all machines mount.
    Directory(PathBuf),
}

impl Address {
    /// Reads an address; `None` for a path, which names an ordinary stream.
    ///
    /// # Errors
    /// [`Error::Storage`] for an address that is none.
    pub fn parse(text: &Path) -> Result<Option<Self>> {
        let Some(text) = text.to_str() else { return Ok(None) };
        let bad = |reason: &str| Error::storage(text, reason);
        if let Some(path) = text.strip_prefix("file://") {
            let path = PathBuf::from(path);
            let absolute = path.is_absolute().then_some(Self::Directory(path));
            return absolute.map(Some).ok_or_else(|| bad("expected file:///DIRECTORY"));
        }
        let Some(rest) = text.strip_prefix("s3://") else { return Ok(None) };
        let (name, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || ".-_".contains(c);
        if name.len() < 3 || name.len() > 63 || !name.chars().all(plain) {
            return Err(bad("expected s3://BUCKET or s3://BUCKET/PREFIX"));
        }
        let prefix = prefix.trim_end_matches('/');
        let plain = |part: &str| {
            !part.is_empty()
                && !part.starts_with('.')
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        };
        if !prefix.is_empty() && !prefix.split('/').all(plain) {
            return Err(bad("the prefix may have letters, digits, dots, dashes and single slashes only"));
        }
        let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        Ok(Some(Self::Bucket { name: name.into(), prefix }))
    }

    /// Opens the storage; nothing is asked of it yet.
    ///
    /// # Errors
    /// [`Error::Storage`] when the credentials cannot be used.
    pub fn open(&self, credentials: &Credentials) -> Result<Arc<dyn Storage>> {
        Ok(match self {
            Self::Bucket { name, prefix } => Arc::new(Bucket::new(name, prefix, credentials)?),
            Self::Directory(path) => Arc::new(Directory::new(path)),
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bucket { name, prefix } => write!(f, "s3://{name}/{}", prefix.trim_end_matches('/')),
            Self::Directory(path) => write!(f, "file://{}", path.display()),
        }
    }
}

/// How buckets are reached. Its secrets are in no message.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Credentials {
    /// Where the store listens, several if it has several doors: the next is tried when one does not
    /// answer. Amazon's when there is none.
    pub endpoints: Vec<String>,
    /// Its region.
    pub region: Option<String>,
    /// Name of the access key.
    pub access_key_id: Option<String>,
    /// The access key.
    pub secret_access_key: Option<String>,
    /// Of temporary credentials.
    pub session_token: Option<String>,
    /// Whether the bucket is part of the host name.
    pub virtual_hosts: bool,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("endpoints", &self.endpoints).finish_non_exhaustive()
    }
}

impl Credentials {
    /// The usual `AWS_*` variables, before what `file` says, if it is there. `AWS_ENDPOINT_URL` may be
    /// several, separated by commas.
    ///
    /// # Errors
    /// [`Error::Storage`] for a file that others can read, or that is no such TOML.
    pub fn read(file: &Path, variable: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let mut all = Self::of_file(file)?;
        let get = |names: &[&str]| names.iter().find_map(|name| variable(name)).filter(|v| !v.is_empty());
        if let Some(endpoints) = get(&["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"]) {
            all.endpoints = endpoints.split(',').map(|url| url.trim().to_owned()).collect();
        }
        all.region = get(&["AWS_REGION", "AWS_DEFAULT_REGION"]).or(all.region);
        if let Some(id) = get(&["AWS_ACCESS_KEY_ID"]) {
            // A key of the one place and a token of the other would be a riddle.
            all.access_key_id = Some(id);
            all.secret_access_key = get(&["AWS_SECRET_ACCESS_KEY"]);
            all.session_token = get(&["AWS_SESSION_TOKEN"]);
        }
        if let Some(virtual_hosts) = get(&["AWS_VIRTUAL_HOSTED_STYLE_REQUEST"]) {
            all.virtual_hosts = virtual_hosts == "true";
        }
        if all.access_key_id.is_some() != all.secret_access_key.is_some() {
            let reason = "there is one of access key and secret; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, \
                or both in this file";
            return Err(Error::storage(file.display(), reason));
        }
        Ok(all)
    }

    fn of_file(file: &Path) -> Result<Self> {
        let meta = match fs::metadata(file) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Self::default()),
            meta => meta.map_err(Error::io(file))?,
        };
        if meta.permissions().mode() & 0o077 != 0 {
            let reason = format!("others may read its secret; run: chmod 600 {}", file.display());
            return Err(Error::storage(file.display(), reason));
        }
        let text = fs::read_to_string(file).map_err(Error::io(file))?;
        // The library's own messages would show what stands there, which may be the secret.
        toml::from_str(&text).map_err(|_| {
            let reason = "expected endpoints (a list), region, access_key_id, secret_access_key, session_token \
                (texts) and virtual_hosts (true or false), as TOML and nothing else";
            Error::storage(file.display(), reason)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_paths_are_left_alone() {
        let parse = |text: &str| Address::parse(Path::new(text));
        let bucket = |name: &str, prefix: &str| Address::Bucket { name: name.into(), prefix: prefix.into() };
        assert_eq!(parse("s3://images").unwrap(), Some(bucket("images", "")));
        assert_eq!(parse("s3://images/a/b.c/").unwrap(), Some(bucket("images", "a/b.c/")));
        assert_eq!(parse("file:///srv/x").unwrap(), Some(Address::Directory("/srv/x".into())));
        for path in ["/srv/images", "images", "s3:", "./s3://x"] {
            assert_eq!(parse(path).unwrap(), None, "{path}");
        }
        for bad in [
            "s3://",
            "s3://ab",
            "s3://B/x",
            "s3://bucket//x",
            "s3://bucket/../x",
            "s3://bucket/.x",
            "file://x",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert_eq!(bucket("images", "a/").to_string(), "s3://images/a");
    }

    #[test]
    fn variables_come_before_the_file_and_secrets_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("s3.toml");
        let none = |_: &str| None;
        assert_eq!(Credentials::read(&file, none).unwrap(), Credentials::default());
        fs::write(&file, "access_key_id = \"a\"\nsecret_access_key = \"hidden\"\nregion = \"r\"\n").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(Credentials::read(&file, none).unwrap_err().to_string().contains("chmod 600"));
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        let read = Credentials::read(&file, none).unwrap();
        assert_eq!(read.secret_access_key.as_deref(), Some("hidden"));
        assert!(!format!("{read:?}").contains("hidden"));
        let variables = |name: &str| match name {
            "AWS_ENDPOINT_URL" => Some("http://a:1, http://b:2".into()),
            "AWS_ACCESS_KEY_ID" => Some("b".into()),
            "AWS_SECRET_ACCESS_KEY" => Some("other".into()),
            _ => None,
        };
        let read = Credentials::read(&file, variables).unwrap();
        assert_eq!(read.endpoints, ["http://a:1", "http://b:2"]);
        assert_eq!((read.secret_access_key.as_deref(), read.region.as_deref()), (Some("other"), Some("r")));
        let half = |name: &str| (name == "AWS_ACCESS_KEY_ID").then(|| "b".to_owned());
        assert!(Credentials::read(&file, half).is_err());
        for bad in ["secret_access_key = hidden", "secret = \"hidden\"", "endpoints = \"hidden\""] {
            fs::write(&file, bad).unwrap();
            let error = Credentials::read(&file, none).unwrap_err().to_string();
            assert!(!error.contains("hidden"), "{error}");
        }
    }
}
