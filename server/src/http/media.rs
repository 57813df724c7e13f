//! What files are: content types, whether they shrink, how long they may be kept.

use axum::http::HeaderMap;
use axum::http::header::ACCEPT_ENCODING;

/// How a file is presented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Media {
    /// `Content-Type`.
    pub(super) content_type: &'static str,
    /// Whether compressing it is worth while.
    pub(super) text: bool,
    /// `Cache-Control`.
    pub(super) cache: &'static str,
}

/// Images and documents named by their hash never change; everything else is asked for again.
const FOR_EVER: &str = "public, max-age=31536000, immutable";
const REVALIDATE: &str = "no-cache";

/// Tells it by the path below the root.
pub(super) fn of(path: &str) -> Media {
    let name = path.rsplit('/').next().unwrap_or(path);
    let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
    let (content_type, text) = match extension {
        "json" => ("application/json", true),
        "svg" => ("image/svg+xml", true),
        "css" => ("text/css; charset=utf-8", true),
        "js" => ("text/javascript; charset=utf-8", true),
        "html" => ("text/html; charset=utf-8", true),
        "asc" if name == "key.asc" => ("application/pgp-keys", true),
        "asc" | "gpg" => ("application/pgp-signature", true),
        "xz" => ("application/x-xz", false),
        "sjson" | "log" => ("text/plain; charset=utf-8", true),
        _ if name == "SHA256SUMS" || name.starts_with("index-") => ("text/plain; charset=utf-8", true),
        _ => ("application/octet-stream", false),
    };
    let immutable = path.starts_with("images/") || path.contains("/by-hash/");
    Media { content_type, text, cache: if immutable { FOR_EVER } else { REVALIDATE } }
}

/// Whether the client takes gzip (RFC 9110, section 12.5.3).
pub(super) fn accepts_gzip(headers: &HeaderMap) -> bool {
    let weight = |wanted: &str| {
        let lists = headers.get_all(ACCEPT_ENCODING).into_iter().filter_map(|value| value.to_str().ok());
        lists.flat_map(|list| list.split(',')).find_map(|choice| {
            let mut parts = choice.split(';').map(str::trim);
            let coding = parts.next()?;
            let matches = coding.eq_ignore_ascii_case(wanted)
                || (wanted == "gzip" && coding.eq_ignore_ascii_case("x-gzip"));
            let quality = parts.find_map(|part| part.strip_prefix("q=").or(part.strip_prefix("Q=")));
            matches.then(|| quality.map_or(1.0, |q| q.parse::<f32>().unwrap_or(0.0)))
        })
    };
    weight("gzip").or_else(|| weight("*")).is_some_and(|weight| weight > 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_revalidated_and_images_kept() {
        assert_eq!(of("streams/v1/index.json").content_type, "application/json");
        assert_eq!(of("streams/v1/index.json").cache, REVALIDATE);
        assert_eq!(of("streams/v1/by-hash/00.json").cache, FOR_EVER);
        let rootfs = of("images/debian/bookworm/amd64/default/20260101_0000/rootfs.tar.xz");
        assert_eq!((rootfs.content_type, rootfs.text, rootfs.cache), ("application/x-xz", false, FOR_EVER));
        assert!(of("meta/1.0/index-system.7").text);
        assert_eq!(of("key.asc").content_type, "application/pgp-keys");
    }

    #[test]
    fn gzip_only_for_those_who_want_it() {
        for (header, wants) in [
            ("gzip", true),
            ("deflate, GZIP;q=0.5, br", true),
            ("*", true),
            ("gzip;q=0", false),
            ("gzip;q=0.0, *", false),
            ("*;q=0", false),
            ("br", false),
            ("", false),
        ] {
            let headers = HeaderMap::from_iter([(ACCEPT_ENCODING, header.parse().unwrap())]);
            assert_eq!(accepts_gzip(&headers), wants, "{header}");
        }
        assert!(!accepts_gzip(&HeaderMap::new()));
    }
}
