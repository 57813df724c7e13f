//! `/direct/ALIAS`: what `lxc image import https://HOST/direct/ALIAS` and Incus' ask for. The answer's
//! headers say where the image is, as one unified archive, and what its SHA-256 is.
//!
//! Source of the format: LXD's documentation, "Image handling", "Custom HTTP server".

use std::io;
use std::path::Path;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HOST, VARY, X_CONTENT_TYPE_OPTIONS};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::response::Response;
use millstream_image::Architecture;

use super::answer::Failure;
use super::api;
use super::gate;
use super::offer::{Offer, Offered};
use super::path::{self, Target};
use super::site::Served;

/// Where it begins.
pub(super) const ROOT: &str = "/direct";

/// Names of headers begin so, in requests and in answers.
const FAMILIES: [&str; 2] = ["lxd", "incus"];
/// What an answer depends on.
const DEPENDS: &str =
    "lxd-server-architectures, lxd-server-version, incus-server-architectures, incus-server-version";
/// LXD reads zstd from this version on; Incus always did.
const ZSTD: (u32, u32) = (4, 9);

/// What a server that asks can run and read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Asked {
    /// The best first; `None` when it does not say.
    architectures: Option<Vec<Architecture>>,
    /// Major and minor version, of LXD only.
    lxd: Option<(u32, u32)>,
}

impl Asked {
    fn of(headers: &HeaderMap) -> Self {
        let get = |family: &str, what: &str| {
            headers.get(format!("{family}-server-{what}")).and_then(|value| value.to_str().ok())
        };
        let list = FAMILIES.iter().find_map(|family| get(family, "architectures"));
        let names = |list: &str| list.split(',').filter_map(|name| name.trim().parse().ok()).collect();
        Self { architectures: list.map(names), lxd: get("lxd", "version").and_then(version) }
    }

    /// The image of a name that suits best, or why there is none.
    fn choose<'a>(&self, offer: &'a Offer, name: &str) -> Result<&'a Offered, String> {
        let (named, fixed) = offer.named(name);
        if named.is_empty() {
            return Err(format!("there is no image {name}"));
        }
        let of = |architecture: &Architecture| {
            named.iter().copied().find(|image| image.product.architecture() == *architecture)
        };
        let found = match (fixed, &self.architectures) {
            (Some(architecture), _) => of(&architecture),
            (None, Some(theirs)) => theirs.iter().find_map(of),
            (None, None) => api::preferred().iter().find_map(of).or_else(|| named.first().copied()),
        };
        let image = found.ok_or_else(|| {
            let mut all: Vec<_> =
                named.iter().map(|image| image.product.architecture().to_string()).collect();
            all.sort();
            format!("there is {name} for {}, but not for the architecture asked for", all.join(", "))
        })?;
        let Some(unified) = &image.unified else {
            return Err(format!(
                "there is {name}, but not as the unified archive that an import from an address takes; add \
                 this server as a remote instead, or publish the image with: millstream stream add --unified"
            ));
        };
        if Path::new(&unified.path).extension() == Some("zst".as_ref())
            && self.lxd.is_some_and(|version| version < ZSTD)
        {
            return Err(format!("{name} is compressed with zstd, which LXD reads from version 4.9 on"));
        }
        Ok(image)
    }
}

/// The first two numbers of a version.
fn version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.trim().split('.').map(str::parse);
    Some((parts.next()?.ok()?, parts.next().and_then(Result::ok).unwrap_or(0)))
}

/// Reads what a request says, for fuzzing.
pub(super) fn read(headers: &HeaderMap) {
    let _ = Asked::of(headers);
}

/// Answers for an alias, with the architecture at its end or without.
pub(super) async fn answer(State(served): State<Arc<Served>>, request: Request) -> Response {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are answered");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    let name = match path::parse(request.uri().path()) {
        Target::File(path) => path.strip_prefix("direct/").map(str::to_owned),
        Target::Nothing => None,
        Target::Malformed => return text(StatusCode::BAD_REQUEST, "this is not a path"),
    };
    let Some(name) = name else { return text(StatusCode::NOT_FOUND, "expected /direct/ALIAS") };
    let Some(host) = host(&request) else {
        return text(StatusCode::BAD_REQUEST, "the request does not say which host it is for");
    };
    let (asked, caller) = (Asked::of(request.headers()), gate::caller(&request));
    let answered = tokio::task::spawn_blocking(move || {
        let offer = gate::visible(&served, caller)?;
        Ok(match asked.choose(&offer, &name) {
            Ok(image) => found(image, &host)?,
            Err(reason) => text(StatusCode::NOT_FOUND, &reason),
        })
    });
    answered.await.unwrap_or_else(|error| Err(io::Error::other(error))).unwrap_or_else(|error| {
        let mut response = text(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error");
        response.extensions_mut().insert(Failure(Arc::new(error)));
        response
    })
}

/// Name and port by which the client calls this server. LXD takes a whole address only.
fn host(request: &Request) -> Option<Authority> {
    let stated = request.headers().get(HOST).and_then(|value| value.to_str().ok()?.parse().ok());
    let host: Authority = request.uri().authority().cloned().or(stated)?;
    (!host.as_str().contains('@')).then_some(host)
}

fn found(image: &Offered, host: &Authority) -> io::Result<Response> {
    let unified = image.unified.as_ref().ok_or_else(|| io::Error::other("no unified archive"))?;
    let digest = unified.sha256.ok_or_else(|| io::Error::other("documents state no SHA-256"))?;
    // Never a step back from https: who asked came that way, if not to us, then to a proxy before us.
    let url = format!("https://{host}/{}", unified.path);
    let mut response = text(StatusCode::OK, &format!("{digest}  {url}"));
    for family in FAMILIES {
        for (what, value) in [("hash", digest.to_string()), ("url", url.clone())] {
            let name = HeaderName::try_from(format!("{family}-image-{what}")).map_err(io::Error::other)?;
            response.headers_mut().insert(name, HeaderValue::from_str(&value).map_err(io::Error::other)?);
        }
    }
    Ok(response)
}

fn text(status: StatusCode, text: &str) -> Response {
    let mut response = Response::new(Body::from(format!("{text}\n")));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(VARY, HeaderValue::from_static(DEPENDS));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(headers: &[(&'static str, &'static str)]) -> Asked {
        let pairs = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        Asked::of(&pairs.collect())
    }

    #[test]
    fn both_families_of_headers_say_what_a_server_runs() {
        let architectures = |names: &[&str]| Some(names.iter().map(|name| name.parse().unwrap()).collect());
        let lxd = [("lxd-server-architectures", "x86_64, i686"), ("lxd-server-version", "5.0.2")];
        assert_eq!(
            asked(&lxd),
            Asked { architectures: architectures(&["amd64", "i386"]), lxd: Some((5, 0)) }
        );
        let incus = [("incus-server-architectures", "aarch64,vax"), ("incus-server-version", "6.0")];
        assert_eq!(asked(&incus), Asked { architectures: architectures(&["arm64"]), lxd: None });
        assert_eq!(asked(&[("lxd-server-architectures", "vax")]).architectures, Some(Vec::new()));
        assert_eq!(asked(&[]), Asked::default());
    }

    #[test]
    fn versions_are_compared_by_number() {
        assert_eq!(version("4.0.9"), Some((4, 0)));
        assert_eq!(version("6"), Some((6, 0)));
        assert!(version("4.24").unwrap() >= ZSTD && version("4.0.9").unwrap() < ZSTD);
        for odd in ["", "x", ".", "-1.0", "99999999999.1"] {
            assert_eq!(version(odd), None, "{odd}");
        }
    }
}
