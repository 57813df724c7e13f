//! `/push/v1`: images from builders elsewhere. Who may is decided by a request's head; until then nothing
//! of its body is read.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::Response;
use futures_util::StreamExt;
use millstream_image::Sha256Digest;
use serde::Serialize;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tokio_util::bytes::Bytes;

use super::access::{Caller, denied};
use super::answer::{Failure, plain};
use super::gate::caller;
use super::site::Served;
use crate::push::{
    self, ANNOUNCEMENT, Announcement, Kind, May, PIECE, Problem, Push, Pushed, Refusal, Taken,
};

/// Bytes gathered before they are written.
const GATHER: usize = 1 << 20;
/// How long one piece may take.
const PATIENCE: Duration = Duration::from_mins(10);

/// Whether a request is a push, which needs other rights than reading.
pub(super) fn is_push(path: &str) -> bool {
    path.strip_prefix(push::PATH).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Answers a push.
pub(super) async fn answer(served: State<Arc<Served>>, request: Request) -> Response {
    let State(served) = served;
    let Some(push) = served.push.clone().filter(|_| served.areas.now().take_pushes()) else {
        return plain(StatusCode::NOT_FOUND);
    };
    let caller = caller(&request);
    let pusher = match served.areas.now().pusher(caller) {
        Ok(pusher) => pusher,
        Err(why) => return denied(why),
    };
    let asker = Asker { pusher, may: may(&served, caller) };
    let path = request.uri().path().to_owned();
    let parts: Vec<_> = path[push::PATH.len()..].split('/').skip(1).collect();
    let (method, answered) = match parts.as_slice() {
        [] => (Method::POST, asker.announce(&push, request).await),
        [id, "finish"] => (Method::POST, asker.finish(&push, id, request.method()).await),
        [id, name] => (Method::PATCH, asker.append(&push, id, name, request).await),
        _ => return plain(StatusCode::NOT_FOUND),
    };
    match answered {
        Answered::Method => {
            let mut response = plain(StatusCode::METHOD_NOT_ALLOWED);
            if let Ok(method) = HeaderValue::from_str(method.as_str()) {
                response.headers_mut().insert(ALLOW, method);
            }
            response
        }
        Answered::Well(response) => response,
        Answered::Not(refusal) => refused(refusal),
    }
}

enum Answered {
    Well(Response),
    Not(Refusal),
    /// The path knows another method.
    Method,
}

impl<T: Serialize> From<Result<T, Refusal>> for Answered {
    fn from(result: Result<T, Refusal>) -> Self {
        match result {
            Ok(said) => Self::Well(json(StatusCode::OK, &said)),
            Err(refusal) => Self::Not(refusal),
        }
    }
}

/// Who pushes, and where to.
struct Asker {
    pusher: Sha256Digest,
    may: May,
}

impl Asker {
    async fn announce(self, push: &Arc<Push>, request: Request) -> Answered {
        if request.method() != Method::POST {
            return Answered::Method;
        }
        let announced = async {
            if length(request.headers()).is_some_and(|length| length > ANNOUNCEMENT as u64) {
                return Err(Refusal::new(Kind::TooLarge, "an announcement is smaller"));
            }
            let body = timeout(PATIENCE, axum::body::to_bytes(request.into_body(), ANNOUNCEMENT)).await;
            let Ok(Ok(body)) = body else {
                return Err(Refusal::new(Kind::Bad, "the announcement did not come whole"));
            };
            let announcement = Announcement::parse(&body).map_err(|e| Refusal::new(Kind::Bad, e))?;
            let push = Arc::clone(push);
            blocking(move || push.announce(&self.pusher, announcement, &self.may)).await
        };
        announced.await.into()
    }

    async fn append(self, push: &Arc<Push>, id: &str, name: &str, request: Request) -> Answered {
        if request.method() != Method::PATCH {
            return Answered::Method;
        }
        let appended = async {
            let (length, offset) = (length(request.headers()), offset(request.uri().query()));
            let (Some(length), Some(offset)) = (length, offset) else {
                return Err(Refusal::new(
                    Kind::Bad,
                    "a piece has Content-Length, and ?offset=N in its address",
                ));
            };
            if length > PIECE {
                return Err(Refusal::new(Kind::TooLarge, format!("a piece has at most {PIECE} bytes")));
            }
            let upload = self.upload(push, id).await?;
            let taken = timeout(PATIENCE, take(&upload, name, offset, request.into_body())).await;
            let slow = || Refusal::new(Kind::Bad, "the piece came too slowly; send smaller ones");
            taken.unwrap_or_else(|_| Err(slow())).map(|offset| Taken { offset })
        };
        appended.await.into()
    }

    async fn finish(self, push: &Arc<Push>, id: &str, method: &Method) -> Answered {
        if method != Method::POST {
            return Answered::Method;
        }
        let finished = async {
            let number: Sha256Digest = id.parse().map_err(|_| missing())?;
            // What has ended meanwhile is no upload any more.
            let upload = self.upload(push, id).await;
            push.finish((self.pusher, number), upload, self.may).await
        };
        finished.await.into()
    }

    async fn upload(&self, push: &Arc<Push>, id: &str) -> Result<Pushed, Refusal> {
        let id: Sha256Digest = id.parse().map_err(|_| missing())?;
        let (push, pusher, may) = (Arc::clone(push), self.pusher, Arc::clone(&self.may));
        blocking(move || push.upload(&pusher, &id, &may)).await
    }
}

fn missing() -> Refusal {
    Refusal::new(Kind::Missing, "no such upload")
}

/// Appends a body to a file as it comes. When that fails the rest is read all the same, so that the client
/// is there to hear why.
async fn take(upload: &Pushed, name: &str, mut offset: u64, body: Body) -> Result<u64, Refusal> {
    let mut body = body.into_data_stream();
    let (mut gathered, mut failed) = (Vec::new(), None);
    loop {
        let piece = match body.next().await {
            Some(Ok(piece)) => Some(piece),
            // The client is gone; what came is kept.
            Some(Err(_)) | None => None,
        };
        let over = piece.is_none();
        if failed.is_none() {
            gathered.extend_from_slice(&piece.unwrap_or_else(Bytes::new));
        }
        if failed.is_none() && (over && !gathered.is_empty() || gathered.len() >= GATHER) {
            let (upload, name, bytes) = (upload.clone(), name.to_owned(), std::mem::take(&mut gathered));
            match blocking(move || Push::append(&upload, &name, offset, &bytes)).await {
                Ok(end) => offset = end,
                Err(refusal) => failed = Some(refusal),
            }
        }
        if over {
            return failed.map_or(Ok(offset), Err);
        }
    }
}

/// What somebody may publish.
fn may(served: &Arc<Served>, caller: Caller) -> May {
    let served = Arc::clone(served);
    Arc::new(move |path| path.to_str().is_some_and(|path| served.areas.now().push(caller, path)))
}

fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn offset(query: Option<&str>) -> Option<u64> {
    query?.split('&').find_map(|parameter| parameter.strip_prefix("offset=")?.parse().ok())
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    let failed = |error: tokio::task::JoinError| Refusal {
        detail: Some(error.to_string()),
        ..Refusal::new(Kind::Failed, "the server failed; its log says why")
    };
    spawn_blocking(work).await.unwrap_or_else(|error| Err(failed(error)))
}

fn refused(refusal: Refusal) -> Response {
    let status = match refusal.kind {
        Kind::Bad => StatusCode::BAD_REQUEST,
        Kind::Forbidden => StatusCode::FORBIDDEN,
        Kind::Missing => StatusCode::NOT_FOUND,
        Kind::Conflict => StatusCode::CONFLICT,
        Kind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Kind::Unusable => StatusCode::UNPROCESSABLE_ENTITY,
        Kind::TooMany => StatusCode::TOO_MANY_REQUESTS,
        Kind::Failed => StatusCode::INTERNAL_SERVER_ERROR,
        Kind::Full => StatusCode::INSUFFICIENT_STORAGE,
    };
    let mut response = json(status, &Problem { error: refusal.reason, offset: refusal.offset });
    if refusal.kind == Kind::TooMany {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("60"));
    }
    if let Some(detail) = refusal.detail {
        response.extensions_mut().insert(Failure(Arc::new(std::io::Error::other(detail))));
    }
    response
}

fn json(status: StatusCode, said: &impl Serialize) -> Response {
    let mut text = serde_json::to_vec(said).unwrap_or_default();
    text.push(b'\n');
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
