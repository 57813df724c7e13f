//! From a request to a response.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{
    ACCEPT_RANGES, ALLOW, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE,
    CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, LAST_MODIFIED, RANGE, REFERRER_POLICY, VARY,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::response::Response;

use super::body::{Content, zip_on_the_way};
use super::conditional::{Validators, not_modified, range_applies};
use super::media::{self, Media, accepts_gzip};
use super::path::{self, Target};
use super::pull;
use super::range::{self, Part};
use super::shared;
use super::site::{Opened, Served, Wait};
use super::zipped::Zipped;

/// The page shows what is in the tree and nothing from elsewhere.
pub(crate) const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Answers with a file of the site.
pub(super) async fn answer(State(served): State<Arc<Served>>, request: Request) -> Response {
    let head = request.method() == Method::HEAD;
    if !head && request.method() != Method::GET {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED);
        set(&mut response, ALLOW, "GET, HEAD");
        return response;
    }
    let path = match path::parse(request.uri().path()) {
        Target::File(path) => path,
        Target::Nothing => return plain(StatusCode::NOT_FOUND),
        Target::Malformed => return plain(StatusCode::BAD_REQUEST),
    };
    let headers = request.headers();
    if let Some(reader) = served.site.reader()
        && let Some(answered) = shared::answer(reader, &path, headers, head).await
    {
        return answered.unwrap_or_else(failed);
    }
    let mut answered = here(&served, &path, headers, head).await;
    if let (Ok(None), Some(pull)) = (&answered, &served.pull) {
        pull.prepare(&path).await;
        // A part is given of what is here.
        if headers.contains_key(RANGE) && !head {
            pull::bring(pull, &path).await;
        } else if let Some(response) = pull::answer(pull, &path, head).await {
            return response;
        }
        answered = here(&served, &path, headers, head).await;
    }
    match answered {
        Ok(Some(response)) => response,
        Ok(None) => plain(StatusCode::NOT_FOUND),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => plain(StatusCode::FORBIDDEN),
        Err(error) => failed(error),
    }
}

fn failed(error: io::Error) -> Response {
    let mut response = plain(StatusCode::INTERNAL_SERVER_ERROR);
    response.extensions_mut().insert(Failure(Arc::new(error)));
    response
}

/// The answer from the tree; `None` when the file is not in it.
async fn here(
    served: &Arc<Served>,
    path: &str,
    headers: &HeaderMap,
    head: bool,
) -> io::Result<Option<Response>> {
    // Most often the kernel has all of it in memory, and no other thread is needed. The time of an
    // access may have to be written, though.
    if served.pull.is_none() {
        match look(served, path, headers, head, Wait::Never) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            answered => return answered,
        }
    }
    let (served, path, headers) = (Arc::clone(served), path.to_owned(), headers.clone());
    let answered = tokio::task::spawn_blocking(move || look(&served, &path, &headers, head, Wait::Allowed));
    answered.await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

fn look(
    served: &Served,
    path: &str,
    headers: &HeaderMap,
    head: bool,
    wait: Wait,
) -> io::Result<Option<Response>> {
    let Some(opened) = served.site.open_within(path, wait)? else { return Ok(None) };
    if let Some(pull) = &served.pull {
        pull.touch(&opened.file);
    }
    file(served, opened, media::of(path), headers, head, wait).map(Some)
}

/// A path with its percent signs resolved; `None` when it is none.
pub(super) fn decode_path(path: &str) -> Option<String> {
    path::decode(path)
}

/// Why a request failed: for the log, not for the client.
#[derive(Clone)]
pub(super) struct Failure(pub(super) Arc<io::Error>);

/// A file of the tree, or what of it is asked for.
fn file(
    served: &Served,
    mut opened: Opened,
    media: Media,
    headers: &HeaderMap,
    head: bool,
    wait: Wait,
) -> io::Result<Response> {
    // A range is of the file as it is; so whoever asks for one gets no gzip.
    let wanted = headers.get(RANGE).filter(|_| !head).and_then(|value| value.to_str().ok());
    let gzip = media.text && wanted.is_none() && accepts_gzip(headers);
    if gzip {
        opened.validators.etag.insert_str(1, "gz-");
    }
    let (mut response, bytes) = match begin((opened.size, &opened.validators), media, headers, wanted) {
        (response, Some(bytes)) => (response, bytes),
        (response, None) => return Ok(response),
    };
    let length = bytes.end - bytes.start;
    let (body, length) = match (gzip, head) {
        (false, true) => (Body::empty(), Some(length)),
        (false, false) => (Content::of(opened.file, bytes, wait)?.plain(), Some(length)),
        (true, true) => (Body::empty(), None),
        (true, false) if Zipped::takes(&opened) => {
            let zipped = served.zipped.of(&opened, wait)?;
            let length = zipped.len() as u64;
            (Body::from(zipped), Some(length))
        }
        (true, false) => (zip_on_the_way(opened.file, opened.size), None),
    };
    if gzip {
        set(&mut response, CONTENT_ENCODING, "gzip");
    }
    if let Some(length) = length {
        response.headers_mut().insert(CONTENT_LENGTH, length.into());
    }
    *response.body_mut() = body;
    Ok(response)
}

/// The head of a response for a file of this size, and the bytes that are to follow: none where the head
/// says it all.
pub(super) fn begin(
    (size, validators): (u64, &Validators),
    media: Media,
    headers: &HeaderMap,
    wanted: Option<&str>,
) -> (Response, Option<Range<u64>>) {
    let mut response = Response::new(Body::empty());
    set(&mut response, CACHE_CONTROL, media.cache);
    set(&mut response, ETAG, &validators.etag);
    set(&mut response, LAST_MODIFIED, &httpdate::fmt_http_date(validators.modified));
    if media.text {
        set(&mut response, VARY, "Accept-Encoding");
    }
    if not_modified(headers, validators) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return (response, None);
    }
    set(&mut response, X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(&mut response, CONTENT_TYPE, media.content_type);
    set(&mut response, ACCEPT_RANGES, "bytes");
    if media.content_type.starts_with("text/html") {
        set(&mut response, CONTENT_SECURITY_POLICY, POLICY);
        set(&mut response, REFERRER_POLICY, "no-referrer");
    }
    let part = match wanted {
        Some(header) if range_applies(headers, validators) => range::parse(header, size),
        _ => Part::Whole,
    };
    match part {
        Part::Whole => (response, Some(0..size)),
        Part::Bytes(bytes) => {
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            let range = format!("bytes {}-{}/{}", bytes.start, bytes.end - 1, size);
            set(&mut response, CONTENT_RANGE, &range);
            (response, Some(bytes))
        }
        Part::Unsatisfiable => {
            let mut response = plain(StatusCode::RANGE_NOT_SATISFIABLE);
            set(&mut response, CONTENT_RANGE, &format!("bytes */{size}"));
            (response, None)
        }
    }
}

pub(super) fn plain(status: StatusCode) -> Response {
    let text = format!("{}\n", status.canonical_reason().unwrap_or("error"));
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    set(&mut response, CONTENT_TYPE, "text/plain; charset=utf-8");
    set(&mut response, X_CONTENT_TYPE_OPTIONS, "nosniff");
    response
}

fn set(response: &mut Response, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}
