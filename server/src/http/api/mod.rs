//! LXD's and Incus' public image API, read-only: what `lxc remote add NAME https://HOST --public`
//! talks to.
//!
//! Source of the format: the REST API documentation of both ("Main API specification"), and what
//! their clients send.

mod export;
mod filter;
mod images;

use std::io;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use millstream_image::{Architecture, Fingerprint};
use serde_json::{Value, json};

use super::answer::{Failure, decode_path};
use super::gate;
use super::offer::Offer;
use super::pull;
use super::site::Served;

/// Where it begins.
pub(super) const ROOT: &str = "/1.0";

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Call {
    Server,
    Images,
    Image(Fingerprint),
    Export(Fingerprint),
    Aliases,
    Alias(String),
}

impl Call {
    /// Reads a path as it was sent; alias names may hold encoded slashes.
    fn parse(path: &str) -> Option<Self> {
        let rest = path.strip_prefix(ROOT)?.trim_end_matches('/');
        let parts: Vec<_> = rest.split('/').filter(|part| !part.is_empty()).collect();
        Some(match parts.as_slice() {
            [] => Self::Server,
            ["images"] => Self::Images,
            ["images", "aliases"] => Self::Aliases,
            ["images", "aliases", name @ ..] => Self::Alias(decode_path(&name.join("/"))?),
            ["images", fingerprint] => Self::Image(fingerprint.parse().ok()?),
            ["images", fingerprint, "export"] => Self::Export(fingerprint.parse().ok()?),
            _ => return None,
        })
    }
}

/// Reads what a request says, for fuzzing.
pub(super) fn read(target: &str) {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let _ = (Call::parse(path), filter::parse(query));
}

/// Answers a call of the API.
pub(super) async fn answer(State(served): State<Arc<Served>>, request: Request) -> Response {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return error(StatusCode::FORBIDDEN, "this server only gives images out");
    }
    let Some(call) = Call::parse(request.uri().path()) else {
        return error(StatusCode::NOT_FOUND, "not found");
    };
    if call == Call::Server {
        return sync(&images::server());
    }
    let caller = gate::caller(&request);
    if let Call::Export(fingerprint) = call {
        pull::bring_image(&served, caller, fingerprint).await;
    }
    let query = request.uri().query().unwrap_or_default().to_owned();
    let head = request.method() == Method::HEAD;
    let answered = tokio::task::spawn_blocking(move || {
        let offer = gate::visible(&served, caller)?;
        reply(&served, &offer, &call, &query, head)
    });
    answered.await.unwrap_or_else(|error| Err(io::Error::other(error))).unwrap_or_else(failed)
}

/// Aliases without an architecture mean this machine's, then the most common ones.
pub(super) fn preferred() -> [Architecture; 3] {
    let of = |name: &str| name.parse().unwrap_or_else(|_| Architecture::host());
    [Architecture::host(), of("amd64"), of("arm64")]
}

fn reply(served: &Served, offer: &Offer, call: &Call, query: &str, head: bool) -> io::Result<Response> {
    let parameter = |name: &str| {
        url::form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == name).map(|(_, value)| value)
    };
    let recursive = parameter("recursion").is_some_and(|depth| depth != "0");
    let preferred = preferred();
    Ok(match call {
        Call::Server => sync(&images::server()),
        Call::Images => {
            let filter = match parameter("filter").map(|text| filter::parse(&text)).transpose() {
                Ok(filter) => filter,
                Err(reason) => return Ok(error(StatusCode::BAD_REQUEST, &reason)),
            };
            let all = offer.images().map(images::image);
            let wanted = all.filter(|image| filter.as_ref().is_none_or(|filter| filter.matches(image)));
            let url = |image: &Value| json!(format!("{ROOT}/images/{}", text(&image["fingerprint"])));
            sync(&if recursive {
                wanted.collect()
            } else {
                wanted.map(|image| url(&image)).collect::<Value>()
            })
        }
        Call::Image(fingerprint) => match offer.image(*fingerprint) {
            Some(image) => sync(&images::image(image)),
            None => error(StatusCode::NOT_FOUND, "Image not found"),
        },
        Call::Export(fingerprint) => match offer.image(*fingerprint) {
            Some(image) => export::split(&served.site, image, head)?,
            None => error(StatusCode::NOT_FOUND, "Image not found"),
        },
        Call::Aliases => {
            let aliases = offer.aliases(&preferred);
            let entry = |name: &String| json!(format!("{ROOT}/images/aliases/{}", images::encode(name)));
            sync(&if recursive {
                aliases.iter().map(|(name, image)| images::alias(name, image)).collect()
            } else {
                aliases.keys().map(entry).collect::<Value>()
            })
        }
        Call::Alias(name) => match offer.alias(name, &preferred) {
            Some(image) => sync(&images::alias(name, image)),
            None => error(StatusCode::NOT_FOUND, "Image alias not found"),
        },
    })
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn sync(metadata: &Value) -> Response {
    let body = json!({
        "type": "sync", "status": "Success", "status_code": 200, "operation": "", "error_code": 0,
        "error": "", "metadata": metadata,
    });
    Json(body).into_response()
}

fn error(status: StatusCode, reason: &str) -> Response {
    let body = json!({"type": "error", "error_code": status.as_u16(), "error": reason});
    (status, Json(body)).into_response()
}

fn failed(cause: io::Error) -> Response {
    let mut response = error(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error");
    response.extensions_mut().insert(Failure(Arc::new(cause)));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_the_api() {
        let digest = "a".repeat(64);
        let fingerprint: Fingerprint = digest.parse().unwrap();
        for (path, call) in [
            ("/1.0", Call::Server),
            ("/1.0/", Call::Server),
            ("/1.0/images", Call::Images),
            (&format!("/1.0/images/{digest}"), Call::Image(fingerprint)),
            (&format!("/1.0/images/{digest}/export"), Call::Export(fingerprint)),
            ("/1.0/images/aliases", Call::Aliases),
            ("/1.0/images/aliases/debian%2Fbookworm", Call::Alias("debian/bookworm".into())),
            ("/1.0/images/aliases/debian/bookworm", Call::Alias("debian/bookworm".into())),
        ] {
            assert_eq!(Call::parse(path), Some(call), "{path}");
        }
        for path in ["/1.0/instances", "/1.0/images/..", "/1.0/images/ABC", "/1.0/images/aliases/%zz", "/2.0"]
        {
            assert_eq!(Call::parse(path), None, "{path}");
        }
    }
}
