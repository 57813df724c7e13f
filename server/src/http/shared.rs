//! A stream in a shared storage: documents are answered from copies on this machine, files of images are
//! passed on piece by piece, or the client is sent to the store for them.

use std::io;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_LENGTH, LOCATION, RANGE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use futures_util::TryStreamExt;
use tokio::runtime::Handle;

use super::answer::{begin, plain};
use super::conditional::Validators;
use super::media;
use super::site::Opened;
use crate::shared::{Found, Reader};

/// Opens a document, or fetches a whole file of an image. May block.
pub(super) fn open(reader: &Reader, path: &str) -> io::Result<Option<Opened>> {
    let opened = async {
        if let Some(copy) = reader.document(path).await? {
            let modified = UNIX_EPOCH + Duration::from_secs(copy.modified.max(0) as u64);
            let validators = Validators { etag: copy.etag, modified };
            return Ok(Some(Opened { file: copy.file, size: copy.size, validators }));
        }
        let Some(found) = reader.file(path).await? else { return Ok(None) };
        let file = reader.whole(&found).await?;
        Ok(Some(Opened { file, size: found.size, validators: validators(&found) }))
    };
    Handle::current().block_on(opened).map_err(|error: crate::Error| io::Error::other(error))
}

/// Answers for a file of an image; `None` when the path is none.
pub(super) async fn answer(
    reader: &Arc<Reader>,
    path: &str,
    headers: &HeaderMap,
    head: bool,
) -> Option<io::Result<Response>> {
    match reader.file(path).await {
        Ok(None) => None,
        Ok(Some(found)) => Some(file(reader, &found, (path, headers), head).await.map_err(io::Error::other)),
        Err(error) => Some(Err(io::Error::other(error))),
    }
}

async fn file(
    reader: &Arc<Reader>,
    found: &Found,
    (path, headers): (&str, &HeaderMap),
    head: bool,
) -> crate::Result<Response> {
    let wanted = headers.get(RANGE).filter(|_| !head).and_then(|value| value.to_str().ok());
    let begun = begin((found.size, &validators(found)), media::of(path), headers, wanted);
    let (mut response, Some(bytes)) = begun else { return Ok(begun.0) };
    response.headers_mut().insert(CONTENT_LENGTH, (bytes.end - bytes.start).into());
    if head {
        return Ok(response);
    }
    if let Some(url) = reader.link(found).await?
        && let Ok(location) = HeaderValue::from_str(url.as_str())
    {
        let mut response = plain(StatusCode::TEMPORARY_REDIRECT);
        response.headers_mut().insert(LOCATION, location);
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        return Ok(response);
    }
    let pieces = reader.part(found, bytes).await?;
    *response.body_mut() = Body::from_stream(pieces.map_err(io::Error::other));
    Ok(response)
}

/// What has another id is another file, so the time says nothing.
fn validators(found: &Found) -> Validators {
    Validators { etag: found.etag.clone(), modified: UNIX_EPOCH }
}
