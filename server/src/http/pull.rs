//! Files that are not here yet: sent while they come from upstream.

use std::sync::Arc;

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use futures_util::stream;
use millstream_image::Fingerprint;
use tokio_util::bytes::Bytes;

use super::access::Caller;
use super::answer::plain;
use super::gate;
use super::media;
use super::site::Served;
use crate::pull::{Following, Pull};

/// Bytes held in memory at a time for each response.
const CHUNK: usize = 128 << 10;

/// Answers with a file of upstream's; `None` when there is none, or it has come meanwhile.
pub(super) async fn answer(pull: &Arc<Pull>, path: &str, head: bool) -> Option<Response> {
    if head {
        return Some(response(path, pull.size(path)?, Body::empty()));
    }
    let Following { mut arriving, size, .. } = pull.follow(path)?;
    // Whether it comes at all decides about the status.
    let Ok(first) = arriving.next(CHUNK, size).await else { return Some(plain(StatusCode::BAD_GATEWAY)) };
    let pieces = stream::try_unfold((Some(first), arriving), move |(first, mut arriving)| async move {
        let piece = match first {
            Some(first) => first,
            None => arriving.next(CHUNK, size).await?,
        };
        Ok::<_, std::io::Error>((!piece.is_empty()).then(|| (Bytes::from(piece), (None, arriving))))
    });
    Some(response(path, size, Body::from_stream(pieces)))
}

/// Has a file here before it is opened; whoever opens it finds out when that failed.
pub(super) async fn bring(pull: &Arc<Pull>, path: &str) {
    if let Some(following) = pull.follow(path) {
        following.over().await;
    }
}

/// The same for both files of an image, if the caller may see it.
pub(super) async fn bring_image(served: &Arc<Served>, caller: Caller, fingerprint: Fingerprint) {
    let Some(pull) = &served.pull else { return };
    let of = Arc::clone(served);
    let paths = move || {
        let offer = gate::visible(&of, caller).ok()?;
        let image = offer.image(fingerprint)?;
        Some((image.metadata.path.clone(), image.rootfs.path.clone()))
    };
    if let Ok(Some((metadata, rootfs))) = tokio::task::spawn_blocking(paths).await {
        tokio::join!(bring(pull, &metadata), bring(pull, &rootfs));
    }
}

fn response(path: &str, size: u64, body: Body) -> Response {
    let media = media::of(path);
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media.content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(media.cache));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CONTENT_LENGTH, size.into());
    response
}
