//! One line a request, written when its last byte is sent or its client is gone.

use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::{Body, HttpBody};
use axum::http::header::{CONTENT_LENGTH, REFERER, USER_AGENT};
use axum::http::{HeaderName, Request, Response};
use chrono::{DateTime, Utc};
use hyper::body::{Frame, SizeHint};
use tokio_util::bytes::Bytes;

use super::answer::Failure;

/// Told of every request when it is over.
pub type AccessLog = Arc<dyn Fn(&Access) + Send + Sync>;

/// A request that is over. `Display` writes it as web servers do ("combined" format), so that the
/// usual tools read it.
#[derive(Clone, Debug)]
pub struct Access {
    /// Who asked.
    pub peer: SocketAddr,
    /// When.
    pub time: DateTime<Utc>,
    /// Method, target and version, as sent.
    pub request: String,
    /// Status of the response.
    pub status: u16,
    /// Bytes of the body that were sent.
    pub bytes: u64,
    /// Whether the whole body was sent.
    pub complete: bool,
    /// From the request's head to the last byte.
    pub duration: Duration,
    /// `Referer`, or `-`.
    pub referer: String,
    /// `User-Agent`, or `-`.
    pub user_agent: String,
    /// Why the server failed, when it did.
    pub failure: Option<String>,
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (peer, time) = (self.peer.ip(), self.time.format("%d/%b/%Y:%H:%M:%S +0000"));
        let Self { request, status, bytes, referer, user_agent, .. } = self;
        write!(f, "{peer} - - [{time}] \"{request}\" {status} {bytes} \"{referer}\" \"{user_agent}\"")?;
        self.failure.iter().try_for_each(|reason| write!(f, " error: {reason}"))
    }
}

/// What is known of a request before its response.
pub(super) struct Pending {
    access: Access,
    started: Instant,
    /// Bytes the body will have, when that is known.
    length: Option<u64>,
    log: AccessLog,
}

impl Pending {
    pub(super) fn new<B>(peer: SocketAddr, request: &Request<B>, log: AccessLog) -> Self {
        let header = |name: HeaderName| {
            request.headers().get(name).map_or_else(|| "-".to_owned(), |value| escape(value.as_bytes()))
        };
        let target = request.uri().path_and_query().map_or_else(|| "*".to_owned(), |t| unsecret(t.as_str()));
        let line = format!("{} {target} {:?}", request.method(), request.version());
        let access = Access {
            peer,
            time: Utc::now(),
            request: escape(line.as_bytes()),
            status: 0,
            bytes: 0,
            complete: false,
            duration: Duration::ZERO,
            referer: header(REFERER),
            user_agent: header(USER_AGENT),
            failure: None,
        };
        Self { access, started: Instant::now(), length: None, log }
    }

    /// Follows the response's body to its end.
    pub(super) fn follow(mut self, response: Response<Body>) -> Response<Body> {
        self.access.status = response.status().as_u16();
        let length = response.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok());
        self.length = length.and_then(|length| length.parse().ok());
        self.access.failure = response.extensions().get::<Failure>().map(|failure| failure.0.to_string());
        response.map(|inner| Body::new(Logged { inner, pending: self }))
    }
}

/// A target without the values of parameters that are secrets by their name; the server takes none
/// there, but somebody may have sent one.
fn unsecret(target: &str) -> String {
    let Some((path, query)) = target.split_once('?') else { return target.to_owned() };
    let parameter = |text: &str| match text.split_once('=') {
        Some((name, _))
            if ["token", "secret", "password", "key"]
                .iter()
                .any(|s| name.to_ascii_lowercase().contains(s)) =>
        {
            format!("{name}=...")
        }
        _ => text.to_owned(),
    };
    format!("{path}?{}", query.split('&').map(parameter).collect::<Vec<_>>().join("&"))
}

/// Bytes from outside must not end a line or its quotes.
fn escape(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

struct Logged {
    inner: Body,
    pending: Pending,
}

impl HttpBody for Logged {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(context);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                let Pending { access, length, .. } = &mut self.pending;
                access.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
                // A body of known size is not asked for its end.
                access.complete = *length == Some(access.bytes);
            }
            Poll::Ready(None) => self.pending.access.complete = true,
            _ => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for Logged {
    fn drop(&mut self) {
        let Pending { access, started, log, .. } = &mut self.pending;
        access.duration = started.elapsed();
        log(access);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_cannot_be_forged() {
        let request =
            Request::builder().uri("/a\"b").header("user-agent", "x\" 200 \u{e9}").body(()).unwrap();
        let pending = Pending::new("[::1]:1".parse().unwrap(), &request, Arc::new(|_| {}));
        let line = pending.access.to_string();
        assert!(line.starts_with("::1 - - ["), "{line}");
        assert!(line.contains("\"GET /a\\\"b HTTP/1.1\" 0 0 \"-\" \"x\\\" 200 \\xc3\\xa9\""), "{line}");
    }
}
