//! What an image of a registry is called.

use millstream_image::oci::Digest;
use url::Url;

use crate::access::is_here;
use crate::{Error, Result};

/// An image in a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// `https://HOST` or `https://HOST:PORT`.
    root: String,
    /// `team/image`.
    repository: String,
    /// `latest` when none is given.
    tag: String,
    /// The exact image; the tag is then of no matter.
    digest: Option<Digest>,
}

impl Reference {
    /// Reads `[docker://][REGISTRY/]REPOSITORY[:TAG][@sha256:HEX]`. Names without a registry are in
    /// `default`, where one-word names are in `library/`. Registries are asked by `https`, on this very
    /// machine by `http`, which is what they speak there.
    ///
    /// # Errors
    /// With what is expected.
    pub fn parse(text: &str, default: Option<&str>) -> Result<Self> {
        let bad = |reason: &str| Error::name(text, reason);
        let name = text.strip_prefix("docker://").unwrap_or(text);
        if name.contains("://") {
            return Err(bad("expected an image's name, as in registry.example/team/image:tag, not a URL"));
        }
        let (name, tag, digest) = parts(text, name)?;
        let first = name.split_once('/');
        let is_host = |first: &str| first.contains(['.', ':']) || first == "localhost";
        let (registry, repository) = if let Some((registry, repository)) = first.filter(|(f, _)| is_host(f)) {
            (registry, repository.to_owned())
        } else {
            let registry = default.ok_or_else(|| {
                bad("it names no registry; write REGISTRY/NAME:TAG, or set docker in mirrors.yaml of the configuration")
            })?;
            let registry = registry.trim_start_matches("https://").trim_end_matches('/');
            let library = if name.contains('/') { "" } else { "library/" };
            (registry, format!("{library}{name}"))
        };
        if !registry.bytes().all(|b| b.is_ascii_alphanumeric() || b".:-[]".contains(&b)) {
            return Err(bad("the registry's name has characters it cannot have"));
        }
        let https = format!("https://{registry}");
        let here = Url::parse(&https).is_ok_and(|url| is_here(&url));
        let root = if here { format!("http://{registry}") } else { https };
        Self::new(text, root, repository, tag, digest)
    }

    /// Reads `REPOSITORY[:TAG][@sha256:HEX]` in the registry at `url`, below the URL's path if it has one.
    ///
    /// # Errors
    /// With what is expected.
    pub fn within(url: &Url, text: &str) -> Result<Self> {
        let (name, tag, digest) = parts(text, text)?;
        let repository = format!("{}{name}", url.path().trim_start_matches('/'));
        Self::new(text, url.origin().ascii_serialization(), repository, tag, digest)
    }

    fn new(text: &str, root: String, repository: String, tag: &str, digest: Option<Digest>) -> Result<Self> {
        let bad = |reason: &str| Err(Error::name(text, reason));
        let part = |part: &str| {
            !part.is_empty()
                && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b))
                && part != "."
                && part != ".."
        };
        if !repository.split('/').all(part) {
            return bad("names are lower-case letters, digits, and . _ - between slashes");
        }
        let good = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        if tag.is_empty() || tag.len() > 128 || !tag.bytes().all(good) {
            return bad("a tag is letters, digits, and . _ -");
        }
        Ok(Self { root, repository, tag: tag.to_owned(), digest })
    }

    /// `https://HOST/v2/REPOSITORY`.
    pub(super) fn base(&self) -> String {
        format!("{}/v2/{}", self.root, self.repository)
    }

    /// What the registry is asked for.
    pub(super) fn target(&self) -> String {
        self.digest.map_or_else(|| self.tag.clone(), |digest| digest.to_string())
    }

    /// The digest that was asked for.
    pub(super) fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// `team/image`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// `latest` when none was given.
    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// `HOST/team/image`.
    pub fn place(&self) -> String {
        let host = self.root.split_once("://").map_or(self.root.as_str(), |(_, host)| host);
        format!("{host}/{}", self.repository)
    }
}

/// Name, tag and digest.
fn parts<'a>(text: &str, name: &'a str) -> Result<(&'a str, &'a str, Option<Digest>)> {
    let (name, digest) = match name.split_once('@') {
        Some((name, digest)) => {
            let bad = |_| Error::name(text, "after @ comes sha256: and 64 hex digits");
            (name, Some(digest.parse().map_err(bad)?))
        }
        None => (name, None),
    };
    Ok(match name.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, tag, digest),
        _ => (name, "latest", digest),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(reference: Result<Reference>) -> String {
        reference.map_or_else(|e| e.to_string(), |found| format!("{} {}", found.base(), found.target()))
    }

    #[test]
    fn names_mean_what_they_mean_to_docker() {
        let url = |text: &str| shown(Reference::parse(text, Some("hub.example")));
        let digest = Digest::of(b"");
        assert_eq!(url("debian:bookworm"), "https://hub.example/v2/library/debian bookworm");
        assert_eq!(url("team/image"), "https://hub.example/v2/team/image latest");
        assert_eq!(url("r.example:5000/a/b:1"), "https://r.example:5000/v2/a/b 1");
        assert_eq!(url("docker://localhost:5000/a"), "http://localhost:5000/v2/a latest");
        assert_eq!(url("127.0.0.1:5000/a:x"), "http://127.0.0.1:5000/v2/a x");
        assert_eq!(url(&format!("r.example/a:1@{digest}")), format!("https://r.example/v2/a {digest}"));
        for bad in ["http://r.example/a", "r.example/../a", "A", "a:", "a@sha256:12", "r.example/", "r_?.x/a"]
        {
            assert!(url(bad).contains(": "), "{bad}: {}", url(bad));
        }
        let none = Reference::parse("debian", None).unwrap_err().to_string();
        assert!(none.contains("registry"), "{none}");
    }

    #[test]
    fn a_remotes_path_comes_before_names() {
        let url = |url: &str, text: &str| shown(Reference::within(&url.parse().unwrap(), text));
        assert_eq!(url("https://r.example:5000/", "debian:12"), "https://r.example:5000/v2/debian 12");
        assert_eq!(url("https://r.example/team/", "a/b"), "https://r.example/v2/team/a/b latest");
        for bad in ["", "a b", "../a", "a:b:c", "A", "a@sha256:x", "http://h/a"] {
            assert!(Reference::within(&"https://r.example/".parse().unwrap(), bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_name_or_an_error(text in ".{0,80}") {
            let of_remote = Reference::within(&"https://h.example/".parse().unwrap(), &text);
            for found in [Reference::parse(&text, Some("h.example")), of_remote].into_iter().flatten() {
                prop_assert!(!found.base().contains("..") && !found.target().contains('/'));
            }
        }
    }
}
