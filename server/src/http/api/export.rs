//! `/1.0/images/FINGERPRINT/export`: a split image as `multipart/form-data`, metadata first.

use std::io;

use axum::body::Body;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderValue, Response, StatusCode};
use futures_util::{StreamExt, stream};
use millstream_image::simplestreams::Item;
use tokio_util::bytes::Bytes;

use crate::http::body::Content;
use crate::http::offer::Offered;
use crate::http::site::{Opened, Site, Wait};

/// Stands in no file of ours but by a chance of 2⁻¹²⁸: it is made of the image's own digest.
fn boundary(image: &Offered) -> String {
    format!("millstream-{}", &image.fingerprint.to_string()[..48])
}

/// The response; its size is known beforehand.
pub(super) fn split(site: &Site, image: &Offered, head: bool) -> io::Result<Response<Body>> {
    let boundary = boundary(image);
    let parts = [("metadata", &image.metadata), ("rootfs", &image.rootfs)];
    let mut length = 0;
    let mut pieces = Vec::new();
    for (name, item) in parts {
        let opened = open(site, item)?;
        let file = item.path.rsplit('/').next().unwrap_or_default();
        let before = format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"{file}\"\r\n\
             Content-Type: application/octet-stream\r\n\r\n"
        );
        length += before.len() as u64 + opened.size + 2;
        let content = Content::of(opened.file, 0..opened.size, Wait::Allowed)?;
        pieces.extend([Body::from(before), content.plain(), Body::from("\r\n")]);
    }
    let end = format!("--{boundary}--\r\n");
    length += end.len() as u64;
    pieces.push(Body::from(end));
    let body = if head {
        Body::empty()
    } else {
        let bytes = stream::iter(pieces).flat_map(Body::into_data_stream);
        Body::from_stream(bytes.map(|piece: Result<Bytes, axum::Error>| piece))
    };
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::OK;
    let headers = response.headers_mut();
    let kind = format!("multipart/form-data; boundary={boundary}");
    headers.insert(CONTENT_TYPE, HeaderValue::from_str(&kind).map_err(io::Error::other)?);
    headers.insert(CONTENT_LENGTH, length.into());
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    Ok(response)
}

/// The file of an item, which must have the size that documents state.
fn open(site: &Site, item: &Item) -> io::Result<Opened> {
    let opened =
        site.open(&item.path)?.ok_or_else(|| io::Error::other(format!("{} is missing", item.path)))?;
    if opened.size == item.size {
        Ok(opened)
    } else {
        Err(io::Error::other(format!("{} is not what the index says", item.path)))
    }
}
