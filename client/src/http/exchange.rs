//! One request with a body, and its answer whatever the status.

use std::time::Duration;

use reqwest::Method;
use reqwest::header::CONTENT_TYPE;

use super::body::Body;
use super::{HttpClient, check_url, network, shown};
use crate::{Error, Result};

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// All of it.
    pub body: Vec<u8>,
}

/// A request.
#[derive(Clone, Debug)]
pub struct Question<'a> {
    /// `POST`, `PATCH`, …
    pub method: &'a str,
    /// Where to.
    pub url: &'a str,
    /// Media type of the body.
    pub media: &'static str,
    /// What is sent.
    pub body: Vec<u8>,
    /// How long sending it and the answer's head may take.
    pub limit: Duration,
}

impl HttpClient {
    /// Sends a request and reads the answer, of at most `cap` bytes. Every answer is one, also a refusal;
    /// nothing is tried again.
    ///
    /// # Errors
    /// When there is no answer, or a longer one.
    pub async fn exchange(&self, question: Question<'_>, cap: usize) -> Result<Reply> {
        let Question { method, url, media, body, limit } = question;
        check_url(url)?;
        let method = Method::from_bytes(method.as_bytes()).map_err(|e| Error::Setup(e.to_string()))?;
        let request = self.inner.request(method, url).headers(self.headers.clone());
        let request = request.header(CONTENT_TYPE, media).body(body).send();
        let late = |_| {
            let reason = format!("no answer within {} s", limit.as_secs());
            Error::Network { url: shown(url), reason }
        };
        let response = tokio::time::timeout(limit, request).await.map_err(late)?;
        let response = response.map_err(|e| network(url, &e))?;
        let status = response.status().as_u16();
        let (mut coming, mut body) = (Body::new(url, response, self), Vec::new());
        while let Some(chunk) = coming.next().await? {
            if body.len() + chunk.len() > cap {
                return Err(Error::mismatch(shown(url), format!("more than the {cap} bytes allowed")));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Reply { status, body })
    }
}
