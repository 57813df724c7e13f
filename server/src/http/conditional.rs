//! Conditional requests (RFC 9110, section 13).

use std::time::{Duration, SystemTime};

use axum::http::HeaderMap;
use axum::http::header::{HeaderName, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE};

/// What tells one state of a file from another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Validators {
    /// A strong entity tag, with its quotes.
    pub(super) etag: String,
    /// Time of the last change.
    pub(super) modified: SystemTime,
}

/// Whether the client has this very state already, so that 304 is the answer.
pub(super) fn not_modified(headers: &HeaderMap, validators: &Validators) -> bool {
    if headers.contains_key(IF_NONE_MATCH) {
        let lists = headers.get_all(IF_NONE_MATCH).into_iter().filter_map(|value| value.to_str().ok());
        let mut tags = lists.flat_map(|list| list.split(',')).map(str::trim);
        return tags.any(|tag| tag == "*" || tag.trim_start_matches("W/") == validators.etag);
    }
    date(headers, IF_MODIFIED_SINCE).is_some_and(|since| seconds(validators.modified) <= seconds(since))
}

/// Whether a `Range` may be answered: without `If-Range`, or when that names this very state.
pub(super) fn range_applies(headers: &HeaderMap, validators: &Validators) -> bool {
    let Some(condition) = headers.get(IF_RANGE) else { return true };
    match condition.to_str() {
        Ok(tag) if tag.starts_with('"') || tag.starts_with("W/") => tag == validators.etag,
        _ => date(headers, IF_RANGE).is_some_and(|time| seconds(time) == seconds(validators.modified)),
    }
}

fn date(headers: &HeaderMap, name: HeaderName) -> Option<SystemTime> {
    httpdate::parse_http_date(headers.get(name)?.to_str().ok()?).ok()
}

/// HTTP's dates know no fractions.
fn seconds(time: SystemTime) -> Duration {
    Duration::from_secs(time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, value.parse().unwrap())])
    }

    fn validators() -> Validators {
        let modified = SystemTime::UNIX_EPOCH + Duration::from_millis(1_000_000_000_500);
        Validators { etag: "\"a\"".into(), modified }
    }

    const SAME: &str = "Sun, 09 Sep 2001 01:46:40 GMT";
    const EARLIER: &str = "Sun, 09 Sep 2001 01:46:39 GMT";

    #[test]
    fn tags_come_before_dates() {
        let v = validators();
        for tag in ["\"a\"", "\"b\", \"a\"", "W/\"a\"", "*"] {
            assert!(not_modified(&with(IF_NONE_MATCH, tag), &v), "{tag}");
        }
        let mut headers = with(IF_NONE_MATCH, "\"b\"");
        headers.insert(IF_MODIFIED_SINCE, SAME.parse().unwrap());
        assert!(!not_modified(&headers, &v));
        assert!(!not_modified(&HeaderMap::new(), &v));
    }

    #[test]
    fn dates_are_compared_by_the_second() {
        assert!(not_modified(&with(IF_MODIFIED_SINCE, SAME), &validators()));
        assert!(!not_modified(&with(IF_MODIFIED_SINCE, EARLIER), &validators()));
        assert!(!not_modified(&with(IF_MODIFIED_SINCE, "yesterday"), &validators()));
    }

    #[test]
    fn a_range_of_another_state_is_not_given() {
        let v = validators();
        assert!(range_applies(&HeaderMap::new(), &v));
        assert!(range_applies(&with(IF_RANGE, "\"a\""), &v));
        assert!(range_applies(&with(IF_RANGE, SAME), &v));
        for other in ["\"b\"", "W/\"a\"", EARLIER, "x"] {
            assert!(!range_applies(&with(IF_RANGE, other), &v), "{other}");
        }
    }
}
