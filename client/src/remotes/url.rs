//! URLs of remotes: read from what people type, and as text in the file.

use url::Url;

use crate::http;
use crate::{Error, Result};

/// Reads the URL of a tree's root; an absolute path means a directory here.
pub fn parse_url(text: &str) -> Result<Url> {
    let bad = |reason: &str| Error::Url { url: http::shown(text), reason: reason.to_owned() };
    let mut url = if text.starts_with('/') {
        Url::from_directory_path(text).map_err(|()| bad("not an absolute path"))?
    } else {
        let bad_url = |_| bad("not a URL; write https://HOST/PATH or the absolute path of a directory");
        Url::parse(text).map_err(bad_url)?
    };
    if !matches!(url.scheme(), "https" | "http" | "file") {
        return Err(bad("use https://, http:// or file:///"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(bad("a tree's URL has no ? and no #"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(bad("user names and passwords in URLs are not supported"));
    }
    if url.scheme() == "file" && url.host().is_some() {
        return Err(bad("write file:/// with three slashes"));
    }
    if !url.path().ends_with('/') {
        let path = format!("{}/", url.path());
        url.set_path(&path);
    }
    Ok(url)
}

/// A URL as text in the file.
pub(super) mod url_text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use url::Url;

    pub(in crate::remotes) fn serialize<S: Serializer>(url: &Url, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(url.as_str())
    }

    pub(in crate::remotes) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Url, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// URLs as texts in the file.
pub(super) mod url_texts {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
    use url::Url;

    pub(in crate::remotes) fn serialize<S: Serializer>(
        urls: &[Url],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        urls.iter().map(Url::as_str).collect::<Vec<_>>().serialize(serializer)
    }

    pub(in crate::remotes) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<Url>, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        texts.iter().map(|text| text.parse().map_err(D::Error::custom)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_checked_and_end_in_a_slash() {
        assert_eq!(parse_url("https://h/x").unwrap().as_str(), "https://h/x/");
        assert_eq!(parse_url("/srv/stream").unwrap().as_str(), "file:///srv/stream/");
        for bad in ["h/x", "ftp://h/", "https://u:p@h/", "https://h/?q", "https://h/#f", "file://host/x", ""]
        {
            assert!(parse_url(bad).is_err(), "{bad}");
        }
    }
}
