//! The door for fuzz targets: reads a request as the server does and checks what must hold, whatever it says.
//! The program never calls it.

use axum::http::header::RANGE;
use axum::http::{HeaderMap, HeaderName, HeaderValue};

use super::access::Caller;
use super::conditional::{Validators, not_modified, range_applies};
use super::media::accepts_gzip;
use super::path::{self, Target};
use super::range::{self, Part};
use super::{api, direct};

/// Reads a request's target and its headers, names and values, for a file of `size` bytes.
///
/// # Panics
/// When a path leads out of the tree, or a range out of the file.
pub fn request<'a>(target: &str, headers: impl Iterator<Item = (&'a [u8], &'a [u8])>, size: u64) {
    let pairs = headers.filter_map(|(name, value)| {
        Some((HeaderName::from_bytes(name).ok()?, HeaderValue::from_bytes(value).ok()?))
    });
    let mut headers = HeaderMap::new();
    for (name, value) in pairs.take(100) {
        headers.append(name, value);
    }
    if let Target::File(path) = path::parse(target) {
        assert!(path.split('/').all(|part| !part.is_empty() && !part.starts_with('.')), "{path}");
        assert!(!path.contains('\0'), "{path}");
    }
    api::read(target);
    let validators = Validators { etag: "\"a\"".into(), modified: std::time::UNIX_EPOCH };
    let _ = (not_modified(&headers, &validators), range_applies(&headers, &validators));
    let _ = (accepts_gzip(&headers), Caller::of(&headers, None));
    direct::read(&headers);
    if let Some(text) = headers.get(RANGE).and_then(|value| value.to_str().ok())
        && let Part::Bytes(bytes) = range::parse(text, size)
    {
        assert!(bytes.start < bytes.end && bytes.end <= size, "{text}: {bytes:?} of {size}");
    }
}
