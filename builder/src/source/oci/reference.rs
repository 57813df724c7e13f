//! What `source.url` names: an image of a registry or of a layout on this machine.

use std::path::{Path, PathBuf};

use millstream_image::oci::Digest;

use crate::{Error, Result};

/// An image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reference {
    /// In a registry.
    Registry(Remote),
    /// In a layout or an archive of one.
    Layout {
        /// The directory, or the archive.
        path: PathBuf,
        /// Which of its images.
        tag: Option<String>,
    },
}

/// An image in a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Remote {
    /// `HOST` or `HOST:PORT`.
    pub(super) registry: String,
    /// `team/image`.
    pub(super) repository: String,
    /// `latest` when none is given.
    pub(super) tag: String,
    /// The exact image; the tag is then of no matter.
    pub(super) digest: Option<Digest>,
}

impl Remote {
    /// `https`, but for this very machine `http`, which is what registries speak there.
    pub(super) fn base(&self) -> String {
        let host = match self.registry.strip_prefix('[') {
            Some(rest) => rest.split(']').next().unwrap_or_default(),
            None => self.registry.split(':').next().unwrap_or_default(),
        };
        let here = host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|a| a.is_loopback());
        let scheme = if here { "http" } else { "https" };
        format!("{scheme}://{}/v2/{}", self.registry, self.repository)
    }

    /// What the registry is asked for.
    pub(super) fn target(&self) -> String {
        self.digest.map_or_else(|| self.tag.clone(), |digest| digest.to_string())
    }
}

impl Reference {
    /// Reads `[docker://][REGISTRY/]REPOSITORY[:TAG][@sha256:HEX]`, `oci:PATH[:TAG]` or
    /// `oci-archive:PATH[:TAG]`. Names without a registry are in `default`, where one-word names are
    /// in `library/`.
    pub(super) fn parse(text: &str, default: Option<&str>, recipe_dir: &Path) -> Result<Self> {
        for prefix in ["oci:", "oci-archive:"] {
            if let Some(rest) = text.strip_prefix(prefix) {
                let (path, tag) = match rest.rsplit_once(':') {
                    Some((path, tag)) if !tag.contains('/') => (path, Some(tag.to_owned())),
                    _ => (rest, None),
                };
                return Ok(Self::Layout { path: recipe_dir.join(path), tag });
            }
        }
        let bad = |reason: &str| Error::Refused(format!("source.url: {text:?}: {reason}"));
        let name = text.strip_prefix("docker://").unwrap_or(text);
        if name.contains("://") {
            return Err(bad("expected an image's name, as in registry.example/team/image:tag, not a URL"));
        }
        let (name, digest) = match name.split_once('@') {
            Some((name, digest)) => {
                let digest = digest.parse().map_err(|_| bad("after @ comes sha256: and 64 hex digits"))?;
                (name, Some(digest))
            }
            None => (name, None),
        };
        let (name, tag) = match name.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, tag),
            _ => (name, "latest"),
        };
        let first = name.split_once('/');
        let is_host = |first: &str| first.contains(['.', ':']) || first == "localhost";
        let (registry, repository) = if let Some((registry, repository)) = first.filter(|(f, _)| is_host(f)) {
            (registry.to_owned(), repository.to_owned())
        } else {
            let registry = default.ok_or_else(|| {
                bad("it names no registry; write REGISTRY/NAME:TAG, or set docker in mirrors.yaml of the configuration")
            })?;
            let registry = registry.trim_start_matches("https://").trim_end_matches('/');
            let library = if name.contains('/') { "" } else { "library/" };
            (registry.to_owned(), format!("{library}{name}"))
        };
        if !registry.bytes().all(|b| b.is_ascii_alphanumeric() || b".:-[]".contains(&b)) {
            return Err(bad("the registry's name has characters it cannot have"));
        }
        let part = |part: &str| {
            !part.is_empty()
                && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b))
                && part != "."
                && part != ".."
        };
        if !repository.split('/').all(part) {
            return Err(bad("names are lower-case letters, digits, and . _ - between slashes"));
        }
        let good = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        if tag.is_empty() || tag.len() > 128 || !tag.bytes().all(good) {
            return Err(bad("a tag is letters, digits, and . _ -"));
        }
        Ok(Self::Registry(Remote { registry, repository, tag: tag.to_owned(), digest }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn url(text: &str) -> String {
        match Reference::parse(text, Some("hub.example"), Path::new("/r")) {
            Ok(Reference::Registry(remote)) => format!("{} {}", remote.base(), remote.target()),
            Ok(Reference::Layout { path, tag }) => format!("{} {}", path.display(), tag.unwrap_or_default()),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn names_mean_what_they_mean_to_docker() {
        let digest = Digest::of(b"");
        assert_eq!(url("debian:bookworm"), "https://hub.example/v2/library/debian bookworm");
        assert_eq!(url("team/image"), "https://hub.example/v2/team/image latest");
        assert_eq!(url("r.example:5000/a/b:1"), "https://r.example:5000/v2/a/b 1");
        assert_eq!(url("docker://localhost:5000/a"), "http://localhost:5000/v2/a latest");
        assert_eq!(url("127.0.0.1:5000/a:x"), "http://127.0.0.1:5000/v2/a x");
        assert_eq!(url(&format!("r.example/a:1@{digest}")), format!("https://r.example/v2/a {digest}"));
        assert_eq!(url("oci:layout:tag"), "/r/layout tag");
        assert_eq!(url("oci:/a/layout"), "/a/layout ");
        for bad in ["http://r.example/a", "r.example/../a", "A", "a:", "a@sha256:12", "r.example/", "r_?.x/a"]
        {
            assert!(url(bad).starts_with("source.url"), "{bad}: {}", url(bad));
        }
        let none = Reference::parse("debian", None, Path::new("/")).unwrap_err().to_string();
        assert!(none.contains("registry"), "{none}");
    }

    proptest! {
        #[test]
        fn any_text_is_a_name_or_an_error(text in ".{0,80}") {
            if let Ok(Reference::Registry(remote)) = Reference::parse(&text, Some("h.example"), Path::new("/")) {
                prop_assert!(!remote.base().contains(".."));
            }
        }
    }
}
